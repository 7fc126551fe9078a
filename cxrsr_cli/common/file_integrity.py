"""Which file it was, to the bit, and whether it kept still while it was read."""

import hashlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxrsr_cli.errors import UnreadableFileError


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def ensure_unchanged(path: Path) -> Iterator[None]:
    """Make sure that a file is the same after the block as before it.

    A receiver may still be writing it; half a file can read as a whole one.
    A pipe or a device is refused before anything waits for its end.

    Raises
    ------
    NotReadableError
        If it changed, is no regular file, or cannot be read.
    """
    try:
        before = _state(path)
        yield
        after = _state(path)
    except OSError as error:
        raise UnreadableFileError(
            f"cannot read the file ({error.strerror or 'I/O error'})"
        ) from None
    if after != before:
        raise UnreadableFileError("the file changed while it was read; is it still being written?")


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableFileError("cannot read the folder")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFileError("not a regular file, but a pipe, a socket or a device")
    return status.st_ino, status.st_size, status.st_mtime_ns
