"""Write files atomically, hash them, and detect changes while they are read."""

import errno
import fcntl
import functools
import hashlib
import io
import itertools
import logging
import operator
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cxrsr_cli.errors import UnreadableFileError

_LOG = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".cxrsr-"
TEMPORARY_SUFFIX = ".part"
_SCHEMA_WITHIN_BYTES = 100
"""The name of a schema is this near to the beginning of a file."""

_MIN_STALE_SECONDS = 10.0
"""Age at which an unlocked temporary file counts as left behind."""

_UNFLUSHABLE_FOLDER_ERRORS = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM)
"""Errors for a folder that cannot be opened, or on a file system that flushes no folders."""


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# Reading the umask means setting it for the whole process, so it is read before threads start.
_UMASK = _umask()


@contextmanager
def atomic_write(path: Path, *, overwrite: bool = True, permissions: int = 0o666) -> Iterator[Path]:
    """Yield a temporary file beside `path`, and rename it to `path` if the block succeeds.

    The temporary file is in the same folder, because a rename is atomic only within one
    file system. It is flushed to the disk before the rename, so that a power cut cannot
    leave a renamed but empty file.

    Parameters
    ----------
    path : Path
        Final name; its folder must exist.
    overwrite : bool
        Whether an existing `path` may be replaced. If not, a file that appears while the
        block runs is kept too.
    permissions : int
        Mode of the file, before the process's umask takes bits from it. A file system that
        knows no modes is left as it is.

    Yields
    ------
    Path
        The temporary file, empty, readable by its owner only.

    Raises
    ------
    FileExistsError
        If `path` exists and `overwrite` is false.
    OSError
        If the folder cannot be written to.
    """
    descriptor, name = tempfile.mkstemp(TEMPORARY_SUFFIX, TEMPORARY_PREFIX, path.parent)
    temporary = Path(name)
    try:
        # Locked while this process lives; an unlocked temporary file was left behind.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield temporary
        with suppress(OSError):  # FAT and some network shares
            temporary.chmod(permissions & ~_UMASK)
        fsync_path(temporary)
        publish(temporary, path, overwrite=overwrite)
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Rename a complete and flushed file within its folder; it may keep the old name as well.

    Raises
    ------
    FileExistsError
        If `path` exists and `overwrite` is false.
    OSError
        If it cannot be renamed.
    """
    if overwrite:
        temporary.replace(path)
    else:
        _rename_new(temporary, path)
    fsync_path(path.parent)


@contextmanager
def scratch_folder(kind: str) -> Iterator[Path]:
    """Make a temporary folder, which is removed after the block.

    Those of the same kind that killed processes left behind are removed first: they may hold
    patients' images.

    Parameters
    ----------
    kind : str
        Part of the name.
    """
    prefix = f"cxrsr-{kind}-"
    _remove_stale_folders(Path(tempfile.gettempdir()), prefix)
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            # Locked while this process lives; children do not inherit the descriptor.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(name)
        finally:
            os.close(descriptor)


def _remove_stale_folders(parent: Path, prefix: str) -> None:
    for stale in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            status = stale.lstat()
            is_young = time.time() - status.st_mtime < _MIN_STALE_SECONDS
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if is_young or not is_ours:
                continue
            descriptor = os.open(stale, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(stale)
                _LOG.info("removed a folder of a process that was killed: %s", stale)
            finally:
                os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """Return a unique name beside `path` that `remove_stale_temporaries` recognises."""
    return path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")


def remove_stale_temporaries(folder: Path) -> None:
    """Remove the temporary files of killed processes from a folder, which need not exist."""
    for stale in folder.glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"):
        with suppress(OSError):
            status = stale.lstat()
            is_young = time.time() - status.st_mtime < _MIN_STALE_SECONDS
            if is_young or not stat.S_ISREG(status.st_mode):
                continue
            descriptor = os.open(stale, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stale.unlink()
                _LOG.info("removed a temporary file of a process that was killed: %s", stale)
            finally:
                os.close(descriptor)


def _rename_new(temporary: Path, path: Path) -> None:
    """Rename without replacing: making a hard link fails if the name exists."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links on this file system (FAT, some network shares)
        if path.exists():
            raise FileExistsError(path) from None
        temporary.rename(path)


def fsync_path(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk.

    A folder that cannot be opened or flushed is ignored (`_UNFLUSHABLE_FOLDER_ERRORS`).

    Raises
    ------
    OSError
        If it cannot be flushed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _UNFLUSHABLE_FOLDER_ERRORS or not path.is_dir():
            raise


def make_folder(path: Path) -> None:
    """Make a folder and those above it; `Path.mkdir` would fail for a path of a thousand folders.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    missing = list(itertools.takewhile(lambda folder: not folder.is_dir(), (path, *path.parents)))
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)


def real_path(path: Path) -> Path:
    """Return the absolute path without links; a link that cannot be followed stays in it.

    `Path.resolve` raises RuntimeError for links that lead to each other.
    """
    try:
        return Path(os.path.realpath(path))
    except (OSError, RecursionError):
        return path.absolute()


def free_bytes(path: Path) -> int | None:
    """Return the space for a file, whose folder need not exist; None if it is unknown."""
    try:
        found = shutil.disk_usage(next(p for p in path.absolute().parents if p.exists()))
    except OSError:
        return None
    return found.free if found.total else None


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits.

    Raises
    ------
    OSError
        If it cannot be read, or is a pipe or a device, which may never end.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_regular(path: Path, *, follow_link: bool = True) -> io.BufferedReader:
    """Open a file to read it.

    Raises
    ------
    OSError
        If it cannot be read, is no regular file, or is a link that may not be followed.
    """
    # Without O_NONBLOCK a pipe would wait for a writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow_link else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return io.BufferedReader(io.FileIO(descriptor))


def has_schema(path: Path, schema: str) -> bool:
    """Return whether a file has the name of a schema near its beginning; raises OSError."""
    if not path.is_file():  # reading a pipe or a device might never end
        return False
    with path.open("rb") as file:
        return schema.encode() in file.read(_SCHEMA_WITHIN_BYTES)


def permissions_of(*paths: Path) -> int:
    """Return the mode that all files have, for whom their folders let in; at least 0o600.

    A copy with this mode is nowhere more readable than any of the files. One that cannot be
    seen counts as 0o600.
    """
    return functools.reduce(operator.and_, map(_permissions_of_file, paths), 0o666)


def _permissions_of_file(path: Path) -> int:
    try:
        mode, folder = path.stat().st_mode, path.resolve(strict=True).parent.stat().st_mode
    except (OSError, RuntimeError):
        return 0o600
    for search, bits in ((stat.S_IXGRP, 0o060), (stat.S_IXOTH, 0o006)):
        if not folder & search:
            mode &= ~bits
    return mode & 0o666 | 0o600


@contextmanager
def ensure_unchanged(path: Path) -> Iterator[None]:
    """Check that a file is the same after the block as before it.

    A receiver may still be writing it, and half a file can read like a whole one. A pipe or
    a device is refused, because reading it could wait for ever.

    Raises
    ------
    UnreadableFileError
        If the file changed, is not a regular file, or cannot be read.
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
