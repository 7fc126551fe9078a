"""An unchanged output passes; every change is found and named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.errors import ExitCode
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from cxrsr_cli.verify.checks import Aspect
from cxrsr_cli.verify.verify import VerificationReport, verify
from tests.conftest import EXAMPLE, Command

Change = Callable[[pydicom.Dataset], object]


def upscale(tiny_model: Path, source: Path, target: Path, *, keep_private: bool = True) -> Path:
    """Upscale by the tiny model, whatever the body part and modality."""
    chosen = UpscaleOptions(allow=frozenset(AcceptanceOverride), keep_private=keep_private)
    upscaler = Upscaler.load(find_model(str(tiny_model), 2), chosen)
    (result,) = BatchRunner(LocalExecutor(upscaler)).run([Job(source, target)])
    assert result.error is None, str(result.error)
    return target


@pytest.fixture(scope="module")
def pair(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a source with everything that can be checked, and its output."""
    folder = tmp_path_factory.mktemp("pair")
    dataset = pydicom.dcmread(EXAMPLE)
    pixels = np.maximum(dataset.pixel_array, 1)
    pixels[:8] = 0
    dataset.PixelData = pixels.tobytes()
    dataset.add_new("PixelPaddingValue", "US", 0)
    dataset.ShutterShape = "RECTANGULAR"
    dataset.ShutterLeftVerticalEdge = 3
    dataset.PixelSpacing = dataset.ImagerPixelSpacing
    dataset.LossyImageCompression = "01"
    for element, vr, value in (
        (0x0010, "US", 256), (0x0011, "US", 256), (0x0040, "CS", "G"), (0x0050, "SS", [1, 1]),
        (0x0100, "US", 1), (0x0102, "US", 0), (0x3000, "OW", b"\x55" * 8192),
    ):  # fmt: skip
        dataset.add_new((0x6000, element), vr, value)
    block = dataset.private_block(0x0009, "TEST", create=True)
    block.add_new(0x01, "LO", "private")
    dataset.save_as(folder / "source.dcm")
    return folder / "source.dcm", upscale(tiny_model, folder / "source.dcm", folder / "out.dcm")


def broken(verification: VerificationReport) -> set[tuple[Aspect, str]]:
    """Return what does not hold, with the keywords that are named."""
    return {(each.aspect, each.detail) for each in verification.findings if not each.holds}


def tampered(pair: tuple[Path, Path], change: Change, folder: Path) -> VerificationReport:
    dataset = pydicom.dcmread(pair[1])
    with quiet_libraries():
        change(dataset)
        dataset.save_as(folder / "tampered.dcm")
    return verify(pair[0], folder / "tampered.dcm")


def test_an_unchanged_output_passes(pair: tuple[Path, Path]) -> None:
    verification = verify(*pair)
    assert broken(verification) == set()
    assert verification.scale == 2
    assert {finding.aspect for finding in verification.findings} == set(Aspect)


def shift_pixels(dataset: pydicom.Dataset) -> None:
    pixels = dataset.pixel_array
    dataset.PixelData = np.roll(pixels, 1, axis=1).tobytes()


def paint_padding(dataset: pydicom.Dataset) -> None:
    pixels = dataset.pixel_array.copy()
    pixels[0, 0] = 7
    dataset.PixelData = pixels.tobytes()


