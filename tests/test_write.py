"""Files appear whole or not at all, and nothing is overwritten unasked."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pydicom
import pytest

from cxrsr_cli.errors import OutputError
from cxrsr_cli.write.atomic import replacing
from cxrsr_cli.write.dicom import check_target, write_dicom
from tests.conftest import EXAMPLE


def test_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("existing", [None, b"old"])
def test_a_failure_leaves_what_was(tmp_path: Path, existing: bytes | None) -> None:
    path = tmp_path / "file"
    if existing:
        path.write_bytes(existing)

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([existing] if existing else [])


def appear_meanwhile(path: Path) -> None:
    with replacing(path, overwrite=False) as temporary:
        temporary.write_bytes(b"ours")
        path.write_bytes(b"theirs")


@pytest.mark.parametrize("hard_links", [True, False])
def test_what_appears_meanwhile_is_kept(tmp_path: Path, hard_links: bool) -> None:
    path = tmp_path / "file"
    refusal = None if hard_links else OSError("no hard links")
    with (
        patch("os.link", side_effect=refusal) if refusal else patch("os.sep", "/"),
        pytest.raises(FileExistsError),
    ):
        appear_meanwhile(path)
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_umask_decides_the_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with replacing(tmp_path / "file"):
        pass
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_source_is_refused_by_any_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"")
    (tmp_path / "soft").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source)
    for name in ("source", "soft", "hard"):
        with pytest.raises(OutputError, match="same file"):
            check_target(source, tmp_path / name, overwrite=True)


def test_what_does_not_read_back_is_not_written(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(EXAMPLE)
    other = np.array(dataset.pixel_array[None], np.int32)
    other[0, 3, 3] ^= 1
    with pytest.raises(OutputError, match="read back"):
        write_dicom(dataset, other, tmp_path / "out.dcm", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(EXAMPLE)
    pixels = np.array(dataset.pixel_array[None], np.int32)
    with (
        patch.object(pydicom.FileDataset, "save_as", side_effect=OSError(28, "No space left")),
        pytest.raises(OutputError, match="No space left"),
    ):
        write_dicom(dataset, pixels, tmp_path / "out.dcm", overwrite=False)
    assert list(tmp_path.iterdir()) == []
