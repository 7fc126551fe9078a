"""The result of a check: what is claimed, whether it holds, and where it does not."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag


class Aspect(StrEnum):
    """What a finding is about."""

    FILE = "file"
    PROVENANCE = "provenance"
    CONTENT = "content"
    GEOMETRY = "geometry"
    PHOTOMETRY = "photometry"
    HEADER = "header"
    PIXELS = "pixels"
    RECOMPUTATION = "recomputation"


class ClaimStatus(StrEnum):
    """What is known of a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Place:
    """A window of the source image.

    Attributes
    ----------
    frame, row, column : int
        Of the window's middle, from 1.
    side : int
        Rows and columns of the window.
    millimetres : tuple of float or None
        Distance of the middle from the upper and the left edge of the image, by the spacing that
        the source states; None if it states none.
    """

    frame: int
    row: int
    column: int
    side: int
    millimetres: tuple[float, float] | None = None

    def __str__(self) -> str:
        """Say where it is."""
        at = f"row {self.row}, column {self.column}"
        if self.millimetres:
            at += " ({:.1f} mm, {:.1f} mm)".format(*self.millimetres)
        around = f", window of {self.side}x{self.side} pixels" if self.side > 1 else ""
        return f"frame {self.frame}, {at} of the source{around}"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes
    ----------
    aspect : Aspect
        What it is about.
    claim : str
        What should be true.
    status : ClaimStatus
        Whether it is true.
    detail : str
        Keywords and numbers, or why it was not checked; without patient data.
    place : Place or None
        Where in the image it fails most.
    """

    aspect: Aspect
    claim: str
    status: ClaimStatus
    detail: str = ""
    place: Place | None = None

    @classmethod
    def of(cls, aspect: Aspect, claim: str, holds: bool, detail: str = "") -> "Finding":
        """Make a finding of a check that was done."""
        return cls(aspect, claim, ClaimStatus.HOLDS if holds else ClaimStatus.FAILS, detail)

    @classmethod
    def not_checked(cls, aspect: Aspect, claim: str, reason: str) -> "Finding":
        """Make a finding of a check that was not done, and say why."""
        return cls(aspect, claim, ClaimStatus.NOT_CHECKED, reason)

    @classmethod
    def of_differences(cls, aspect: Aspect, claim: str, tags: Iterable[BaseTag]) -> "Finding":
        """Make a finding that holds if there are no elements that differ."""
        names = ", ".join(keyword_for_tag(tag) or str(tag) for tag in sorted(tags))
        return cls.of(aspect, claim, not names, names)

    @property
    def fails(self) -> bool:
        """Whether the claim is known to be wrong."""
        return self.status is ClaimStatus.FAILS
