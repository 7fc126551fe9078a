"""How files get to a worker and back."""

from enum import StrEnum


class TransferMode(StrEnum):
    """How files get to a worker and back."""

    PATHS = "paths"
    """On a file system that client and workers share."""
    BYTES = "bytes"
    """Through the scheduler."""
