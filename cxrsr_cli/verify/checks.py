"""The checks of a derived object's attributes: provenance, content, geometry and photometry.

Each takes the source and the object derived from it, and yields one finding for each claim.
"""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from cxrsr_cli.derive.derive import drop_compressed_copies, is_modified
from cxrsr_cli.derive.equipment import PROCESSING_EQUIPMENT
from cxrsr_cli.derive.geometry import PIXEL_GEOMETRY, rescale_geometry
from cxrsr_cli.derive.overlays import is_overlay_or_curve, upscale_overlays
from cxrsr_cli.derive.private_elements import drop_private
from cxrsr_cli.derive.provenance import IMAGE_TYPE_MARKER
from cxrsr_cli.derive.references import SOURCE_IMAGE
from cxrsr_cli.derive.required_attributes import lost_attributes
from cxrsr_cli.dicom.codecs import decodes_to_raw_cells
from cxrsr_cli.dicom.decode import lossy_method
from cxrsr_cli.dicom.identifiers import MODEL_NAME
from cxrsr_cli.dicom.pixel_format import Padding
from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.options import NOT_FOR_DIAGNOSIS

_PHOTOMETRIC_KEYWORDS = frozenset(
    (
        "PhotometricInterpretation", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit",
        "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleIntercept",
        "RescaleSlope", "RescaleType", "ModalityLUTSequence", "WindowCenter", "WindowWidth",
        "WindowCenterWidthExplanation", "VOILUTFunction", "VOILUTSequence",
        "PresentationLUTShape", "PresentationLUTSequence", "PixelIntensityRelationship",
        "PixelIntensityRelationshipSign",
    )
)  # fmt: skip
"""Attributes that turn stored values into what is displayed (PS3.4 N.2)."""
_GEOMETRY_KEYWORDS = frozenset(line.element for line in PIXEL_GEOMETRY)
_MAX_ROUNDING_ERROR = 1e-9
"""Relative error of a decimal string of 16 characters."""
_SHA256_DIGITS = 64


