"""The application that made the image is its equipment; the source's devices contributed."""

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.acceptance import is_cxrsr_output
from cxrsr_cli.options import EquipmentRule
from tests.derive.test_derive import PARAMETERS, derived_from, saved


@pytest.fixture
def device(chest: FileDataset) -> FileDataset:
    """Give the example all attributes of General Equipment."""
    chest.ImageType = ["ORIGINAL", "PRIMARY", ""]
    chest.Manufacturer, chest.ManufacturerModelName = "ACME", "DR9"
    chest.DeviceSerialNumber, chest.StationName = "77", "ROOM 3"
    chest.InstitutionName, chest.SoftwareVersions = "HOSPITAL", ["1", "2"]
    chest.DateOfLastCalibration, chest.TimeOfLastCalibration = "20200101", "120000"
    chest.GantryID = "G"
    code = Dataset()
    code.UniqueDeviceIdentifier = "(01)1"
    chest.UDISequence = Sequence([code])
    return chest


def derived(
    chest: FileDataset, folder: Path, equipment: EquipmentRule = EquipmentRule.APPLICATION
) -> FileDataset:
    """Derive, and read the result from a file."""
    written, _ = derived_from(saved(chest, folder / "in.dcm"), equipment=equipment)
    return pydicom.dcmread(saved(written, folder / "out.dcm"))


def purposes(dataset: Dataset) -> list[tuple[str, str]]:
    return [
        (item.PurposeOfReferenceCodeSequence[0].CodeValue, item.Manufacturer)
        for item in dataset.ContributingEquipmentSequence
    ]


def test_the_equipment_is_this_application(device: FileDataset, tmp_path: Path) -> None:
    new = derived(device, tmp_path)
    assert new.Manufacturer == "cxrsr open-source project"
    assert new.ManufacturerModelName == "cxrsr"
    assert new.DeviceSerialNumber == PARAMETERS.model_sha256
    assert new.SoftwareVersions[0] == "cxrsr 0.1.0"
    assert new.DeviceUID == PARAMETERS.device_uid()
    assert new.InstitutionName == "HOSPITAL"
    for keyword in ("StationName", "DateOfLastCalibration", "UDISequence", "GantryID"):
        assert keyword not in new
    assert is_cxrsr_output(new)


def test_the_device_of_the_source_contributed(device: FileDataset, tmp_path: Path) -> None:
    new = derived(device, tmp_path)
    assert purposes(new) == [("109101", "ACME"), ("109102", "cxrsr open-source project")]
    item = new.ContributingEquipmentSequence[0]
    for keyword in ("ManufacturerModelName", "DeviceSerialNumber", "StationName", "UDISequence",
                    "SoftwareVersions", "DateOfLastCalibration", "InstitutionName"):  # fmt: skip
        assert item[keyword].value == device[keyword].value, keyword


def _made_by_a_workstation(chest: FileDataset) -> None:
    chest.ImageType = ["DERIVED", "SECONDARY", ""]


def _names_its_detector(chest: FileDataset) -> None:
    item, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "109101", "DCM"
    code.CodeMeaning = "Acquisition Equipment"
    item.Manufacturer, item.PurposeOfReferenceCodeSequence = "DETECTOR", Sequence([code])
    chest.ContributingEquipmentSequence = Sequence([item])


@pytest.mark.parametrize("prepare", [_made_by_a_workstation, _names_its_detector])
def test_an_earlier_application_is_processing_equipment(
    device: FileDataset, tmp_path: Path, prepare: Callable[[FileDataset], None]
) -> None:
    prepare(device)
    assert ("109102", "ACME") in purposes(derived(device, tmp_path))


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, []),
        ({"InstitutionName": "HOSPITAL"}, []),
        ({"DeviceSerialNumber": "77"}, [("109101", "unknown")]),
        ({"Manufacturer": "", "StationName": "X"}, [("109101", "unknown")]),
    ],
    ids=str,
)
def test_an_unknown_device_is_not_made_up(
    chest: FileDataset, tmp_path: Path, stated: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "StationName"):
        chest.pop(keyword, None)
    for keyword, value in stated.items():
        setattr(chest, keyword, value)
    assert purposes(derived(chest, tmp_path))[:-1] == expected


def test_gaps_of_the_device_refuse_no_image(device: FileDataset, tmp_path: Path) -> None:
    """Its sequences may lack what the standard requires; the output lacks no more."""
    device.UDISequence = Sequence([Dataset()])
    device.InstitutionalDepartmentTypeCodeSequence = Sequence([Dataset()])
    item = derived(device, tmp_path).ContributingEquipmentSequence[0]
    assert "UDISequence" in item


def test_the_device_keeps_its_bytes(device: FileDataset, tmp_path: Path) -> None:
    """Also what is illegal in the character set."""
    path = saved(device, tmp_path / "in.dcm")
    illegal = b"\xff\xfe\x80ROOM"[:6]
    path.write_bytes(path.read_bytes().replace(b"ROOM 3", illegal))
    new, _ = derived_from(path)
    written = saved(new, tmp_path / "out.dcm").read_bytes()
    assert written.count(illegal) == 1


def test_a_site_may_keep_the_equipment_of_the_source(device: FileDataset, tmp_path: Path) -> None:
    new = derived(device, tmp_path, equipment=EquipmentRule.SOURCE)
    for keyword in ("Manufacturer", "DeviceSerialNumber", "StationName", "UDISequence", "GantryID"):
        assert new[keyword].value == device[keyword].value
    assert purposes(new) == [("109102", "cxrsr open-source project")]
    assert is_cxrsr_output(new)


def test_two_outputs_of_one_series_state_the_same_of_it(
    device: FileDataset, tmp_path: Path
) -> None:
    with quiet_libraries():
        device.SeriesDate, device.SeriesTime = "20200101", "100000"
        one = derived(device, tmp_path)
        device.SOPInstanceUID, device.SeriesTime = "1.2.3", "110000"
        other = derived(device, tmp_path)
    assert one.SeriesInstanceUID == other.SeriesInstanceUID
    for keyword in ("SeriesDate", "SeriesTime"):
        assert keyword not in one
