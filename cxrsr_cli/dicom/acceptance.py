"""Which objects are upscaled: a table of rules, each with the reason that the user reads."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)

from cxrsr_cli.dicom.attributes import number_of_frames, quoted, sop_class_name
from cxrsr_cli.dicom.identifiers import MODEL_NAME
from cxrsr_cli.errors import (
    InputError,
    NoPixelDataError,
    OutOfScopeError,
    UnsupportedImageError,
)


class AcceptanceOverride(StrEnum):
    """A kind of input that is refused unless the user allows it."""

    BODY_PART = "body-part"
    """A stated body part other than the chest."""
    MODALITY = "modality"
    """A SOP Class other than CR and DX, or Secondary Capture of another modality."""
    FOR_PROCESSING = "for-processing"
    """Presentation Intent Type FOR PROCESSING."""


MAX_SIDE = 65535
"""Largest Rows and Columns: unsigned shorts (PS3.3 C.7.6.3)."""

MAX_WORK_PIXELS = 1 << 28
"""Of all frames. The largest detectors have a quarter of it."""
_MIN_WORK_PIXELS = 1 << 14
"""What the smallest frame counts for: an image takes some time whatever its size."""

_GRAYSCALE = ("MONOCHROME1", "MONOCHROME2")
_REQUIRED = (
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "PixelRepresentation",
)  # fmt: skip
_FLOAT_PIXELS = ("FloatPixelData", "DoubleFloatPixelData")
_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

RADIOGRAPHS = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)
"""SOP Classes of which every object is a radiograph."""

_SUMS_OVER_A_PIXEL = (
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
)
"""SOP Classes whose values may be counts (PS3.3 C.8.4.8, C.8.9.1): sums over a pixel."""

_IMAGE_CLASS = "Image Storage"
"""Part of the name of every SOP Class of images (PS3.4 B.5)."""

# Public chest collections store radiographs as Secondary Capture.
_CAPTURED_MODALITIES = ("CR", "DX", "RG")

# PS3.16 annex L: terms of Body Part Examined that a chest radiograph may state.
_CHEST_TERMS = ("CHEST", "THORAX", "LUNG", "RIB", "RIBS", "STERNUM", "CHESTABDOMEN")
# The same in Anatomic Region Sequence: SNOMED CT codes, and the older SRT codes.
_CHEST_CODES = {
    "51185008", "T-D3000",  # Chest
    "43799004", "T-D3300",  # Thoracic cavity / mediastinum
    "39607008", "T-28000",  # Lung
    "113197003", "T-11300",  # Rib
    "56873002", "T-11210",  # Sternum
    "416775004", "R-FAB55",  # Chest and abdomen
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class AcceptanceRule:
    """One reason to refuse an object.

    Attributes
    ----------
    refuses : callable
        Takes the object and the scale; returns whether the object is refused.
    reason : str
        The message. ``{rows}``, ``{columns}``, ``{frames}``, ``{scale}``, ``{missing}``,
        ``{photometric}``, ``{sop_class}`` and ``{body_part}`` are replaced.
    override : AcceptanceOverride or None
        What the user can allow to switch the rule off.
    error : type
        The error to raise.
    """

    refuses: Callable[[Dataset, int], bool]
    reason: str
    override: AcceptanceOverride | None = None
    error: type[InputError] = UnsupportedImageError


def is_cxrsr_output(dataset: Dataset) -> bool:
    """Return whether this software made an object (Contributing Equipment, PS3.3 C.12.1)."""
    return any(
        item.get("ManufacturerModelName") == MODEL_NAME
        for item in dataset.get("ContributingEquipmentSequence") or ()
    )


def _missing(dataset: Dataset) -> str:
    """Return the keywords of pixel attributes of Type 1 without a value (PS3.3 C.7.6.3)."""
    return ", ".join(keyword for keyword in _REQUIRED if dataset.get(keyword) in (None, ""))


def _is_colour(dataset: Dataset, _scale: int) -> bool:
    samples, photometric = (
        dataset.get(keyword) for keyword in ("SamplesPerPixel", "PhotometricInterpretation")
    )
    return samples not in (None, 1) or photometric not in (None, *_GRAYSCALE)


def _has_no_image(dataset: Dataset, _scale: int) -> bool:
    """Return whether the object is a document, a presentation state or the like."""
    return "PixelData" not in dataset and _IMAGE_CLASS not in sop_class_name(dataset)


def _has_frames_of_another_class(dataset: Dataset, _scale: int) -> bool:
    """Return whether an image has several frames, though its IOD has no Multi-frame Module."""
    return dataset.SOPClassUID in RADIOGRAPHS and number_of_frames(dataset) > 1


def _is_too_much_work(dataset: Dataset, _scale: int) -> bool:
    frame = max(dataset.Rows * dataset.Columns, _MIN_WORK_PIXELS)
    return bool(number_of_frames(dataset) * frame > MAX_WORK_PIXELS)


def _is_captured(dataset: Dataset) -> bool:
    return bool(dataset.SOPClassUID == SecondaryCaptureImageStorage)


def _is_other_modality(dataset: Dataset, _scale: int) -> bool:
    return dataset.SOPClassUID not in RADIOGRAPHS and not (
        _is_captured(dataset) and dataset.get("Modality") in _CAPTURED_MODALITIES
    )


def _is_for_processing(dataset: Dataset, _scale: int) -> bool:
    intent = str(dataset.get("PresentationIntentType"))
    sop_class = str(dataset.SOPClassUID)
    return sop_class == DigitalXRayImageStorageForProcessing or intent == "FOR PROCESSING"


def _is_other_body_part(dataset: Dataset, _scale: int) -> bool:
    if term := _body_part(dataset):
        return term not in _CHEST_TERMS
    return not _region_codes(dataset) <= _CHEST_CODES


_OTHER_MODALITY = "{sop_class} is not a CR or DX radiograph; --allow modality"

ACCEPTANCE_RULES = (
    AcceptanceRule(
        _has_no_image,
        "{sop_class} has no image: the object has no Pixel Data",
        error=OutOfScopeError,
    ),
    AcceptanceRule(
        lambda dataset, _: is_cxrsr_output(dataset),
        "the object is an output of cxrsr already; it is not upscaled again",
        error=OutOfScopeError,
    ),
    AcceptanceRule(
        _is_other_modality, _OTHER_MODALITY, AcceptanceOverride.MODALITY, OutOfScopeError
    ),
    AcceptanceRule(
        lambda dataset, _: dataset.get("SOPClassUID") in _SUMS_OVER_A_PIXEL,
        "an image of nuclear medicine: its values are counts, of which a smaller pixel has fewer",
        error=OutOfScopeError,
    ),
    AcceptanceRule(
        lambda dataset, _: "PixelData" not in dataset and any(k in dataset for k in _FLOAT_PIXELS),
        "floating-point pixels are not supported",
    ),
    AcceptanceRule(
        lambda dataset, _: "PixelData" not in dataset,
        "the object has no Pixel Data",
        error=NoPixelDataError,
    ),
    AcceptanceRule(
        lambda dataset, scale: _is_captured(dataset) and _is_colour(dataset, scale),
        "a screen or a document in colour, Photometric Interpretation {photometric}",
        error=OutOfScopeError,
    ),
    AcceptanceRule(
        _is_colour,
        "colour or palette pixels, Photometric Interpretation {photometric}; only MONOCHROME1 "
        "and MONOCHROME2 with one sample are upscaled",
    ),
    AcceptanceRule(
        lambda dataset, _: any(keyword in dataset for keyword in _FUNCTIONAL_GROUPS),
        "enhanced multi-frame objects are not supported",
    ),
    AcceptanceRule(
        lambda dataset, _: bool(_missing(dataset)),
        "{missing}: missing, or not one value of the right type",
    ),
    AcceptanceRule(
        lambda dataset, _: not (dataset.Rows and dataset.Columns), "Rows or Columns is zero"
    ),
    AcceptanceRule(
        lambda dataset, scale: max(dataset.Rows, dataset.Columns) * scale > MAX_SIDE,
        f"{{columns}}x{{rows}} pixels at scale {{scale}} exceed {MAX_SIDE} rows or columns, "
        "the limit of DICOM",
    ),
    AcceptanceRule(
        _has_frames_of_another_class,
        "{sop_class} has one frame, but Number of Frames is {frames}",
    ),
    AcceptanceRule(
        _is_too_much_work,
        "Rows, Columns and Number of Frames ({columns}x{rows}, {frames}) claim more work than an "
        f"image may take: {MAX_WORK_PIXELS >> 20} Mi pixels",
    ),
    AcceptanceRule(
        _is_for_processing,
        "FOR PROCESSING data, on which no model here was trained; --allow for-processing",
        AcceptanceOverride.FOR_PROCESSING,
        OutOfScopeError,
    ),
    AcceptanceRule(
        _is_other_body_part,
        "the stated body part {body_part} is not the chest; --allow body-part",
        AcceptanceOverride.BODY_PART,
        OutOfScopeError,
    ),
)
"""Every reason to refuse an object; the first one that applies is reported."""


def check_acceptance(
    dataset: Dataset, scale: int, allowed: frozenset[AcceptanceOverride]
) -> list[str]:
    """Refuse what should not be upscaled.

    Parameters
    ----------
    dataset : pydicom.Dataset
        A whole image object.
    scale : int
        Factor that will be used.
    allowed : frozenset of AcceptanceOverride
        What the user allows beyond chest radiographs for presentation.

    Returns
    -------
    list of str
        Warnings about an object that is accepted, without patient data.

    Raises
    ------
    NoPixelDataError
        If there is no image.
    OutOfScopeError
        If it is no chest radiograph for presentation; names the override if there is one.
    UnsupportedImageError
        For any other rule of `ACCEPTANCE_RULES`.
    """
    for rule in ACCEPTANCE_RULES:
        if rule.override not in allowed and rule.refuses(dataset, scale):
            raise rule.error(rule.reason.format_map(_facts(dataset, scale)))
    if AcceptanceOverride.BODY_PART in allowed or _body_part(dataset) or _region_codes(dataset):
        return []
    return ["no body part is stated; the image is taken for a chest radiograph"]


def check_sop_class(sop_class: UID, allowed: frozenset[AcceptanceOverride]) -> None:
    """Refuse the SOP Class of a file that cannot be read, if no object of it is a radiograph.

    Raises
    ------
    OutOfScopeError
        If it is another class of the standard, and not allowed.
    """
    is_other = sop_class not in (*RADIOGRAPHS, SecondaryCaptureImageStorage)
    if sop_class.type == "SOP Class" and is_other and AcceptanceOverride.MODALITY not in allowed:
        raise OutOfScopeError(_OTHER_MODALITY.format(sop_class=sop_class.name))


def _facts(dataset: Dataset, scale: int) -> dict[str, object]:
    """Return what a reason may state of an object: the only values of a header that are shown."""
    body_part = _body_part(dataset) or min(_region_codes(dataset) - _CHEST_CODES, default="")
    return {
        "rows": dataset.get("Rows"),
        "columns": dataset.get("Columns"),
        "frames": dataset.get("NumberOfFrames"),
        "scale": scale,
        "missing": _missing(dataset),
        "photometric": quoted(dataset.get("PhotometricInterpretation")),
        "sop_class": sop_class_name(dataset),
        "body_part": quoted(body_part),
    }


def _body_part(dataset: Dataset) -> str:
    value = dataset.get("BodyPartExamined") or ""
    text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    return text.strip().upper()


def _region_codes(dataset: Dataset) -> set[str]:
    codes = (item.get("CodeValue") for item in dataset.get("AnatomicRegionSequence") or ())
    return {str(code).strip() for code in codes if code} - {""}
