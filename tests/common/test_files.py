"""Files are written completely or not at all, and never over other files unasked."""

import errno
import os
from pathlib import Path
from unittest.mock import patch

import pytest

from cxrsr_cli.common.files import atomic_write, fsync_path, scratch_folder


def test_folders_that_killed_processes_left_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may hold patients' images. Links, and folders that are in use, are kept."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, precious = tmp_path / "cxrsr-cluster-left", tmp_path / "precious"
    for folder in (left, precious):
        folder.mkdir()
        (folder / "in.dcm").touch()
    (tmp_path / "cxrsr-cluster-link").symlink_to(precious)
    os.utime(left, (0, 0))
    with scratch_folder("cluster") as one:
        assert not left.exists()
        os.utime(one, (0, 0))
        with scratch_folder("cluster") as two:
            assert one.exists()
            assert one != two
    assert not one.exists()
    assert (precious / "in.dcm").exists()


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
