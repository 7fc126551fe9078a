"""Find out whether everything that need not change is the same, and so the picture."""

import copy
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from cxrsr_cli.derive.changes import may_change
from cxrsr_cli.derive.private import drop_private
from cxrsr_cli.derive.required import lost_attributes
from cxrsr_cli.read.codecs import holds_cells
from cxrsr_cli.read.dataset import Source
from cxrsr_cli.read.padding import Padding
from cxrsr_cli.verify.finding import Aspect, Finding

_PIPELINE = frozenset(
    (
        "PhotometricInterpretation", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit",
        "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleIntercept",
        "RescaleSlope", "RescaleType", "ModalityLUTSequence", "WindowCenter", "WindowWidth",
        "WindowCenterWidthExplanation", "VOILUTFunction", "VOILUTSequence",
        "PresentationLUTShape", "PresentationLUTSequence", "PixelIntensityRelationship",
        "PixelIntensityRelationshipSign",
    )
)  # fmt: skip
"""What turns stored values into what is seen (PS3.4 N.2)."""


def content(old: Source, new: Source) -> Iterator[Finding]:
    """Check that patient, study and all else that need not change is the same.

    Parameters
    ----------
    old, new : Source
        The original and what was derived from it.

    Yields
    ------
    Finding
        For each claim.
    """
    before, after = set(old.pristine.keys()), set(new.pristine.keys())
    kept = {tag for tag in before if not may_change(tag) and not _is_pipeline(tag)}
    public = {tag for tag in kept if not tag.is_private}
    # Private elements may have been dropped, by request or as copies of the image.
    private = (kept - public) & after
    differing = {tag for tag in public | private if not _same(old, new, tag)}
    yield Finding.against(
        Aspect.CONTENT,
        "patient, study and all else that need not change is the same",
        differing & public,
    )
    yield Finding.against(
        Aspect.CONTENT, "private elements that were kept are the same", differing & private
    )
    yield Finding.against(
        Aspect.CONTENT, "nothing else was added", {t for t in after - before if not may_change(t)}
    )
    lost = ", ".join(sorted(missing.path for missing in lost_attributes(new.dataset, old.dataset)))
    yield Finding(Aspect.CONTENT, "no attribute of Type 1 or 2 was lost", not lost, lost)


def photometry(
    old: Source,
    new: Source,
    low: NDArray[np.int32],
    high: NDArray[np.integer],
) -> Iterator[Finding]:
    """Check that stored values mean what they meant.

    Parameters
    ----------
    old, new : Source
        The original and what was derived from it.
    low, high : numpy.ndarray
        ``(F, H, W)`` and ``(F, scale * H, scale * W)``, their stored values.

    Yields
    ------
    Finding
        For each claim.
    """
    tags = {tag for tag in (*old.pristine.keys(), *new.pristine.keys()) if _is_pipeline(tag)}
    differing = {tag for tag in tags if not _same(old, new, tag)}
    if new.dataset.get("HighBit") == new.dataset.get("BitsStored", 0) - 1 and not holds_cells(
        new.transfer_syntax
    ):
        # Where in a cell a value lies is lost in codecs that know only values.
        differing.discard(tag_for_keyword("HighBit"))
    yield Finding.against(
        Aspect.PHOTOMETRY,
        "stored values, LUTs, windows and polarity mean the same",
        differing,
    )
    padding = Padding.of(old.dataset)
    if padding:
        scale = high.shape[-1] // low.shape[-1]
        magnified = padding.mask(low).repeat(scale, -2).repeat(scale, -1)
        wrong = int((padding.mask(high) != magnified).sum())
        yield Finding(
            Aspect.PHOTOMETRY,
            "padding is exactly where it was",
            not wrong,
            f"{wrong} pixels" if wrong else "",
        )


def _is_pipeline(tag: BaseTag) -> bool:
    return keyword_for_tag(tag) in _PIPELINE


def _same(old: Source, new: Source, tag: BaseTag) -> bool:
    if tag not in new.pristine or tag not in old.pristine:
        return False
    before, after = old.pristine.get_item(tag), new.pristine.get_item(tag)
    if (
        isinstance(before, RawDataElement)
        and isinstance(after, RawDataElement)
        and before.value == after.value
    ):
        return True
    # Sequences may be encoded otherwise, and big endian sources were converted.
    there, here = old.dataset[tag].value, new.dataset[tag].value
    return bool(there == here) or (isinstance(there, Sequence) and _public(there) == here)


def _public(items: Sequence) -> Sequence:
    """Return what is left of a sequence when private elements are dropped."""
    left = copy.deepcopy(items)
    for item in left:
        drop_private(item)
    return left