class Aspect(StrEnum):
    """What a finding is about."""

    PROVENANCE = "provenance"
    CONTENT = "content"
    GEOMETRY = "geometry"
    PHOTOMETRY = "photometry"
    AGREEMENT = "agreement"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes
    ----------
    aspect : Aspect
        What it is about.
    claim : str
        What should be true.
    holds : bool
        Whether it is true.
    detail : str
        Keywords and numbers, without patient data.
    """

    aspect: Aspect
    claim: str
    holds: bool
    detail: str = ""

    @classmethod
    def from_differences(cls, aspect: Aspect, claim: str, tags: Iterable[BaseTag]) -> "Finding":
        """Make a finding that holds if there are no elements that differ."""
        names = ", ".join(keyword_for_tag(tag) or str(tag) for tag in sorted(tags))
        return cls(aspect, claim, not names, names)


def check_provenance(source: DicomSource, derived: DicomSource, scale: int) -> Iterator[Finding]:
    """Check identity and history (PS3.3 C.7.6.1, C.12.1, C.12.4)."""
    for claim, holds in (
        *_history(source, derived, scale),
        *_references(source.dataset, derived.dataset),
    ):
        yield Finding(Aspect.PROVENANCE, claim, holds)


def _history(source: DicomSource, derived: DicomSource, scale: int) -> Iterator[tuple[str, bool]]:
    old, new = source.dataset, derived.dataset
    equipment = [
        item
        for item in new.get("ContributingEquipmentSequence") or ()
        if item.get("ManufacturerModelName") == MODEL_NAME
        and _has_purpose(item, PROCESSING_EQUIPMENT.value)
    ]
    yield "Contributing Equipment names cxrsr", bool(equipment)
    versions = list(equipment[-1].get("SoftwareVersions") or ()) if equipment else []
    digest = "".join(str(text).removeprefix("SHA-256 ") for text in versions[2:4])
    description = str(new.get("DerivationDescription") or "")
    yield (
        "the SHA-256 of the model's weights is stated",
        len(digest) == _SHA256_DIGITS and digest in description,
    )
    yield "Derivation Description states the scale", f"x{scale} " in description
    image_type = [str(value) for value in new.get("ImageType") or ()]
    yield (
        f"Image Type is DERIVED and has {IMAGE_TYPE_MARKER}",
        image_type[:1] == ["DERIVED"] and IMAGE_TYPE_MARKER in image_type,
    )
    yield (
        "the object is marked as research and not for diagnosis",
        new.get("ContentQualification") == "RESEARCH"
        and NOT_FOR_DIAGNOSIS in str(new.get("SeriesDescription")),
    )
    lossy = old.get("LossyImageCompression") == "01" or lossy_method(source) is not None
    yield (
        "Lossy Image Compression is carried over from the source",
        not lossy or new.get("LossyImageCompression") == "01",
    )


def _references(source: Dataset, derived: Dataset) -> Iterator[tuple[str, bool]]:
    yield (
        "SOP Instance UID and Series Instance UID are new",
        derived.SOPInstanceUID != source.SOPInstanceUID
        and derived.get("SeriesInstanceUID") not in (None, source.get("SeriesInstanceUID")),
    )
    references = [
        item
        for item in derived.get("SourceImageSequence") or ()
        if item.get("ReferencedSOPInstanceUID") == source.SOPInstanceUID
        and item.get("ReferencedSOPClassUID") == source.SOPClassUID
    ]
    yield "Source Image Sequence refers to the source", bool(references)
    yield (
        "the reference states its purpose, and that spatial locations are not preserved",
        any(
            item.get("SpatialLocationsPreserved") == "NO" and _has_purpose(item, SOURCE_IMAGE.value)
            for item in references
        ),
    )


def _has_purpose(item: Dataset, value: str) -> bool:
    return any(
        code.get("CodeValue") == value for code in item.get("PurposeOfReferenceCodeSequence") or ()
    )


def check_content(source: DicomSource, derived: DicomSource) -> Iterator[Finding]:
    """Check that patient, study and all other attributes that need not change are the same."""
    expected = copy.deepcopy(source.raw_dataset)
    drop_compressed_copies(expected)
    before, after = set(expected.keys()), set(derived.raw_dataset.keys())
    kept = {
        tag
        for tag in before
        # Group lengths are retired, and are not written (PS3.5 7.2).
        if tag.element and not is_modified(tag) and not _is_photometric(tag)
    }
    public = {tag for tag in kept if not tag.is_private}
    # Private elements may be dropped, by option or because they are copies of the image.
    private = (kept - public) & after
    differing = {tag for tag in public | private if not _is_same(source, derived, tag)}
    yield Finding.from_differences(
        Aspect.CONTENT,
        "patient, study and all other attributes that need not change are the same",
        differing & public,
    )
    yield Finding.from_differences(
        Aspect.CONTENT, "private elements that were kept are the same", differing & private
    )
    added = {tag for tag in after - before if not is_modified(tag)}
    yield Finding.from_differences(Aspect.CONTENT, "no other attribute was added", added)
    lost = ", ".join(sorted(gap.path for gap in lost_attributes(derived.dataset, source.dataset)))
    yield Finding(Aspect.CONTENT, "no attribute of Type 1 or 2 was lost", not lost, lost)


def check_geometry(source: DicomSource, derived: DicomSource, scale: int) -> Iterator[Finding]:
    """Check the attributes that are counted in pixels against the table `PIXEL_GEOMETRY`.

    Raises
    ------
    UnsupportedImageError
        If the source's geometry cannot be rescaled.
    """
    expected = copy.deepcopy(source.dataset)
    rescale_geometry(expected, source.dataset, scale)
    upscale_overlays(expected, source, scale)
    wrong = {
        tag
        for tag in {*expected.keys(), *derived.dataset.keys()}
        if tag.element
        and _is_geometric(tag)
        and not _are_numbers_equal(expected, derived.dataset, tag)
    }
    overlays = {tag for tag in wrong if is_overlay_or_curve(tag)}
    yield Finding.from_differences(
        Aspect.GEOMETRY,
        "sizes, spacings, edges and positions are those of the source, rescaled",
        wrong - overlays,
    )
    yield Finding.from_differences(
        Aspect.GEOMETRY, "overlays are those of the source, upscaled", overlays
    )


def _is_geometric(tag: BaseTag) -> bool:
    return is_overlay_or_curve(tag) or keyword_for_tag(tag) in _GEOMETRY_KEYWORDS


def _are_numbers_equal(expected: Dataset, found: Dataset, tag: BaseTag) -> bool:
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
        abs(a - b) <= _MAX_ROUNDING_ERROR * max(abs(a), 1) for a, b in zip(*numbers, strict=True)
    )


def check_photometry(
    source: DicomSource,
    derived: DicomSource,
    source_pixels: NDArray[np.int32],
    derived_pixels: NDArray[np.integer],
) -> Iterator[Finding]:
    """Check that stored values are displayed as before.

    Parameters
    ----------
    source, derived : DicomSource
        The original, and the object derived from it.
    source_pixels, derived_pixels : numpy.ndarray
        ``(F, H, W)`` and ``(F, scale * H, scale * W)``, their stored values.
    """
    tags = {*source.raw_dataset.keys(), *derived.raw_dataset.keys()}
    differing = {tag for tag in tags if _is_photometric(tag) and not _is_same(source, derived, tag)}
    new = derived.dataset
    is_right_aligned = new.get("HighBit") == new.get("BitsStored", 0) - 1
    if is_right_aligned and not decodes_to_raw_cells(derived.transfer_syntax):
        # Codecs that know only values do not keep High Bit.
        differing.discard(tag_for_keyword("HighBit"))
    yield Finding.from_differences(
        Aspect.PHOTOMETRY,
        "stored values, LUTs, windows and polarity have the same meaning",
        differing,
    )
    padding = Padding.from_dataset(source.dataset)
    if padding:
        scale = derived_pixels.shape[-1] // source_pixels.shape[-1]
        expected = padding.mask(source_pixels).repeat(scale, -2).repeat(scale, -1)
        wrong = int((padding.mask(derived_pixels) != expected).sum())
        yield Finding(
            Aspect.PHOTOMETRY,
            "padding is exactly where it was",
            not wrong,
            f"{wrong} pixels" if wrong else "",
        )


def _is_photometric(tag: BaseTag) -> bool:
    return keyword_for_tag(tag) in _PHOTOMETRIC_KEYWORDS


def _is_same(source: DicomSource, derived: DicomSource, tag: BaseTag) -> bool:
    if tag not in derived.raw_dataset or tag not in source.raw_dataset:
        return False
    before, after = source.raw_dataset.get_item(tag), derived.raw_dataset.get_item(tag)
    if (
        isinstance(before, RawDataElement)
        and isinstance(after, RawDataElement)
        and before.value == after.value
    ):
        return True
    # Bytes can differ: sequences have several encodings, and big endian is converted.
    old, new = source.dataset[tag].value, derived.dataset[tag].value
    return bool(old == new) or (
        isinstance(old, Sequence) and (_written(old) == new or _written(old, public=True) == new)
    )


def _written(items: Sequence, *, public: bool = False) -> Sequence:
    """Return a copy of a sequence without group lengths, and without private elements."""
    written = copy.deepcopy(items)
    for item in written:
        if public:
            drop_private(item)
        item.walk(_remove_group_length)
    return written


def _remove_group_length(level: Dataset, element: DataElement) -> None:
    if not element.tag.element:
        del level[element.tag]
