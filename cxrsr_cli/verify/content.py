"""Find out whether everything that need not change is the same, and so the picture."""

import copy
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from cxrsr_cli.derive.changes import is_modified
from cxrsr_cli.derive.private import drop_private
from cxrsr_cli.derive.required import lost_attributes
from cxrsr_cli.read.codecs import decodes_to_raw_cells
from cxrsr_cli.read.dataset import DicomSource
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


def check_content(old: DicomSource, new: DicomSource) -> Iterator[Finding]:
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
    before, after = set(old.raw_dataset.keys()), set(new.raw_dataset.keys())
    kept = {tag for tag in before if not is_modified(tag) and not _is_pipeline(tag)}
    public = {tag for tag in kept if not tag.is_private}
    # Private elements may have been dropped, by request or as copies of the image.
    private = (kept - public) & after
    differing = {tag for tag in public | private if not _same(old, new, tag)}
    yield Finding.from_differences(
        Aspect.CONTENT,
        "patient, study and all else that need not change is the same",
        differing & public,
    )
    yield Finding.from_differences(
        Aspect.CONTENT, "private elements that were kept are the same", differing & private
    )
    yield Finding.from_differences(
        Aspect.CONTENT, "nothing else was added", {t for t in after - before if not is_modified(t)}
    )
    lost = ", ".join(sorted(missing.path for missing in lost_attributes(new.dataset, old.dataset)))
    yield Finding(Aspect.CONTENT, "no attribute of Type 1 or 2 was lost", not lost, lost)


def check_photometry(
    old: DicomSource,
    new: DicomSource,
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
    tags = {tag for tag in (*old.raw_dataset.keys(), *new.raw_dataset.keys()) if _is_pipeline(tag)}
    differing = {tag for tag in tags if not _same(old, new, tag)}
    if new.dataset.get("HighBit") == new.dataset.get("BitsStored", 0) - 1 and not decodes_to_raw_cells(
        new.transfer_syntax
    ):
        # Where in a cell a value lies is lost in codecs that know only values.
        differing.discard(tag_for_keyword("HighBit"))
    yield Finding.from_differences(
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


def _same(old: DicomSource, new: DicomSource, tag: BaseTag) -> bool:
    if tag not in new.raw_dataset or tag not in old.raw_dataset:
        return False
    before, after = old.raw_dataset.get_item(tag), new.raw_dataset.get_item(tag)
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
