"""The derived object states its provenance and geometry, and keeps all else unchanged."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalIntraOralXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    SecondaryCaptureImageStorage,
)

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.derive.derive import derive
from cxrsr_cli.derive.provenance import image_type, mark_lossy
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.dataset_walker import has_legal_encapsulation
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.networks.config import Agreement, Precision
from cxrsr_cli.options import ImageTypeRule, UpscaleOptions

NOW = datetime(2026, 11, 22, 10, 30, 15, tzinfo=UTC)
PARAMETERS = DerivationParameters(
    software="0.1.0",
    model_sha256="ab" * 32,
    options=UpscaleOptions(
        model="rir-s-x4", precision=Precision.FP32, device="cpu", agreement=Agreement.NOISE
    ),
)


def at_scale(scale: int) -> DerivationParameters:
    """Return parameters that differ by the scale."""
    return replace(PARAMETERS, options=replace(PARAMETERS.options, scale=scale))


def derived_from(
    path: Path, scale: int = 4, **options_of_a_site: object
) -> tuple[FileDataset, list[str]]:
    """Derive with every pixel repeated, without a network."""
    parameters = at_scale(scale)
    changes: dict[str, Any] = {"noise_reduction": 0.0, **options_of_a_site}
    options = replace(parameters.options, **changes)
    return derived_with(path, replace(parameters, options=options))


def derived_with(path: Path, parameters: DerivationParameters) -> tuple[FileDataset, list[str]]:
    """Derive as `derived_from`."""
    scale, source = parameters.options.scale, read_source(path)
    pixels = decode(source)
    larger = pixels.repeat(scale, 1).repeat(scale, 2)
    return derive(source, pixels, larger, parameters, NOW, agreement="exact")


def saved(dataset: FileDataset, path: Path) -> Path:
    with quiet_libraries():
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
        ("ImageType", ["DERIVED", "SECONDARY", "", "SUPERRESOLUTION"]),
        ("ContentQualification", "RESEARCH"),
        ("SeriesDescription", "Chest pa: AI super-resolution x4, not for diagnosis"),
        ("LossyImageCompression", "01"),
        ("LossyImageCompressionRatio", 10),
        ("InstanceCreationDate", "20261122"),
        ("InstanceCreationTime", "103015"),
        ("ContentDate", "20261122"),
        ("ContentTime", "103015"),
        ("StudyDate", "20170701"),
        ("WindowCenter", 2048),
        ("WindowWidth", 4096),
        ("BitsStored", 12),
        ("HighBit", 11),
        ("PhotometricInterpretation", "MONOCHROME2"),
        ("PatientOrientation", ["L", "F"]),
        ("ImagerPixelSpacing", [0.4169925, 0.4169925]),
    ],
)
def test_attributes_have_their_derived_values(
    example: Dataset, keyword: str, value: object
) -> None:
    assert example[keyword].value == value


@pytest.mark.parametrize(
    "keyword", ["IconImageSequence", "LargestPixelValueInSeries", "PixelSpacing"]
)
def test_attributes_that_are_no_longer_true_are_absent(example: Dataset, keyword: str) -> None:
    assert keyword not in example


def test_the_derived_object_states_its_provenance(example: Dataset, chest: FileDataset) -> None:
    (image,) = example.SourceImageSequence
    assert image.ReferencedSOPInstanceUID == chest.SOPInstanceUID
    assert image.ReferencedSOPClassUID == chest.SOPClassUID
    assert image.SpatialLocationsPreserved == "NO"
    assert image.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert example.DerivationCodeSequence[-1].CodeValue == "113085"
    assert "AI super-resolution" in example.DerivationDescription
    assert PARAMETERS.model_sha256 in example.DerivationDescription
    assert example.DerivationDescription.endswith("Earlier: windowed")
    earlier, acquisition, ours = example.ContributingEquipmentSequence
    assert earlier.Manufacturer == "somebody"
    assert acquisition.Manufacturer == chest.Manufacturer
    assert ours.ManufacturerModelName == "cxrsr"
    assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert PARAMETERS.model_sha256[:32] in ours.SoftwareVersions[2]
    assert ours.DeviceUID == PARAMETERS.device_uid()
    assert "not for diagnosis" in ours.ContributionDescription


def test_the_derived_object_has_new_uids_in_the_same_study(
    example: Dataset, chest: FileDataset
) -> None:
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert example[keyword].value != chest[keyword].value
        assert UID(example[keyword].value).is_valid
        assert example[keyword].value.startswith("2.25.")
    assert example.file_meta.MediaStorageSOPInstanceUID == example.SOPInstanceUID
    assert example.StudyInstanceUID == chest.StudyInstanceUID


def test_smallest_pixel_value_is_that_of_the_new_pixels(example: Dataset) -> None:
    assert example.SmallestImagePixelValue == example.pixel_array.min()
    assert "LargestImagePixelValue" not in example


@pytest.mark.parametrize(
    ("sop_class", "before", "after"),
    [
        (DigitalXRayImageStorageForPresentation, None, ["DERIVED", "SECONDARY", ""]),
        (DigitalXRayImageStorageForPresentation, ["ORIGINAL", "PRIMARY"],
         ["DERIVED", "SECONDARY", ""]),
        (DigitalXRayImageStorageForPresentation, ["ORIGINAL", "PRIMARY", "X", "RT"],
         ["DERIVED", "SECONDARY", "", "RT"]),
        (DigitalIntraOralXRayImageStorageForPresentation, ["ORIGINAL", "PRIMARY", "X"],
         ["DERIVED", "SECONDARY", ""]),
        (ComputedRadiographyImageStorage, None, ["DERIVED", "SECONDARY", ""]),
        (SecondaryCaptureImageStorage, None, ["DERIVED", "SECONDARY", ""]),
        (SecondaryCaptureImageStorage, ["ORIGINAL", "SECONDARY", "AXIAL"],
         ["DERIVED", "SECONDARY", "AXIAL"]),
        (CTImageStorage, ["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "AXIAL", ""]),
        (DigitalMammographyXRayImageStorageForPresentation, ["ORIGINAL", "PRIMARY"],
         ["DERIVED", "SECONDARY", "", "", ""]),
        (DigitalMammographyXRayImageStorageForPresentation,
         ["DERIVED", "PRIMARY", "TOMO_2D", "GENERATED_2D", "LOW_ENERGY", "X"],
         ["DERIVED", "SECONDARY", "TOMO_2D", "GENERATED_2D", "LOW_ENERGY", "X"]),
    ],
)  # fmt: skip
def test_image_type_is_derived_and_the_mark_is_behind_the_values_of_the_standard(
    sop_class: str, before: list[str] | None, after: list[str]
) -> None:
    source = Dataset()
    source.SOPClassUID = sop_class
    if before:
        source.ImageType = before
    assert image_type(source) == [*after, "SUPERRESOLUTION"]


@pytest.mark.parametrize(
    ("sop_class", "stated", "second"),
    [
        (DigitalXRayImageStorageForPresentation, ["DERIVED", "PRIMARY", ""], "PRIMARY"),
        (DigitalXRayImageStorageForPresentation, None, "PRIMARY"),
        (SecondaryCaptureImageStorage, None, "SECONDARY"),
    ],
)
def test_a_site_may_keep_value_2_of_image_type(
    sop_class: str, stated: list[str] | None, second: str
) -> None:
    source = Dataset()
    source.SOPClassUID, source.ImageType = sop_class, stated
    assert image_type(source, ImageTypeRule.SOURCE)[1] == second


def test_earlier_equipment_keeps_its_bytes(chest: FileDataset, tmp_path: Path) -> None:
    item = Dataset()
    item.Manufacturer = "somebody"
    item.InstitutionName = "INSTITUTION-NAME"
    chest.ContributingEquipmentSequence = Sequence([item])
    path = saved(chest, tmp_path / "in.dcm")
    illegal = b"\xff\xfe\x80 illegal name"[:16]
    path.write_bytes(path.read_bytes().replace(b"INSTITUTION-NAME", illegal))
    derived, _ = derived_from(path)
    assert illegal in saved(derived, tmp_path / "out.dcm").read_bytes()


def test_times_are_in_the_time_zone_of_the_object(chest: FileDataset, tmp_path: Path) -> None:
    chest.TimezoneOffsetFromUTC = "-0400"
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"))
    assert derived.InstanceCreationTime == "063015"


def test_a_warning_names_a_derivation_description_that_cannot_be_kept(
    chest: FileDataset, tmp_path: Path
) -> None:
    chest.SpecificCharacterSet = "ISO_IR 100"
    chest.DerivationDescription = "agrandi \u00e9" * 100
    derived, warnings = derived_from(saved(chest, tmp_path / "in.dcm"))
    assert warnings == ["the earlier Derivation Description was dropped: too long"]
    assert derived.DerivationDescription.isascii()


def test_a_source_that_is_lossy_only_by_its_syntax_is_marked(shared: Path) -> None:
    source = read_source(shared / "dicom" / "chest" / "Fake_MONOHR1.dcm")
    assert source.transfer_syntax == JPEGBaseline8Bit
    derived = Dataset()
    mark_lossy(derived, source)
    assert len(derived) == 0, "the source states it"
    del source.dataset.LossyImageCompression
    mark_lossy(derived, source)
    assert derived.LossyImageCompression == "01"
    assert derived.LossyImageCompressionMethod == "ISO_10918_1"
    assert float(derived.LossyImageCompressionRatio) > 5


@pytest.mark.parametrize("vr", ["SQ", "UN"])
@pytest.mark.parametrize("nested", [True, False], ids=["nested", "top level"])
def test_encapsulated_elements_are_dropped_with_a_warning(
    chest: FileDataset, tmp_path: Path, vr: str, *, nested: bool
) -> None:
    """They would be illegal in another transfer syntax, and no element but Pixel Data may be so."""
    chest.compress(JPEGLSLossless, generate_instance_uid=False)
    block = chest.private_block(0x0029, "TEST", create=True)
    fragments = encapsulate([b"\xff\xd8\xff\xd9"])
    if nested:
        item = Dataset()
        item.add_new("PixelData", "OB", fragments)
        item["PixelData"].is_undefined_length = True
        block.add_new(1, "SQ", Sequence([item]))
        chest[0x00291001].is_undefined_length = True
    else:
        block.add_new(1, "OB", fragments)
        chest[0x00291001].is_undefined_length = True
    path = saved(chest, tmp_path / "in.dcm")
    if vr == "UN" and nested:
        path.write_bytes(path.read_bytes().replace(b"\x29\0\x01\x10SQ", b"\x29\0\x01\x10UN"))
    derived, warnings = derived_from(path)
    assert 0x00291001 not in derived
    assert any("compressed pixels" in warning for warning in warnings)
    written = saved(derived, tmp_path / "out.dcm")
    assert has_legal_encapsulation(io.BytesIO(written.read_bytes()), ExplicitVRLittleEndian)


@pytest.mark.parametrize("syntax", [JPEG2000, HTJ2K, JPEGLSNearLossless])
@pytest.mark.parametrize("lossy", [True, False])
def test_reversible_frames_are_not_called_lossy(
    chest: FileDataset, tmp_path: Path, syntax: UID, *, lossy: bool
) -> None:
    """Under a transfer syntax that allows both, the frame tells."""
    if syntax == JPEGLSNearLossless:
        chest.compress(syntax, jls_error=2 if lossy else 0, generate_instance_uid=False)
    else:
        options: dict[str, Any] = {"j2k_cr": [10]} if lossy else {}
        encoded = JPEG2000 if lossy else JPEG2000Lossless
        chest.compress(encoded, generate_instance_uid=False, **options)
        # The codestreams of HTJ2K have the same marker; nothing here decodes them.
        chest.file_meta.TransferSyntaxUID = syntax
    chest.LossyImageCompression = "00"
    source = read_source(saved(chest, tmp_path / "in.dcm"))
    derived = Dataset()
    mark_lossy(derived, source)
    assert ("LossyImageCompression" in derived) == lossy


def test_a_real_reversible_file_stays_lossless(shared: Path) -> None:
    derived, _ = derived_from(shared / "cases" / "j2k91_reversible.dcm")
    assert derived.LossyImageCompression == "00"
    assert "LossyImageCompressionMethod" not in derived


def test_new_attributes_of_the_patient_are_copied_and_not_logged(
    chest: FileDataset, tmp_path: Path
) -> None:
    """Names and pronouns to use, gender identity, sensitive content.

    pydicom's dictionary does not know all of them.
    """
    names, pronouns, identity, sensitive = Dataset(), Dataset(), Dataset(), Dataset()
    names.add_new(0x00100012, "LT", "NameToUse")
    chest.add_new(0x00100011, "SQ", Sequence([names]))
    pronouns.CodeMeaning = "Pronoun"
    chest.add_new(0x00100014, "SQ", Sequence([pronouns]))
    identity.CodeMeaning = "Identity"
    chest.add_new(0x00100041, "SQ", Sequence([identity]))
    sensitive.CodeMeaning = "Sensitive"
    chest.add_new(0x0008001D, "SQ", Sequence([sensitive]))
    path = saved(chest, tmp_path / "in.dcm")
    derived, warnings = derived_from(path)
    content = saved(derived, tmp_path / "out.dcm").read_bytes()
    for text in ("NameToUse", "Pronoun", "Identity", "Sensitive"):
        assert text.encode() in content
        assert not any(text in warning for warning in warnings)
