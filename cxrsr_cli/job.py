"""From where to where: what planning hands to the work."""

from dataclasses import dataclass
from pathlib import Path

from cxrsr_cli.errors import CxrsrError


@dataclass(frozen=True, slots=True)
class Job:
    """One file to upscale.

    Attributes
    ----------
    source, target : Path
        From where to where.
    refused : CxrsrError or None
        Why planning found that it cannot be done.
    """

    source: Path
    target: Path
    error: CxrsrError | None = None