@pytest.mark.parametrize(
    ("change", "aspect", "names"),
    [
        (lambda ds: ds.__delattr__("ContributingEquipmentSequence"), Aspect.PROVENANCE, ""),
        (lambda ds: setattr(ds, "DerivationDescription", "x2 "), Aspect.PROVENANCE, ""),
        (lambda ds: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY"]), Aspect.PROVENANCE, ""),
        (lambda ds: setattr(ds.SourceImageSequence[0], "ReferencedSOPInstanceUID", "1.2"),
         Aspect.PROVENANCE, ""),
        (lambda ds: setattr(ds.SourceImageSequence[0], "SpatialLocationsPreserved", "YES"),
         Aspect.PROVENANCE, ""),
        (lambda ds: setattr(ds, "ContentQualification", "PRODUCT"), Aspect.PROVENANCE, ""),
        (lambda ds: setattr(ds, "SeriesDescription", "Chest"), Aspect.PROVENANCE, ""),
        (lambda ds: setattr(ds, "LossyImageCompression", "00"), Aspect.PROVENANCE, ""),
        (lambda ds: setattr(ds, "PatientID", "another"), Aspect.CONTENT, "PatientID"),
        (lambda ds: setattr(ds, "StudyInstanceUID", "1.2"), Aspect.CONTENT, "StudyInstanceUID"),
        (lambda ds: ds.__delattr__("PatientSex"), Aspect.CONTENT, "PatientSex"),
        (lambda ds: setattr(ds, "PatientComments", "new"), Aspect.CONTENT, "PatientComments"),
        (lambda ds: setattr(ds[0x0009, 0x1001], "value", "other"), Aspect.CONTENT, "(0009,1001)"),
        (lambda ds: setattr(ds, "ImagerPixelSpacing", [0.1, 0.1]),
         Aspect.GEOMETRY, "ImagerPixelSpacing"),
        (lambda ds: setattr(ds, "NominalScannedPixelSpacing", [0.1, 0.1]),
         Aspect.GEOMETRY, "NominalScannedPixelSpacing"),
        (lambda ds: ds.__delattr__("PixelSpacing"), Aspect.GEOMETRY, "PixelSpacing"),
        (lambda ds: setattr(ds, "ShutterLeftVerticalEdge", 3),
         Aspect.GEOMETRY, "ShutterLeftVerticalEdge"),
        (lambda ds: setattr(ds[0x6000, 0x0010], "value", 256), Aspect.GEOMETRY, "OverlayRows"),
        (lambda ds: setattr(ds[0x6000, 0x3000], "value", b"\xaa" * 32768),
         Aspect.GEOMETRY, "OverlayData"),
        (lambda ds: setattr(ds, "WindowWidth", 400), Aspect.PHOTOMETRY, "WindowWidth"),
        (lambda ds: setattr(ds, "PhotometricInterpretation", "MONOCHROME1"),
         Aspect.PHOTOMETRY, "PhotometricInterpretation"),
        (lambda ds: setattr(ds, "RescaleSlope", 2), Aspect.PHOTOMETRY, "RescaleSlope"),
        (paint_padding, Aspect.PHOTOMETRY, "1 pixels"),
    ],
)  # fmt: skip
def test_a_changed_attribute_is_found(
    pair: tuple[Path, Path], tmp_path: Path, change: Change, aspect: Aspect, names: str
) -> None:
    found = broken(tampered(pair, change, tmp_path))
    assert {one for one, _ in found} == {aspect}
    assert any(names in detail for _, detail in found)


def test_changed_pixels_are_found(pair: tuple[Path, Path], tmp_path: Path) -> None:
    verification = tampered(pair, shift_pixels, tmp_path)
    assert Aspect.AGREEMENT in {aspect for aspect, _ in broken(verification)}
    assert verification.deviation.beyond > 1


def test_a_lost_attribute_of_type_1_is_found(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = broken(tampered(pair, lambda ds: ds.__delattr__("Modality"), tmp_path))
    assert found == {(Aspect.CONTENT, "Modality")}


@pytest.mark.parametrize("keep_private", [True, False])
def test_dropped_private_elements_pass(
    pair: tuple[Path, Path], tiny_model: Path, tmp_path: Path, keep_private: bool
) -> None:
    output = upscale(tiny_model, pair[0], tmp_path / "out.dcm", keep_private=keep_private)
    assert ((0x0009, 0x1001) in pydicom.dcmread(output)) == keep_private
    assert broken(verify(pair[0], output)) == set()


@pytest.mark.parametrize("character_set", ["GBK", "ISO 2022 GBK", "GB18030"])
@pytest.mark.parametrize("implicit", [False, True])
def test_an_output_with_chinese_text_passes(
    tiny_model: Path, tmp_path: Path, character_set: str, implicit: bool
) -> None:
    dataset = pydicom.dcmread(EXAMPLE)
    dataset.SpecificCharacterSet = character_set
    dataset.PatientName = "Wang^XiaoDong=\u738b^\u5c0f\u4e1c"
    block = dataset.private_block(0x0009, "TEST", create=True)
    block.add_new(0x01, "LO", "\u5c0f\u4e1c")
    dataset.file_meta.TransferSyntaxUID = (
        ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    )
    with quiet_libraries():
        dataset.save_as(tmp_path / "in.dcm", implicit_vr=implicit, little_endian=True)
    output = upscale(tiny_model, tmp_path / "in.dcm", tmp_path / "out.dcm")
    assert broken(verify(tmp_path / "in.dcm", output)) == set()


def test_outputs_of_real_radiographs_pass(shared: Path, tiny_model: Path, tmp_path: Path) -> None:
    """They are lossy and lossless, of other body parts, with retired and unusual elements.

    The real chests are verified in the test that upscales a whole folder of them.
    """
    files = sorted((shared / "dicom" / "other-body-parts").iterdir())
    for source in [path for path in files if path.stat().st_size < 100_000]:
        output = upscale(tiny_model, source, tmp_path / source.name)
        assert broken(verify(source, output)) == set(), source.name


@pytest.mark.parametrize("syntax", ["same", "explicit", "j2k"])
def test_every_encoding_of_the_output_passes(
    cxrsr: Command, tiny_model: Path, tmp_path: Path, syntax: str
) -> None:
    """Also if elements change their encoding: implicit VR with sequences."""
    source = pydicom.dcmread(EXAMPLE)
    source.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    source.ViewCodeSequence = Sequence([pydicom.Dataset()])
    source.ViewCodeSequence[0].CodeValue = "399348003"
    source.save_as(tmp_path / "in.dcm", implicit_vr=True, little_endian=True)
    options = ("-s", 2, "-m", tiny_model, "--transfer-syntax", syntax)
    assert cxrsr("upscale", *options, tmp_path / "in.dcm", tmp_path / "out.dcm").returncode == 0
    written = pydicom.dcmread(tmp_path / "out.dcm")
    assert (written.file_meta.TransferSyntaxUID == JPEG2000Lossless) == (syntax == "j2k")
    assert broken(verify(tmp_path / "in.dcm", tmp_path / "out.dcm")) == set()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["{0}", "{1}"], ExitCode.OK, "LR-PSNR"),
        (["--quiet", "{0}", "{1}"], ExitCode.OK, ""),
        (["{1}", "{1}"], ExitCode.VERIFICATION, "2, 4 or 8 times as large"),
        (["{0}", "none"], ExitCode.ALL_FAILED, "No such file"),
        (["{0}", "{2}"], ExitCode.ALL_FAILED, "no Pixel Data"),
    ],
)  # fmt: skip
def test_the_command_reports_by_text_and_exit_code(
    cxrsr: Command,
    pair: tuple[Path, Path],
    tmp_path: Path,
    arguments: list[str],
    code: ExitCode,
    says: str,
) -> None:
    bare = pydicom.dcmread(pair[1])
    del bare.PixelData
    bare.save_as(tmp_path / "bare.dcm")
    names = (*pair, tmp_path / "bare.dcm")
    done = cxrsr("verify", *(argument.format(*names) for argument in arguments))
    assert done.returncode == code
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Example^Chest" not in done.stdout + done.stderr


def test_the_command_writes_json(cxrsr: Command, pair: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copy(pair[1], tmp_path)
    facts = json.loads(cxrsr("verify", "--json", *pair).stdout)
    assert facts["holds"] is True
    assert facts["schema"] == "cxrsr-verification/1"
    assert facts["deviation"]["beyond"] == 0
    assert facts["lr_psnr"] > 45
    assert len(facts["noise"]) == 1
    assert all(finding["holds"] for finding in facts["findings"])
