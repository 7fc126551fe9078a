"""Which file it was, to the bit, and whether it kept still while it was read."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxrsr_cli.errors import NotDicomError


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def kept_still(path: Path) -> Iterator[None]:
    """Make sure that a file is the same after the block as before it.

    A receiver may still be writing it; half a file can read as a whole one.

    Raises
    ------
    NotDicomError
        If it changed, or cannot be read.
    """
    try:
        before = _state(path)
        yield
        after = _state(path)
    except OSError as error:
        raise NotDicomError(f"cannot read the file ({error.strerror or 'I/O error'})") from None
    if after != before:
        raise NotDicomError("the file changed while it was read; is it still being written?")


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
