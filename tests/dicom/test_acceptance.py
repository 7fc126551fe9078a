"""Rules of acceptance: what is upscaled, and why other objects are refused."""

from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForProcessing,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.acceptance import AcceptanceOverride, check_acceptance
from cxrsr_cli.errors import CxrsrError, NoPixelDataError, UnsupportedImageError


def change(dataset: Dataset, changes: dict[str, Any]) -> None:
    """Set attributes, legal or not."""
    with quiet_libraries():
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)


NOTHING: frozenset[AcceptanceOverride] = frozenset()


def region(code: str) -> dict[str, Any]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", "a region"
    return {"BodyPartExamined": "", "AnatomicRegionSequence": Sequence([item])}


def equipment(model: str) -> dict[str, Any]:
    item = Dataset()
    item.Manufacturer, item.ManufacturerModelName = "somebody", model
    return {"ContributingEquipmentSequence": Sequence([item])}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"BodyPartExamined": "THORAX"},
        {"BodyPartExamined": "chest"},
        region("51185008"),
        {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "CR"},
        {"PhotometricInterpretation": "MONOCHROME1"},
        equipment("another tool"),
    ],
    ids=str,
)
def test_chest_radiographs_are_accepted(
    chest: pydicom.FileDataset, changes: dict[str, Any]
) -> None:
    change(chest, changes)
    assert check_acceptance(chest, 4, NOTHING) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"NumberOfFrames": 2}, "has one frame, but Number of Frames is 2"),
        (
            {"SOPClassUID": XRayRadiofluoroscopicImageStorage, "NumberOfFrames": 20_000},
            "claim more work than an image may take",
        ),
        ({"Rows": 20_000, "Columns": 20_000}, "claim more work than an image may take"),
    ],
    ids=str,
)
def test_frames_and_pixels_are_limited(
    chest: pydicom.FileDataset, changes: dict[str, Any], says: str
) -> None:
    """A file of 40 KB can have 20,000 frames of one pixel, each of which takes its time."""
    with quiet_libraries():
        change(chest, changes)
        with pytest.raises(UnsupportedImageError, match=says):
            check_acceptance(chest, 2, frozenset(AcceptanceOverride))


def test_an_image_without_a_stated_body_part_is_accepted_with_a_warning(
    chest: pydicom.FileDataset,
) -> None:
    del chest.BodyPartExamined
    del chest.AnatomicRegionSequence
    (warning,) = check_acceptance(chest, 4, NOTHING)
    assert warning == "no body part is stated; the image is taken for a chest radiograph"


@pytest.mark.parametrize(
    ("changes", "says", "permission"),
    [
        ({"BodyPartExamined": "HIP"}, "body part", AcceptanceOverride.BODY_PART),
        (region("29836001"), "body part", AcceptanceOverride.BODY_PART),
        ({"SOPClassUID": CTImageStorage}, "is not a CR or DX", AcceptanceOverride.MODALITY),
        (
            {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"},
            "is not a CR or DX",
            AcceptanceOverride.MODALITY,
        ),
        (
            {"SOPClassUID": DigitalXRayImageStorageForProcessing},
            "FOR PROCESSING",
            AcceptanceOverride.FOR_PROCESSING,
        ),
        (
            {"PresentationIntentType": "FOR PROCESSING"},
            "FOR PROCESSING",
            AcceptanceOverride.FOR_PROCESSING,
        ),
    ],
    ids=str,
)
def test_an_image_of_a_kind_the_models_were_not_trained_on_needs_its_override(
    chest: pydicom.FileDataset, changes: dict[str, Any], says: str, permission: AcceptanceOverride
) -> None:
    change(chest, changes)
    others = frozenset(AcceptanceOverride) - {permission}
    with pytest.raises(UnsupportedImageError, match=f"{says}.*--allow {permission}"):
        check_acceptance(chest, 4, others)
    check_acceptance(chest, 4, frozenset({permission}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"Rows": 0}, "Rows or Columns"),
        ({"Columns": 16384}, "65535"),
        (equipment("cxrsr"), "output of cxrsr already"),
        ({"SOPClassUID": NuclearMedicineImageStorage}, "nuclear medicine: its values are counts"),
        ({"SOPClassUID": PositronEmissionTomographyImageStorage}, "nuclear medicine"),
        ({"SharedFunctionalGroupsSequence": Sequence([Dataset()])}, "enhanced"),
        ({"PerFrameFunctionalGroupsSequence": Sequence([Dataset()])}, "enhanced"),
    ],
    ids=str,
)
def test_no_override_accepts_an_unsupported_image(
    chest: pydicom.FileDataset, changes: dict[str, Any], says: str
) -> None:
    change(chest, changes)
    with pytest.raises(UnsupportedImageError, match=says):
        check_acceptance(chest, 4, frozenset(AcceptanceOverride))


@pytest.mark.parametrize(
    ("floating", "error"), [(False, NoPixelDataError), (True, UnsupportedImageError)]
)
def test_an_object_without_integer_pixel_data_is_refused(
    chest: pydicom.FileDataset, floating: bool, error: type[CxrsrError]
) -> None:
    del chest.PixelData
    if floating:
        chest.FloatPixelData = b"\0" * 8
    with pytest.raises(error):
        check_acceptance(chest, 4, NOTHING)
