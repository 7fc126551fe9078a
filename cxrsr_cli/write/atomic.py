"""Files appear under their final name whole, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_PREFIX = ".cxrsr-"
TEMPORARY_SUFFIX = ".part"


@contextmanager
def replacing(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary file beside `path`, renamed to it if the block succeeds.

    The temporary file is in the same folder because a rename is atomic only
    within one file system. It is flushed to the disk before the rename, so
    that a power cut cannot leave a renamed but empty file.

    Parameters
    ----------
    path : Path
        Final name; its folder must exist.
    overwrite : bool
        Whether an existing `path` may be replaced. If not, one that appears
        while the block runs is kept too.

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
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _sync(temporary)
        if overwrite:
            temporary.replace(path)
        else:
            _rename_new(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _rename_new(temporary: Path, path: Path) -> None:
    """Rename without replacing: a hard link fails where the name exists."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links on this file system (FAT, some network shares)
        if path.exists():
            raise FileExistsError(path) from None
        temporary.rename(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # a folder on a file system that cannot sync one
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
