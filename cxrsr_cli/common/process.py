"""How a worker process's C library deals with memory that is freed."""

import ctypes
import resource
import sys
from contextlib import suppress
from datetime import datetime

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in what getrusage counts memory in."""


def peak_rss_bytes() -> int:
    """Return the high-water mark of the process's memory in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def now() -> datetime:
    """Return the time now, with its zone."""
    return datetime.now().astimezone()


# <malloc.h> of the GNU C library.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_LARGEST_MAP = 32 << 20
"""Bytes; the largest that the library takes for the second."""


def disable_malloc_trim() -> None:
    """Have what a strip's feature maps leave kept for the next strip's.

    Dask starts its workers with ``MALLOC_TRIM_THRESHOLD_=65536``: every map would be given
    back to the system and taken again page by page, which takes longer than the network.
    Elsewhere than with the GNU C library nothing happens.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MAP)
        library.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_MAP)
