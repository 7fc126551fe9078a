"""Time and memory of this process."""

import ctypes
import resource
import sys
from contextlib import suppress
from datetime import datetime

_RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
"""Unit in which getrusage reports memory."""

# Option numbers in <malloc.h> of the GNU C library.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MAX_MMAP_THRESHOLD_BYTES = 32 << 20


def now() -> datetime:
    """Return the current time in the local time zone."""
    return datetime.now().astimezone()


def peak_rss_bytes() -> int:
    """Return the largest memory use (resident set size) of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT_BYTES


def disable_malloc_trim() -> None:
    """Keep freed memory for the feature maps of the next strip.

    Dask starts its workers with ``MALLOC_TRIM_THRESHOLD_=65536``. With that, every feature
    map is returned to the system and allocated again page by page, which takes longer than
    the network. Without the GNU C library this does nothing.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, 2 * _MAX_MMAP_THRESHOLD_BYTES)
