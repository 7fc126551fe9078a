"""An unchanged output passes; every change is found and named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from cxrsr_cli.batch.report import BatchRun, build_report, write_report
from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.common.process import now
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.errors import ExitCode, OutputError
from cxrsr_cli.networks.config import Agreement
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from cxrsr_cli.verify.findings import Aspect, ClaimStatus
from cxrsr_cli.verify.recompute import CLAIM as RECOMPUTATION
from cxrsr_cli.verify.recompute import Recomputation
from cxrsr_cli.verify.run import (
    SCHEMA,
    Auditor,
    AuditReport,
    AuditStatus,
    Pair,
    exit_code,
    json_schema,
    pair_files,
    pair_files_of_report,
)
from cxrsr_cli.verify.verify import VerificationReport, verify
from tests.conftest import EXAMPLE, ROOT, Command

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
    return {(each.aspect, each.detail) for each in verification.findings if each.fails}


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


def paint_padding(dataset: pydicom.Dataset) -> None:
    pixels = dataset.pixel_array.copy()
    pixels[0, 0] = 7
    dataset.PixelData = pixels.tobytes()


@pytest.mark.parametrize(
    ("change", "aspect", "names"),
    [
        (lambda ds: setattr(ds[0x6000, 0x0010], "value", 256), Aspect.HEADER, "OverlayRows"),
        (lambda ds: setattr(ds[0x6000, 0x3000], "value", b"\xaa" * 32768),
         Aspect.HEADER, "OverlayData"),
        (paint_padding, Aspect.PHOTOMETRY, "1 pixels"),
    ],
)  # fmt: skip
def test_a_changed_overlay_or_padding_is_found(
    pair: tuple[Path, Path], tmp_path: Path, change: Change, aspect: Aspect, names: str
) -> None:
    assert any(
        one is aspect and names in detail
        for one, detail in broken(tampered(pair, change, tmp_path))
    )


def test_what_was_not_checked_is_said_with_its_reason(pair: tuple[Path, Path]) -> None:
    (finding,) = [each for each in verify(*pair).findings if each.status is ClaimStatus.NOT_CHECKED]
    assert (finding.claim, finding.detail) == (RECOMPUTATION, "use --recompute to check it")


def test_an_output_without_agreement_has_no_checked_pixels(
    tiny_model: Path, tmp_path: Path
) -> None:
    options = UpscaleOptions(scale=2, device="cpu", agreement=Agreement.NONE)
    upscaler = Upscaler.load(find_model(str(tiny_model), 2), options)
    upscaler.upscale_file(EXAMPLE, tmp_path / "out.dcm")
    findings = verify(EXAMPLE, tmp_path / "out.dcm").findings
    statuses = {each.status for each in findings if each.aspect is Aspect.PIXELS}
    assert statuses == {ClaimStatus.NOT_CHECKED}
    assert not any(each.fails for each in findings)
    assert not verify(EXAMPLE, tmp_path / "out.dcm", agreement=Agreement.EXACT).holds


def test_recomputation_needs_the_weights_that_the_object_names(
    pair: tuple[Path, Path], tiny_model: Path
) -> None:
    unknown = verify(*pair, recomputation=Recomputation()).findings[-1]
    assert unknown.status is ClaimStatus.NOT_CHECKED
    assert "--model" in unknown.detail
    known = verify(*pair, recomputation=Recomputation((tiny_model,))).findings[-1]
    assert (known.status, known.detail) == (ClaimStatus.HOLDS, "bit for bit")
    (audit,) = Auditor(recomputation=Recomputation()).run([Pair(*pair)])
    assert audit.status is AuditStatus.NOT_CHECKED
    assert exit_code([audit]) is ExitCode.ALL_FAILED


@pytest.mark.parametrize(
    ("positions", "holds"),
    [((slice(0, None, 5), slice(0, None, 7)), True), ((slice(40, 52), slice(40, 52)), False)],
)
def test_recomputation_takes_scattered_roundings_but_no_changed_place(
    pair: tuple[Path, Path],
    tiny_model: Path,
    tmp_path: Path,
    positions: tuple[slice, slice],
    holds: bool,
) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        pixels = dataset.pixel_array.copy()
        pixels[positions] += pixels[positions] > 1  # not the padding
        dataset.PixelData = pixels.tobytes()

    dataset = pydicom.dcmread(pair[1])
    change(dataset)
    dataset.save_as(tmp_path / "changed.dcm")
    recomputation = Recomputation((tiny_model,))
    findings = verify(pair[0], tmp_path / "changed.dcm", recomputation=recomputation).findings
    assert findings[-1].fails != holds


def test_a_place_that_fails_is_drawn(pair: tuple[Path, Path], tmp_path: Path) -> None:
    dataset = pydicom.dcmread(pair[1])
    pixels = dataset.pixel_array.copy()
    pixels[100:130, 200:230] += 600
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(tmp_path / "painted.dcm")
    report = verify(pair[0], tmp_path / "painted.dcm", map_file=tmp_path / "map.png")
    places = [each.place for each in report.findings if each.fails and each.place]
    assert all(50 < place.row <= 66 and 100 < place.column <= 116 for place in places)
    row, _ = places[0].millimetres or (0, 0)
    assert row == pytest.approx((places[0].row - 0.5) * float(dataset.PixelSpacing[0]) * 2)
    drawn = np.asarray(Image.open(tmp_path / "map.png"))
    assert drawn.shape == (256, 256, 3)
    assert tuple(drawn[57, 107]) == (255, 0, 0)
    assert len({*drawn[200, 50]}) == 1


@pytest.mark.parametrize("target", [0, 1])
def test_a_map_replaces_no_image(pair: tuple[Path, Path], target: int) -> None:
    before = pair[target].read_bytes()
    with pytest.raises(OutputError, match="not a PNG"):
        verify(*pair, map_file=pair[target])
    assert pair[target].read_bytes() == before


def test_no_map_is_promised_where_nothing_bounds_deviations(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="no map"):
        verify(*pair, agreement=Agreement.NONE, map_file=tmp_path / "map.png")
    assert not (tmp_path / "map.png").exists()


def test_folders_and_reports_are_verified_with_one_report(
    upscaler: Upscaler, inputs: Path, tmp_path: Path
) -> None:
    """One output is damaged, one is of another source, one has none; the others hold."""
    out = tmp_path / "out"
    jobs = [Job(path, out / path.name) for path in sorted(inputs.iterdir())]
    results = list(BatchRunner(LocalExecutor(upscaler)).run(jobs))
    run = BatchRun(upscaler.parameters, jobs, results, now(), now(), ExitCode.OK, peak_rss_bytes=0)
    write_report(build_report(run), tmp_path / "run.json")
    (out / "notes.txt").write_text("no image")
    (out / "0.dcm").write_bytes((out / "0.dcm").read_bytes()[:400])
    shutil.copy(out / "2.dcm", out / "1.dcm")
    shutil.copy(out / "2.dcm", out / "extra.dcm")
    started = now()
    audits = list(Auditor(workers=2).run(pair_files(inputs, out)))
    statuses = {Path(audit.output).name: audit.status for audit in audits}
    assert statuses == {
        "0.dcm": AuditStatus.ERROR, "1.dcm": AuditStatus.FAILS, "2.dcm": AuditStatus.HOLDS,
        "3.dcm": AuditStatus.HOLDS, "4.dcm": AuditStatus.HOLDS, "5.dcm": AuditStatus.HOLDS,
        "extra.dcm": AuditStatus.ERROR,
    }  # fmt: skip
    report = AuditReport.of(audits, started).to_dict()
    assert (report["schema"], report["exit_code"]) == (SCHEMA, ExitCode.VERIFICATION)
    assert report["counts"] == {"holds": 4, "fails": 1, "not checked": 0, "error": 2}
    assert json.loads(json.dumps(report)) == report
    assert exit_code([each for each in audits if each.status is not AuditStatus.FAILS]) == (
        ExitCode.SOME_FAILED
    )
    listed = list(Auditor().run(pair_files_of_report(tmp_path / "run.json")))
    assert {Path(audit.output).name: audit.status for audit in listed} == {
        name: status for name, status in statuses.items() if name != "extra.dcm"
    }
    assert "SHA-256" in next(each.claim for each in listed[2].findings)


def test_the_published_schema_is_that_of_the_report() -> None:
    page = ROOT / "docs" / "verification.schema.json"
    assert json.loads(page.read_text(encoding="utf-8")) == json_schema()


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
        (["{0}", "{1}"], ExitCode.OK, "not checked"),
        (["--quiet", "{0}", "{1}"], ExitCode.OK, ""),
        (["{1}", "{1}"], ExitCode.VERIFICATION, "2, 4 or 8 times as large"),
        (["{0}", "none"], ExitCode.ALL_FAILED, "No such file"),
        (["{0}", "{2}"], ExitCode.ALL_FAILED, "no Pixel Data"),
        (["--json", "{1}", "{1}"], ExitCode.VERIFICATION, '"VerificationError"'),
        (["--map", "{0}", "{0}", "{1}"], ExitCode.CANNOT_WRITE, "not a PNG file"),
        (["{0}"], ExitCode.USAGE, "--from-report"),
        (["--from-report", "{0}"], ExitCode.USAGE, "not a report of cxrsr upscale"),
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


def test_the_command_writes_json_and_a_report(
    cxrsr: Command, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    done = cxrsr("verify", "--json", "--report", tmp_path / "audit.json", *pair)
    facts = json.loads(done.stdout)
    assert facts == json.loads((tmp_path / "audit.json").read_text())
    assert facts["schema"] == SCHEMA
    (file,) = facts["files"]
    assert file["status"] == "holds"
    assert file["deviation"]["beyond"] == 0
    assert file["lr_psnr"] > 45
    assert len(file["noise"]) == 1
    assert {finding["status"] for finding in file["findings"]} == {"holds", "not checked"}
