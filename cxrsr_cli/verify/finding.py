"""What an audit says: claims, and whether they hold."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag


class Aspect(StrEnum):
    """What a finding is about."""

    PROVENANCE = "provenance"
    CONTENT = "content"
    GEOMETRY = "geometry"
    PHOTOMETRY = "photometry"
    CONSISTENCY = "consistency"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    aspect : Aspect
        What it is about.
    claim : str
        What should hold.
    holds : bool
        Whether it does.
    detail : str
        Keywords and figures, free of patient data.
    """

    aspect: Aspect
    claim: str
    holds: bool
    detail: str = ""

    @classmethod
    def from_differences(cls, aspect: Aspect, claim: str, wrong: Iterable[BaseTag]) -> "Finding":
        """Make a finding that holds if there is no element to say against it."""
        names = ", ".join(keyword_for_tag(tag) or str(tag) for tag in sorted(wrong))
        return cls(aspect, claim, not names, names)
