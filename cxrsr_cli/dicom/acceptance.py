"""Which objects are upscaled, and why others are not."""

from enum import StrEnum

from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from cxrsr_cli.dicom.identifiers import MODEL_NAME
from cxrsr_cli.errors import NoPixelDataError, UnsupportedImageError


class AcceptanceOverride(StrEnum):
    """A kind of input that is refused unless allowed."""

    BODY_PART = "body-part"
    """A stated body part other than the chest."""
    MODALITY = "modality"
    """Other than CR and DX, or Secondary Capture of them."""
    FOR_PROCESSING = "for-processing"
    """Presentation Intent FOR PROCESSING."""


MAX_SIDE = 65535
"""Rows and Columns are unsigned shorts (PS3.3 C.7.6.3)."""


_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

RADIOGRAPHS = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)
"""SOP Classes whose every object is a radiograph."""

# Public chest collections store radiographs as Secondary Capture.
_CAPTURED_MODALITIES = ("CR", "DX", "RG")

# PS3.16 annex L, Body Part Examined terms that a chest radiograph may state.
_CHEST_TERMS = ("CHEST", "THORAX", "LUNG", "RIB", "RIBS", "STERNUM", "CHESTABDOMEN")
# The same in Anatomic Region Sequence: SNOMED CT, and its older SRT codes.
_CHEST_CODES = {
    "51185008", "T-D3000",  # Chest
    "43799004", "T-D3300",  # Thoracic cavity / mediastinum
    "39607008", "T-28000",  # Lung
    "113197003", "T-11300",  # Rib
    "56873002", "T-11210",  # Sternum
    "416775004", "R-FAB55",  # Chest and abdomen
}  # fmt: skip


def check_acceptance(
    dataset: Dataset, scale: int, allowed: frozenset[AcceptanceOverride]
) -> list[str]:
    """Refuse what should not be upscaled.

    Parameters
    ----------
    dataset : pydicom.Dataset
        A whole image object.
    scale : int
        Factor about to be used.
    allowed : frozenset of Permission
        What the user allows beyond chest radiographs for presentation.

    Returns
    -------
    list of str
        What was accepted with reserve, free of patient data.

    Raises
    ------
    NoPixelDataError
        If there is no image.
    UnsupportedImageError
        With the reason, and the permission that lifts it if one does.
    """
    if "PixelData" not in dataset:
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise UnsupportedImageError("floating-point pixels are not supported")
        raise NoPixelDataError("the object holds no Pixel Data")
    if is_cxrsr_output(dataset):
        raise UnsupportedImageError("an output of cxrsr already; it is not upscaled again")
    _check_pixel_module(dataset, scale)
    if AcceptanceOverride.MODALITY not in allowed:
        _check_modality(dataset)
    if AcceptanceOverride.FOR_PROCESSING not in allowed and _is_for_processing(dataset):
        raise UnsupportedImageError(
            "FOR PROCESSING data, which no model here has seen; --allow for-processing"
        )
    if AcceptanceOverride.BODY_PART in allowed:
        return []
    return _check_body_part(dataset)


def is_cxrsr_output(dataset: Dataset) -> bool:
    """Tell whether this tool made an object, by its Contributing Equipment."""
    return any(
        item.get("ManufacturerModelName") == MODEL_NAME
        for item in dataset.get("ContributingEquipmentSequence") or ()
    )


def _check_pixel_module(dataset: Dataset, scale: int) -> None:
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if dataset.get("SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnsupportedImageError("colour or palette pixels; only MONOCHROME1 and 2 are upscaled")
    if any(keyword in dataset for keyword in _FUNCTIONAL_GROUPS):
        raise UnsupportedImageError("enhanced multi-frame objects are not supported")
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not isinstance(rows, int) or not isinstance(columns, int) or not rows or not columns:
        raise UnsupportedImageError("Rows or Columns is missing or zero")
    if max(rows, columns) * scale > MAX_SIDE:
        raise UnsupportedImageError(
            f"{columns}x{rows} at scale {scale} exceeds the {MAX_SIDE} pixels a side of DICOM"
        )


def _check_modality(dataset: Dataset) -> None:
    sop_class = dataset.SOPClassUID
    if sop_class in RADIOGRAPHS:
        return
    captured = sop_class == SecondaryCaptureImageStorage
    if captured and dataset.get("Modality") in _CAPTURED_MODALITIES:
        return
    raise UnsupportedImageError("not a CR or DX radiograph by its SOP Class; --allow modality")


def _is_for_processing(dataset: Dataset) -> bool:
    intent = str(dataset.get("PresentationIntentType"))
    sop_class = str(dataset.SOPClassUID)
    return sop_class == DigitalXRayImageStorageForProcessing or intent == "FOR PROCESSING"


def _check_body_part(dataset: Dataset) -> list[str]:
    refusal = UnsupportedImageError("states a body part other than the chest; --allow body-part")
    term = str(dataset.get("BodyPartExamined") or "").strip().upper()
    if term:
        if term not in _CHEST_TERMS:
            raise refusal
        return []
    codes = {str(item.get("CodeValue", "")) for item in dataset.get("AnatomicRegionSequence") or ()}
    if not codes:
        return ["no body part stated; taken for a chest"]
    if not codes <= _CHEST_CODES:
        raise refusal
    return []
