"""How much memory this process took."""

import resource
import sys

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in what getrusage counts memory in."""


def peak_rss_bytes() -> int:
    """Return the high-water mark of the process's memory in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
