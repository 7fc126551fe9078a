"""From where to where: what planning hands to the work."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Job:
    """One file to upscale.

    Attributes
    ----------
    source, target : Path
        From where to where.
    """

    source: Path
    target: Path
