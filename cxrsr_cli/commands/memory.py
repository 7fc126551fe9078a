"""Have the C library keep freed memory for the next strip of an image.

By default glibc gives large blocks back to the system at once and fetches them
anew, page by page: a tenth to a third of the time on a CPU. How a process holds
its memory is for the command to say, not for the library.
"""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""From glibc's malloc.h."""

_MAPPED_FROM = 32 << 20
"""Larger blocks, which are not maps of strips, are still given back at once."""
_KEPT = 256 << 20


def keep_freed_memory() -> None:
    """Raise two of glibc's thresholds, unless the user set any of its kind."""
    if not sys.platform.startswith("linux") or any(
        name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ
    ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # musl has none
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
