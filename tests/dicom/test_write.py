"""Files are written completely or not at all, and never over other files unasked."""

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from cxrsr_cli.common.files import atomic_write, fsync_path
from cxrsr_cli.derive.derive import derive
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.dicom.write import check_target, write_dicom
from cxrsr_cli.errors import OutputError
from tests.conftest import EXAMPLE
from tests.derive.test_derive import NOW, at_scale


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("existing", [None, b"old"])
def test_a_failure_keeps_the_existing_file(tmp_path: Path, existing: bytes | None) -> None:
    path = tmp_path / "file"
    if existing:
        path.write_bytes(existing)

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([existing] if existing else [])


def appear_meanwhile(path: Path) -> None:
    with atomic_write(path, overwrite=False) as temporary:
        temporary.write_bytes(b"ours")
        path.write_bytes(b"theirs")


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_file_that_appears_while_writing_is_kept(tmp_path: Path, hard_links: bool) -> None:
    path = tmp_path / "file"
    refusal = None if hard_links else OSError("no hard links")
    with (
        patch("os.link", side_effect=refusal) if refusal else patch("os.sep", "/"),
        pytest.raises(FileExistsError),
    ):
        appear_meanwhile(path)
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_folder_that_cannot_be_flushed_is_ignored(tmp_path: Path, call: str, number: int) -> None:
    file = tmp_path / "file"
    file.touch()
    with patch.object(os, call, side_effect=OSError(number, "")):
        fsync_path(tmp_path)
        with pytest.raises(OSError, match=rf"Errno {number}\]"):
            fsync_path(file)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE])
def test_an_error_while_flushing_the_folder_is_raised(tmp_path: Path, number: int) -> None:
    """After a success, a caller may remove its own copy of the file."""
    real, target = os.fsync, tmp_path / "file"

    def fsync(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), tmp_path.stat()):
            raise OSError(number, "")
        real(descriptor)

    with (
        patch.object(os, "fsync", fsync),
        pytest.raises(OSError, match=rf"Errno {number}\]"),
        atomic_write(target) as temporary,
    ):
        temporary.write_bytes(b"x")


def test_the_umask_decides_the_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with atomic_write(tmp_path / "file"):
        pass
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_source_is_refused_as_target_under_any_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"")
    (tmp_path / "soft").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source)
    for name in ("source", "soft", "hard"):
        with pytest.raises(OutputError, match="same file"):
            check_target(source, tmp_path / name, overwrite=True)


def test_a_file_that_does_not_read_back_is_not_kept(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(EXAMPLE)
    other = np.array(dataset.pixel_array[None], np.int32)
    other[0, 3, 3] ^= 1
    with pytest.raises(OutputError, match="read back"):
        write_dicom(dataset, other, tmp_path / "out.dcm", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def flip(raw: bytearray, at: int) -> None:
    raw[at] ^= 1


def flip_in_value(raw: bytearray, tag: bytes, at: int) -> None:
    flip(raw, raw.index(tag) + 8 + at)


def cut(raw: bytearray, start: int, stop: int | None) -> None:
    del raw[start:stop]


DAMAGES: dict[str, Callable[[bytearray], None]] = {
    "the last pixels": lambda raw: flip(raw, len(raw) - 20),
    "the end is missing": lambda raw: cut(raw, -1000, None),
    "a byte is missing": lambda raw: cut(raw, 600, 601),
    "all is missing": lambda raw: cut(raw, 0, None),
}
WHERE_TAGS_ARE_SEEN: dict[str, Callable[[bytearray], None]] = {
    "the first pixels": lambda raw: flip_in_value(raw, b"\xe0\x7f\x10\0", 200),
    "SOP Instance UID": lambda raw: flip_in_value(raw, b"\x08\0\x18\0", 10),
    "Rows": lambda raw: flip_in_value(raw, b"\x28\0\x10\0", 0),
    "Samples per Pixel": lambda raw: flip_in_value(raw, b"\x28\0\x02\0", 0),
    "Photometric Interpretation": lambda raw: flip_in_value(raw, b"\x28\0\x04\0", 10),
    "Photometric Interpretation's tag": lambda raw: flip_in_value(raw, b"\x28\0\x04\0", -8),
    "Bits Stored": lambda raw: flip_in_value(raw, b"\x28\0\x01\x01", 0),
}
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless,
            JPEG2000Lossless]  # fmt: skip


@pytest.mark.parametrize(
    ("syntax", "damage"),
    [
        *itertools.product(SYNTAXES, DAMAGES | WHERE_TAGS_ARE_SEEN),
        *itertools.product([DeflatedExplicitVRLittleEndian], DAMAGES),
    ],
    ids=lambda value: value.keyword if isinstance(value, UID) else value,
)
def test_a_file_that_is_damaged_while_writing_is_not_kept(
    tmp_path: Path, syntax: UID, damage: str
) -> None:
    save = pydicom.FileDataset.save_as

    def save_damaged(dataset: pydicom.FileDataset, path: Path, **_: object) -> None:
        save(dataset, path, enforce_file_format=True, overwrite=True)
        raw = bytearray(path.read_bytes())
        (DAMAGES | WHERE_TAGS_ARE_SEEN)[damage](raw)
        path.write_bytes(raw)

    source = read_source(EXAMPLE)
    pixels = decode(source)
    larger = pixels.astype(np.uint16).repeat(2, 1).repeat(2, 2)
    derived, _ = derive(source, pixels, larger, at_scale(2), NOW)
    with (
        patch.object(pydicom.FileDataset, "save_as", save_damaged),
        pytest.raises(OutputError, match="read back"),
    ):
        write_dicom(derived, larger, tmp_path / "out.dcm", syntax=syntax)
    assert list(tmp_path.iterdir()) == []


def test_the_error_names_a_full_disk(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(EXAMPLE)
    pixels = np.array(dataset.pixel_array[None], np.int32)
    with (
        patch.object(pydicom.FileDataset, "save_as", side_effect=OSError(28, "No space left")),
        pytest.raises(OutputError, match="No space left"),
    ):
        write_dicom(dataset, pixels, tmp_path / "out.dcm", overwrite=False)
    assert list(tmp_path.iterdir()) == []
