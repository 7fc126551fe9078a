"""Find out whether everything that need not change is the same, and so the picture."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from cxrsr_cli.derive.derive import drop_private, is_modified
from cxrsr_cli.derive.geometry import PIXEL_GEOMETRY, rescale_geometry
from cxrsr_cli.derive.overlays import is_overlay_or_curve, upscale_overlays
from cxrsr_cli.derive.provenance import (
    IMAGE_TYPE_MARKER,
    PROCESSING_EQUIPMENT,
    SOURCE_IMAGE,
)
from cxrsr_cli.derive.required_attributes import lost_attributes
from cxrsr_cli.dicom.codecs import LOSSY_METHODS, decodes_to_raw_cells
from cxrsr_cli.dicom.identifiers import MODEL_NAME
from cxrsr_cli.dicom.pixel_format import Padding
from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.options import NOT_FOR_DIAGNOSIS


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
    if new.dataset.get("HighBit") == new.dataset.get(
        "BitsStored", 0
    ) - 1 and not decodes_to_raw_cells(new.transfer_syntax):
        # Where in a cell a value lies is lost in codecs that know only values.
        differing.discard(tag_for_keyword("HighBit"))
    yield Finding.from_differences(
        Aspect.PHOTOMETRY,
        "stored values, LUTs, windows and polarity mean the same",
        differing,
    )
    padding = Padding.from_dataset(old.dataset)
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


_COUNTED = frozenset(line.element for line in PIXEL_GEOMETRY)
_ROUNDED = 1e-9
"""Relative error of a decimal string cut to 16 characters."""


def check_geometry(old: DicomSource, new: DicomSource, scale: int) -> Iterator[Finding]:
    """Check what is counted in pixels against the table.

    Parameters
    ----------
    old, new : Source
        The original and what was derived from it.
    scale : int
        Factor between them.

    Yields
    ------
    Finding
        For each claim.

    Raises
    ------
    UnsupportedImageError
        If the source's geometry cannot be rescaled.
    """
    expected = copy.deepcopy(old.dataset)
    rescale_geometry(expected, old.dataset, scale)
    upscale_overlays(expected, old, scale)
    wrong = {
        tag
        for tag in {*expected.keys(), *new.dataset.keys()}
        if _is_counted(tag) and not _same_number(expected, new.dataset, tag)
    }
    layers = {tag for tag in wrong if is_overlay_or_curve(tag)}
    yield Finding.from_differences(
        Aspect.GEOMETRY,
        "sizes, spacings, edges and positions are the source's, magnified",
        wrong - layers,
    )
    yield Finding.from_differences(Aspect.GEOMETRY, "overlays are the source's, magnified", layers)


def _is_counted(tag: BaseTag) -> bool:
    return is_overlay_or_curve(tag) or keyword_for_tag(tag) in _COUNTED


def _same_number(expected: Dataset, found: Dataset, tag: BaseTag) -> bool:
    if tag not in expected or tag not in found:
        return False
    before, after = expected[tag].value, found[tag].value
    if before == after:
        return True
    try:
        numbers = [[float(n) for n in ([v] if isinstance(v, (str, int, float)) else v)]
                   for v in (before, after)]  # fmt: skip
    except (TypeError, ValueError):
        return False
    return len(numbers[0]) == len(numbers[1]) and all(
        abs(a - b) <= _ROUNDED * max(abs(a), 1) for a, b in zip(*numbers, strict=True)
    )


_SHA256_DIGITS = 64


def check_provenance(old: DicomSource, new: DicomSource, scale: int) -> Iterator[Finding]:
    """Check identity and history (PS3.3 C.7.6.1, C.12.1, C.12.4).

    Parameters
    ----------
    old, new : Source
        The original and what was derived from it.
    scale : int
        Factor between them.

    Yields
    ------
    Finding
        For each claim.
    """
    for claim, holds in (*_history(old, new, scale), *_reference(old.dataset, new.dataset)):
        yield Finding(Aspect.PROVENANCE, claim, holds)


def _history(old: DicomSource, new: DicomSource, scale: int) -> Iterator[tuple[str, bool]]:
    source, derived = old.dataset, new.dataset
    equipment = [
        item
        for item in derived.get("ContributingEquipmentSequence") or ()
        if item.get("ManufacturerModelName") == MODEL_NAME
        and _has_purpose(item, PROCESSING_EQUIPMENT.value)
    ]
    yield "cxrsr is among its contributing equipment", bool(equipment)
    versions = list(equipment[-1].get("SoftwareVersions") or ()) if equipment else []
    digest = "".join(str(text).removeprefix("SHA-256 ") for text in versions[2:4])
    description = str(derived.get("DerivationDescription") or "")
    yield (
        "the model's weights are named by their SHA-256",
        len(digest) == _SHA256_DIGITS and digest in description,
    )
    yield "it says by which factor it was enlarged", f"x{scale} " in description
    kinds = [str(kind) for kind in derived.get("ImageType") or ()]
    yield (
        "Image Type is DERIVED and says by what",
        kinds[:1] == ["DERIVED"] and IMAGE_TYPE_MARKER in kinds,
    )
    yield (
        "it is marked as research, not for diagnosis",
        derived.get("ContentQualification") == "RESEARCH"
        and NOT_FOR_DIAGNOSIS in str(derived.get("SeriesDescription")),
    )
    lossy = source.get("LossyImageCompression") == "01" or old.transfer_syntax in LOSSY_METHODS
    yield (
        "lossy compression of the source is not forgotten",
        not lossy or derived.get("LossyImageCompression") == "01",
    )


def _reference(source: Dataset, derived: Dataset) -> Iterator[tuple[str, bool]]:
    yield (
        "instance and series are new",
        derived.SOPInstanceUID != source.SOPInstanceUID
        and derived.get("SeriesInstanceUID") not in (None, source.get("SeriesInstanceUID")),
    )
    references = [
        item
        for item in derived.get("SourceImageSequence") or ()
        if item.get("ReferencedSOPInstanceUID") == source.SOPInstanceUID
        and item.get("ReferencedSOPClassUID") == source.SOPClassUID
    ]
    yield "it refers to its source", bool(references)
    yield (
        "the reference says what for, and that spatial locations are not preserved",
        any(
            item.get("SpatialLocationsPreserved") == "NO" and _has_purpose(item, SOURCE_IMAGE.value)
            for item in references
        ),
    )


def _has_purpose(item: Dataset, value: str) -> bool:
    return any(
        code.get("CodeValue") == value for code in item.get("PurposeOfReferenceCodeSequence") or ()
    )
