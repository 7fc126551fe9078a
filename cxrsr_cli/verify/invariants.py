"""What must be true of file, content, geometry and display of every derived object.

These checks share no code with `cxrsr_cli.derive`: what both got wrong would pass.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.codecs import decodes_to_raw_cells
from cxrsr_cli.dicom.pixel_format import Padding
from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.verify.findings import Aspect, Finding
from cxrsr_cli.verify.provenance import is_lossless, read_numbers

_UNDEFINED_LENGTH_VRS = ("OB", "OW", "UN")
_PIXEL_DATA = BaseTag(0x7FE00010)

_IDENTITY = frozenset((
    "SOPClassUID", "SpecificCharacterSet", "StudyInstanceUID", "StudyDate", "StudyTime",
    "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName", "Modality",
    "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "FrameOfReferenceUID",
    "BodyPartExamined", "AnatomicRegionSequence", "Laterality", "ImageLaterality", "ViewPosition",
    "ViewCodeSequence", "PatientOrientation", "ImageOrientationPatient", "BurnedInAnnotation",
    "PresentationIntentType", "NumberOfFrames", "KVP", "Exposure", "ExposureTime",
))  # fmt: skip
"""Whose image it is, of what, and how it lies; with all of group 0010."""

_DISPLAY = frozenset((
    "PhotometricInterpretation", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleIntercept",
    "RescaleSlope", "RescaleType", "ModalityLUTSequence", "WindowCenter", "WindowWidth",
    "WindowCenterWidthExplanation", "VOILUTFunction", "VOILUTSequence",
    "PresentationLUTShape", "PresentationLUTSequence", "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign",
))  # fmt: skip
"""Attributes that turn stored values into what is displayed (PS3.4 N.2)."""

_SPACINGS = (
    "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing",
    "ObjectPixelSpacingInCenterOfBeam", "ImagePlanePixelSpacing",
)  # fmt: skip
_EDGES = (("LeftVerticalEdge", -1), ("RightVerticalEdge", 0), ("UpperHorizontalEdge", -1),
          ("LowerHorizontalEdge", 0))  # fmt: skip
"""Edges of shutter and collimator, and what makes their row or column the border of pixels."""
_MAX_RELATIVE_ERROR = 1e-4
"""Of a distance in millimetres."""


def check_file(path: Path, derived: DicomSource) -> Iterator[Finding]:
    """Check the file: its meta information, its transfer syntax, and pixel data inside items.

    Parameters
    ----------
    path : Path
        The derived file.
    derived : DicomSource
        The same, as read.
    """
    with quiet_libraries():
        # As it is in the file: `read_source` corrects what it states of the encoding.
        meta = pydicom.dcmread(path, stop_before_pixels=True, force=True).file_meta
    dataset = derived.dataset
    pairs = (
        ("MediaStorageSOPClassUID", dataset.SOPClassUID),
        ("MediaStorageSOPInstanceUID", dataset.SOPInstanceUID),
        ("TransferSyntaxUID", derived.transfer_syntax),
    )
    wrong = {tag_for_keyword(name) for name, value in pairs if meta.get(name) != value}
    yield _same("meta information and data set name the same object (PS3.10 7.1)", wrong)
    yield Finding.of(
        Aspect.FILE,
        "the transfer syntax is lossless",
        is_lossless(derived.transfer_syntax),
        "" if is_lossless(derived.transfer_syntax) else derived.transfer_syntax.name,
    )
    encapsulated = {tag for tag in dataset.keys() if _is_encapsulated(dataset, tag)}
    if derived.transfer_syntax.is_compressed:
        encapsulated.discard(_PIXEL_DATA)
    yield _same("only pixel data of a compressed image is encapsulated (PS3.5 A.4)", encapsulated)


def _same(claim: str, tags: "set[BaseTag] | set[int | None]") -> Finding:
    return Finding.of_differences(Aspect.FILE, claim, {BaseTag(tag or 0) for tag in tags})


def _is_encapsulated(dataset: Dataset, tag: BaseTag) -> bool:
    """Return whether an element consists of fragments, or has a nested one that does."""
    element = dataset[tag]
    if isinstance(element.value, Sequence):
        return any(
            _is_encapsulated(item, nested) for item in element.value for nested in item.keys()
        )
    return bool(element.is_undefined_length) and element.VR in _UNDEFINED_LENGTH_VRS


def check_content(source: DicomSource, derived: DicomSource) -> Iterator[Finding]:
    """Check that it is the same patient, study, and view."""
    tags = {*source.dataset.keys(), *derived.dataset.keys()}
    different = {
        tag
        for tag in tags
        if (tag.group == 0x0010 and tag.element) or keyword_for_tag(tag) in _IDENTITY
        if _value(source, tag) != _value(derived, tag)
    }
    yield Finding.of_differences(
        Aspect.CONTENT, "patient, study, acquisition and view are the source's", different
    )


def _value(source: DicomSource, tag: BaseTag) -> object:
    return _public(source.dataset[tag].value) if tag in source.dataset else None


def _public(value: object) -> object:
    """Return a value; of items of sequences what is neither private nor a group length."""
    if not isinstance(value, Sequence):
        return value
    return [
        {
            each.tag: _public(each.value)
            for each in item
            if each.tag.element and not each.tag.is_private
        }
        for item in value
    ]


def check_geometry(source: DicomSource, derived: DicomSource, scale: int) -> Iterator[Finding]:
    """Check that the image is as large in millimetres as before, and so is what lies on it."""
    old, new = source.dataset, derived.dataset
    wrong = {
        name
        for name in _SPACINGS
        if not _is_divided(_numbers(old, name), _numbers(new, name), scale)
    }
    yield _geometry("the image is as large in millimetres as its source", wrong)
    yield _geometry(
        "a pixel has as many detector elements as its size says",
        {
            name
            for name in ("DetectorBinning",)
            if not _is_divided(_numbers(old, name), _numbers(new, name), scale)
        },
    )
    yield _geometry(
        "its first pixel lies where the corner of the source lay", _wrong_corner(old, new)
    )
    yield _geometry(
        "edges of shutter and collimator enclose the same area",
        {
            aperture + edge
            for aperture in ("Shutter", "Collimator")
            for edge, offset in _EDGES
            if not _is_divided(
                [number + offset for number in _numbers(new, aperture + edge)],
                [number + offset for number in _numbers(old, aperture + edge)],
                scale,
            )
        },
    )


def _geometry(claim: str, keywords: set[str]) -> Finding:
    return Finding.of(Aspect.GEOMETRY, claim, not keywords, ", ".join(sorted(keywords)))


def _numbers(dataset: Dataset, keyword: str) -> list[float]:
    return read_numbers(dataset.get(keyword))


def _is_divided(large: list[float], small: list[float], scale: int) -> bool:
    """Compare lengths. A spacing that is below zero may be gone."""
    if not small and any(number < 0 or not np.isfinite(number) for number in large):
        return True
    return len(large) == len(small) and all(
        abs(part * scale - whole) <= _MAX_RELATIVE_ERROR * abs(whole)
        for whole, part in zip(large, small, strict=True)
    )


def _wrong_corner(old: Dataset, new: Dataset) -> set[str]:
    before, after = _corner(old), _corner(new)
    spacing = min(_numbers(new, "PixelSpacing") or [1.0])
    if "ImagePositionPatient" not in old and "ImagePositionPatient" not in new:
        return set()
    if before is None or after is None:
        return {"ImagePositionPatient"}
    distance = np.abs(before - after).max()
    return {"ImagePositionPatient"} if distance > spacing / 100 else set()


def _corner(dataset: Dataset) -> NDArray[np.float64] | None:
    """Return the outer corner of the first pixel, in millimetres (PS3.3 C.7.6.2.1.1)."""
    position, directions, spacing = (
        np.array(_numbers(dataset, keyword))
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    )
    if (position.size, directions.size, spacing.size) != (3, 6, 2):
        return None
    corner: NDArray[np.float64] = (
        position - directions[:3] * spacing[1] / 2 - directions[3:] * spacing[0] / 2
    )
    return corner


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
    tags = {*source.dataset.keys(), *derived.dataset.keys()}
    different = {
        tag
        for tag in tags
        if keyword_for_tag(tag) in _DISPLAY and _value(source, tag) != _value(derived, tag)
    }
    new = derived.dataset
    is_right_aligned = new.get("HighBit") == new.get("BitsStored", 0) - 1
    if is_right_aligned and not decodes_to_raw_cells(derived.transfer_syntax):
        # Codecs that know only values do not keep High Bit.
        different.discard(BaseTag(tag_for_keyword("HighBit") or 0))
    yield Finding.of_differences(
        Aspect.PHOTOMETRY,
        "stored values, LUTs, windows and polarity have the same meaning",
        different,
    )
    padding = Padding.from_dataset(source.dataset)
    if padding:
        scale = derived_pixels.shape[-1] // source_pixels.shape[-1]
        expected = padding.mask(source_pixels).repeat(scale, -2).repeat(scale, -1)
        wrong = int((padding.mask(derived_pixels) != expected).sum())
        yield Finding.of(
            Aspect.PHOTOMETRY,
            "padding is exactly where it was",
            not wrong,
            f"{wrong} pixels" if wrong else "",
        )
