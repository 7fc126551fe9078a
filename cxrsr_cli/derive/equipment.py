"""State who made the image: this application, from the images of the source's equipment."""

import copy
from datetime import datetime

from highdicom import ContributingEquipment
from highdicom.sr.coding import CodedConcept
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.valuerep import DT

from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.identifiers import MANUFACTURER, MODEL_NAME
from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.options import NOT_FOR_DIAGNOSIS

ACQUISITION_EQUIPMENT = CodedConcept("109101", "DCM", "Acquisition Equipment")
PROCESSING_EQUIPMENT = CodedConcept("109102", "DCM", "Processing Equipment")

_PARAMETERS = "; parameters "
"""Stands before the `DerivationParameters` in Contribution Description."""

_IDENTIFYING = (
    "Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber",
    "SoftwareVersions", "DeviceUID", "UDISequence", "DateOfManufacture", "DateOfInstallation",
    "DateOfLastCalibration", "TimeOfLastCalibration",
)  # fmt: skip
"""Attributes of General Equipment that identify the device: they move to its item."""
_OF_THE_PLACE = (
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName",
    "InstitutionalDepartmentTypeCodeSequence", "SpatialResolution",
)  # fmt: skip
"""Attributes of General Equipment that are true of the output as well: its item has them, too."""

_MOVED = "of the source's equipment, which is an item of Contributing Equipment Sequence"
_OF_THE_DEVICE = "of the source's equipment; Contributing Equipment Sequence has no place for it"
REMOVED_EQUIPMENT = {
    "StationName": _MOVED,
    "UDISequence": _MOVED,
    "DateOfManufacture": _MOVED,
    "DateOfInstallation": _MOVED,
    "DateOfLastCalibration": _MOVED,
    "TimeOfLastCalibration": _MOVED,
    "GantryID": _OF_THE_DEVICE,
    "ManufacturerDeviceClassUID": _OF_THE_DEVICE,
}
"""Keywords of the attributes of General Equipment that an output does not have, and why."""


def software_versions(parameters: DerivationParameters) -> list[str]:
    """Return version, model and the SHA-256 of its weights, which is too long for one value."""
    return [
        f"cxrsr {parameters.software}",
        f"model {parameters.options.model}",
        f"SHA-256 {parameters.model_sha256[:32]}",
        f"SHA-256 {parameters.model_sha256[32:]}",
    ]


def source_equipment(source: DicomSource) -> Dataset | None:
    """Return the source's General Equipment as an item; None if it identifies no device.

    It is Processing Equipment if the source names its acquisition equipment already, or was
    made after the examination (C.12.1.1.5), else Acquisition Equipment. Values are the bytes
    of the source.
    """
    item = Dataset()
    stated = [keyword for keyword in _IDENTIFYING if source.dataset.get(keyword)]
    if not stated:
        return None
    for keyword in (*stated, *_OF_THE_PLACE):
        if keyword in source.raw_dataset:
            item[keyword] = copy.deepcopy(source.raw_dataset.get_item(keyword))
    if "Manufacturer" not in stated:
        item[Tag("Manufacturer")] = DataElement(Tag("Manufacturer"), "LO", "unknown")
    is_processor = _names_acquisition_equipment(source.dataset) or (
        list(source.dataset.get("ImageType") or ())[:2] == ["DERIVED", "SECONDARY"]
    )
    purpose = PROCESSING_EQUIPMENT if is_processor else ACQUISITION_EQUIPMENT
    item.PurposeOfReferenceCodeSequence = Sequence([purpose])
    return item


def _names_acquisition_equipment(source: Dataset) -> bool:
    return any(
        code.get("CodeValue") == ACQUISITION_EQUIPMENT.value
        for item in source.get("ContributingEquipmentSequence") or ()
        for code in item.get("PurposeOfReferenceCodeSequence") or ()
    )


def own_equipment(parameters: DerivationParameters, now: datetime) -> Dataset:
    """Return this application as an item, by which its outputs are known."""
    item = ContributingEquipment(
        MANUFACTURER,
        PROCESSING_EQUIPMENT,
        manufacturer_model_name=MODEL_NAME,
        software_versions=software_versions(parameters),
        contribution_datetime=now,
        contribution_description=(
            f"AI super-resolution x{parameters.options.scale}; {NOT_FOR_DIAGNOSIS}"
            f"{_PARAMETERS}{parameters.to_json()}"
        ),
    )
    item.DeviceSerialNumber = parameters.model_sha256
    item.DeviceUID = parameters.device_uid()
    return item


def read_parameters(derived: Dataset) -> tuple[DerivationParameters, datetime]:
    """Read from a derived object how it was made, and when.

    Raises
    ------
    ValueError
        If it does not say so.
    """
    item = _last_own_equipment(derived) or Dataset()
    text = str(item.get("ContributionDescription") or "").partition(_PARAMETERS)[2]
    time = DT(str(item.get("ContributionDateTime") or ""))
    if time is None or time.tzinfo is None:
        raise ValueError("no time with its zone")
    return DerivationParameters.from_json(text), time


def _last_own_equipment(derived: Dataset) -> Dataset | None:
    items = derived.get("ContributingEquipmentSequence")
    for item in reversed(items if isinstance(items, Sequence) else ()):
        codes = item.get("PurposeOfReferenceCodeSequence") or ()
        is_processing = any(code.get("CodeValue") == PROCESSING_EQUIPMENT.value for code in codes)
        if is_processing and item.get("ManufacturerModelName") == MODEL_NAME:
            return item
    return None
