"""The derived object says what it is, in the right size, and keeps the rest byte for byte."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from cxrsr_cli.derive.derived import derive
from cxrsr_cli.derive.geometry import TABLE, rescale_geometry
from cxrsr_cli.derive.identity import Recipe
from cxrsr_cli.derive.lossy import keep_lossy_history
from cxrsr_cli.derive.provenance import image_type
from cxrsr_cli.errors import UnsupportedImageError
from cxrsr_cli.read.dataset import quiet_pydicom, read_source
from cxrsr_cli.read.pixels import decode

NOW = datetime(2026, 11, 22, 10, 30, 15, tzinfo=UTC)
RECIPE = Recipe(
    software="0.1.0",
    model_name="rir-s-x4",
    model_sha256="ab" * 32,
    scale=4,
    consistency=True,
    precision="fp32",
    device="cpu",
    tile=512,
)


def derived_from(path: Path, scale: int = 4) -> tuple[FileDataset, list[str]]:
    """Derive with every pixel repeated, which needs no network."""
    source = read_source(path)
    pixels = decode(source)
    larger = pixels.repeat(scale, 1).repeat(scale, 2)
    return derive(source, pixels, larger, replace(RECIPE, scale=scale), NOW)


def saved(dataset: FileDataset, path: Path) -> Path:
    with quiet_pydicom():
        dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def example(chest: FileDataset, tmp_path: Path) -> Dataset:
    """Derive from the example with some history, and read it back."""
    chest.SeriesDescription = "Chest pa"
    chest.DerivationDescription = "windowed"
    chest.LossyImageCompression = "01"
    chest.LossyImageCompressionRatio = "10"
    chest.add_new("SmallestImagePixelValue", "US", 7)
    chest.add_new("LargestPixelValueInSeries", "US", 4095)
    chest.IconImageSequence = Sequence([Dataset()])
    item = Dataset()
    item.Manufacturer = "somebody"
    chest.ContributingEquipmentSequence = Sequence([item])
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"))
    return pydicom.dcmread(saved(derived, tmp_path / "out.dcm"))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("Rows", 1024),
        ("Columns", 1024),
        ("ImageType", ["DERIVED", "PRIMARY", "", "SUPERRESOLUTION"]),
        ("ContentQualification", "RESEARCH"),
        ("SeriesDescription", "Chest pa: AI super-resolution x4, not for diagnosis"),
        ("SeriesNumber", 204),
        ("LossyImageCompression", "01"),
        ("LossyImageCompressionRatio", 10),
        ("InstanceCreationDate", "20261122"),
        ("InstanceCreationTime", "103015"),
        ("ContentDate", "20170701"),
        ("WindowCenter", 2048),
        ("WindowWidth", 4096),
        ("BitsStored", 12),
        ("HighBit", 11),
        ("PhotometricInterpretation", "MONOCHROME2"),
        ("PatientOrientation", ["L", "F"]),
        ("ImagerPixelSpacing", [0.4169925, 0.4169925]),
    ],
)
def test_values(example: Dataset, keyword: str, value: object) -> None:
    assert example[keyword].value == value


@pytest.mark.parametrize(
    "keyword", ["IconImageSequence", "LargestPixelValueInSeries", "PixelSpacing"]
)
def test_what_is_not_true_or_not_known_is_absent(example: Dataset, keyword: str) -> None:
    assert keyword not in example


def test_provenance(example: Dataset, chest: FileDataset) -> None:
    (image,) = example.SourceImageSequence
    assert image.ReferencedSOPInstanceUID == chest.SOPInstanceUID
    assert image.ReferencedSOPClassUID == chest.SOPClassUID
    assert image.SpatialLocationsPreserved == "NO"
    assert image.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert example.DerivationCodeSequence[-1].CodeValue == "113085"
    assert "AI super-resolution" in example.DerivationDescription
    assert RECIPE.model_sha256 in example.DerivationDescription
    assert example.DerivationDescription.endswith("Earlier: windowed")
    earlier, ours = example.ContributingEquipmentSequence
    assert earlier.Manufacturer == "somebody"
    assert ours.ManufacturerModelName == "cxrsr"
    assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert RECIPE.model_sha256[:32] in ours.SoftwareVersions[2]
    assert ours.DeviceUID == RECIPE.device_uid()
    assert "not for diagnosis" in ours.ContributionDescription


def test_identity(example: Dataset, chest: FileDataset) -> None:
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert example[keyword].value != chest[keyword].value
        assert UID(example[keyword].value).is_valid
        assert example[keyword].value.startswith("2.25.")
    assert example.file_meta.MediaStorageSOPInstanceUID == example.SOPInstanceUID
    assert example.StudyInstanceUID == chest.StudyInstanceUID


def test_smallest_and_largest_are_those_of_the_pixels(example: Dataset) -> None:
    assert example.SmallestImagePixelValue == example.pixel_array.min()
    assert "LargestImagePixelValue" not in example


@pytest.mark.parametrize(
    "change",
    [
        {"software": "0.2.0"},
        {"model_sha256": "cd" * 32},
        {"scale": 2},
        {"consistency": False},
        {"precision": "bf16"},
        {"device": "cuda"},
        {"tile": 64},
    ],
    ids=str,
)
def test_uids_name_everything_that_decides_the_pixels(change: dict[str, Any]) -> None:
    other = replace(RECIPE, **change)
    assert RECIPE.instance_uid("1.2", "p") == RECIPE.instance_uid("1.2", "p")
    assert RECIPE.instance_uid("1.2", "p") != other.instance_uid("1.2", "p")
    assert RECIPE.series_uid("1.2") != other.series_uid("1.2")


def test_same_uid_with_other_pixels_is_another_instance() -> None:
    assert RECIPE.instance_uid("1.2", "pixels") != RECIPE.instance_uid("1.2", "others")
    assert RECIPE.series_uid("1.2") != RECIPE.series_uid("1.3")


@pytest.mark.parametrize(
    ("sop_class", "before", "after"),
    [
        (DigitalXRayImageStorageForPresentation, None, ["DERIVED", "PRIMARY", ""]),
        (DigitalXRayImageStorageForPresentation, ["ORIGINAL", "PRIMARY"],
         ["DERIVED", "PRIMARY", ""]),
        (DigitalXRayImageStorageForPresentation, ["ORIGINAL", "PRIMARY", "X", "RT"],
         ["DERIVED", "PRIMARY", "", "RT"]),
        (ComputedRadiographyImageStorage, None, ["DERIVED", "PRIMARY", ""]),
        (SecondaryCaptureImageStorage, None, ["DERIVED", "SECONDARY", ""]),
        (SecondaryCaptureImageStorage, ["ORIGINAL", "SECONDARY", "AXIAL"],
         ["DERIVED", "SECONDARY", "AXIAL"]),
    ],
)  # fmt: skip
def test_image_type(sop_class: str, before: list[str] | None, after: list[str]) -> None:
    source = Dataset()
    source.SOPClassUID = sop_class
    if before:
        source.ImageType = before
    assert image_type(source) == [*after, "SUPERRESOLUTION"]


def test_earlier_equipment_is_byte_for_byte(chest: FileDataset, tmp_path: Path) -> None:
    item = Dataset()
    item.Manufacturer = "somebody"
    item.InstitutionName = "INSTITUTION-NAME"
    chest.ContributingEquipmentSequence = Sequence([item])
    path = saved(chest, tmp_path / "in.dcm")
    illegal = b"\xff\xfe\x80 illegal name"[:16]
    path.write_bytes(path.read_bytes().replace(b"INSTITUTION-NAME", illegal))
    derived, _ = derived_from(path)
    assert illegal in saved(derived, tmp_path / "out.dcm").read_bytes()


def test_times_are_in_the_objects_zone(chest: FileDataset, tmp_path: Path) -> None:
    chest.TimezoneOffsetFromUTC = "-0400"
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"))
    assert derived.InstanceCreationTime == "063015"


def test_a_description_that_cannot_be_kept_is_said(chest: FileDataset, tmp_path: Path) -> None:
    chest.SpecificCharacterSet = "ISO_IR 100"
    chest.DerivationDescription = "agrandi \u00e9"
    derived, warnings = derived_from(saved(chest, tmp_path / "in.dcm"))
    assert "Derivation Description" in warnings[0]
    assert derived.DerivationDescription.isascii()


# Geometry


@given(
    scale=st.sampled_from([2, 4, 8]),
    spacing=st.decimals("0.01", "9.99", places=4),
    columns=st.integers(1, 8000),
)
def test_the_image_keeps_its_size_in_millimetres(
    scale: int, spacing: Decimal, columns: int
) -> None:
    source, derived = Dataset(), Dataset()
    source.Columns, source.ImagerPixelSpacing = columns, [str(spacing), str(spacing)]
    rescale_geometry(derived, source, scale)
    before = float(spacing) * columns
    assert float(derived.ImagerPixelSpacing[0]) * derived.Columns == pytest.approx(before, rel=1e-9)
    assert all(len(str(value)) <= 16 for value in derived.ImagerPixelSpacing)


@pytest.mark.parametrize(
    ("keyword", "before", "after"),
    [
        ("Rows", 100, 400),
        ("ImagerPixelSpacing", ["0.143", "0.150"], ["0.03575", "0.0375"]),
        ("PixelSpacing", ["0.14300000000001", "1"], ["0.03575000000000", "0.25"]),
        ("PixelSpacing", ["1.2", "1.201199999999"], ["0.3", "0.30029999999975"]),
        ("NominalScannedPixelSpacing", ["10", "10"], ["2.5", "2.5"]),
        ("ShutterLeftVerticalEdge", 1, 1),
        ("ShutterRightVerticalEdge", 100, 400),
        ("ShutterUpperHorizontalEdge", 11, 41),
        ("ShutterLowerHorizontalEdge", 90, 360),
        ("CollimatorLeftVerticalEdge", -184, -739),
        ("CenterOfCircularShutter", [10, 20], [38, 78]),
        ("RadiusOfCircularShutter", 50, 200),
        ("VerticesOfThePolygonalShutter", [1, 1, 10, 10, 1, 10], [2, 2, 38, 38, 2, 38]),
    ],
    ids=str,
)
def test_counted_in_pixels_at_scale_4(keyword: str, before: object, after: object) -> None:
    source, derived = Dataset(), Dataset()
    setattr(source, keyword, before)
    assert rescale_geometry(derived, source, 4) == []
    new = derived[keyword].value
    shown = [str(value) for value in new] if isinstance(before, list) else new
    assert shown == ([str(value) for value in after] if isinstance(after, list) else after)


def test_a_zero_spacing_is_kept_and_said(chest: FileDataset) -> None:
    source, derived = Dataset(), Dataset()
    source.PixelSpacing = derived.PixelSpacing = ["0.000", "0.000"]
    (warning,) = rescale_geometry(derived, source, 4)
    assert "PixelSpacing is not above zero" in warning
    assert [str(value) for value in derived.PixelSpacing] == ["0.000", "0.000"]


def test_no_spacing_is_invented() -> None:
    derived = Dataset()
    rescale_geometry(derived, Dataset(), 4)
    assert len(derived) == 0


def test_the_first_pixels_centre_moves_into_the_first_old_pixel() -> None:
    source, derived = Dataset(), Dataset()
    source.ImagePositionPatient = [-100, -50, 7]
    source.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    source.PixelSpacing = [2, 4]
    rescale_geometry(derived, source, 4)
    assert [float(value) for value in derived.ImagePositionPatient] == [-101.5, -50.75, 7]


def test_every_spacing_and_edge_of_the_dictionary_is_known() -> None:
    """Keywords of radiography that speak of pixels must be in the table."""
    known = {line.keyword for line in TABLE} | {
        "DetectorElementSpacing",  # of the detector
        "PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription",  # words
        "ReconstructionPixelSpacing",  # of tomosynthesis volumes
        "ShutterShape", "ShutterPresentationValue", "ShutterOverlayGroup",
        "ShutterPresentationColorCIELabValue", "CollimatorShape", "CollimatorGridName",
        "CollimatorType",
    }  # fmt: skip
    words = ("PixelSpacing", "Shutter", "Collimator")
    stated = {
        entry[4]
        for tag, entry in DicomDictionary.items()
        if tag >> 16 in (0x0018, 0x0028) and any(word in entry[4] for word in words)
    }
    assert {name for name in stated if not name.endswith("Sequence")} - known == set()


# Overlays, lossy history


def test_overlays_are_magnified(chest: FileDataset, tmp_path: Path) -> None:
    plane = np.zeros((256, 256), np.uint8)
    plane[10:20, 30:50] = 1
    chest.add_new(0x60000010, "US", 256)
    chest.add_new(0x60000011, "US", 256)
    chest.add_new(0x60000040, "CS", "R")
    chest.add_new(0x60000050, "SS", [1, 3])
    chest.add_new(0x60000100, "US", 1)
    chest.add_new(0x60000102, "US", 0)
    chest.add_new(0x60001301, "IS", 200)
    chest.add_new(0x60003000, "OW", np.packbits(plane, bitorder="little").tobytes())
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"))
    written = pydicom.dcmread(saved(derived, tmp_path / "out.dcm"))
    assert np.array_equal(written.overlay_array(0x6000), plane.repeat(4, 0).repeat(4, 1))
    assert list(written[0x60000050].value) == [1, 9]
    assert written[0x60001301].value == 200 * 16


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless])
def test_overlays_in_unused_bits(chest: FileDataset, tmp_path: Path, syntax: UID | None) -> None:
    """They get planes of their own, or are dropped where the codec lost them."""
    plane = np.zeros((256, 256), np.uint16)
    plane[100:120, 5:9] = 1
    cells = np.frombuffer(chest.PixelData, "<u2").reshape(256, 256) | plane << 13
    chest.PixelData = cells.tobytes()
    for element, vr, value in (
        (0x0010, "US", 256), (0x0011, "US", 256), (0x0040, "CS", "G"), (0x0050, "SS", [1, 1]),
        (0x0100, "US", 16), (0x0102, "US", 13),
    ):  # fmt: skip
        chest.add_new((0x6000, element), vr, value)
    if syntax == JPEGLSLossless:
        chest.PixelData = (cells & 0xFFF).tobytes()
    if syntax:
        chest.compress(syntax, generate_instance_uid=False)
    derived, warnings = derived_from(saved(chest, tmp_path / "in.dcm"))
    written = pydicom.dcmread(saved(derived, tmp_path / "out.dcm"))
    assert written.pixel_array.max() < 4096
    if syntax == JPEGLSLossless:
        assert "overlay" in warnings[0]
        assert all(tag >> 16 != 0x6000 for tag in written.keys())
    else:
        assert np.array_equal(written.overlay_array(0x6000), plane.repeat(4, 0).repeat(4, 1))


def test_empty_overlay_data_are_kept(chest: FileDataset, tmp_path: Path) -> None:
    chest.add_new(0x60000010, "US", 256)
    chest.add_new(0x60000100, "US", 1)
    chest.add_new(0x60003000, "OW", b"")
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"))
    assert derived[0x60000010].value == 1024


def test_an_overlay_too_far_out_is_refused(chest: FileDataset, tmp_path: Path) -> None:
    chest.add_new(0x60000050, "SS", [9000, 1])
    with pytest.raises(UnsupportedImageError, match="too far out"):
        derived_from(saved(chest, tmp_path / "in.dcm"))


def test_curves_are_dropped_and_said(chest: FileDataset, tmp_path: Path) -> None:
    chest.add_new(0x50000005, "US", 2)
    chest.add_new(0x50003000, "OW", b"\0\0")
    derived, warnings = derived_from(saved(chest, tmp_path / "in.dcm"))
    assert warnings == ["a retired curve was dropped"]
    assert all(tag >> 16 != 0x5000 for tag in derived.keys())


def test_lossy_by_syntax_alone_is_flagged(shared: Path) -> None:
    source = read_source(shared / "dicom" / "chest" / "Fake_MONOHR1.dcm")
    assert source.transfer_syntax == JPEGBaseline8Bit
    derived = Dataset()
    keep_lossy_history(derived, source)
    assert len(derived) == 0, "the source states it"
    del source.dataset.LossyImageCompression
    keep_lossy_history(derived, source)
    assert derived.LossyImageCompression == "01"
    assert derived.LossyImageCompressionMethod == "ISO_10918_1"
    assert float(derived.LossyImageCompressionRatio) > 5
