"""`cxrsr upscale` as a user runs it: outputs, messages and exit codes."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import XRayRadiofluoroscopicImageStorage

from cxrsr_cli.batch.ledger import LEDGER_NAME
from cxrsr_cli.batch.plan import plan_batch
from cxrsr_cli.batch.result import exit_code
from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.derive.derive import derive
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import ExitCode
from cxrsr_cli.networks.config import Agreement
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.networks.resampling import block_mean
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from cxrsr_cli.verify.verify import verify
from tests.conftest import EXAMPLE, Command, small_chest


def stored(path: Path) -> torch.Tensor:
    """Read stored values as ``(F, 1, H, W)``."""
    return torch.from_numpy(decode(read_source(path)).astype(np.float32))[:, None]


def test_a_file_is_upscaled_into_a_valid_object(
    cxrsr: Command, tmp_path: Path, dciodvfy: Callable[[Path], set[str]]
) -> None:
    output = tmp_path / "new" / "out.dcm"
    before = EXAMPLE.read_bytes()
    done = cxrsr("upscale", "--scale", 4, EXAMPLE, output)
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    assert done.stdout.startswith("1 upscaled, 0 failed")
    assert EXAMPLE.read_bytes() == before
    assert list(output.parent.iterdir()) == [output]
    assert dciodvfy(output) <= dciodvfy(EXAMPLE)
    assert stored(output).shape == (1, 1, 1024, 1024)
    assert verify(EXAMPLE, output).holds


CHESTS = [
    "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm",
    "1.3.6.1.4.1.11129.5.5.110503645592756492463169821050252582267888.dcm",
    "966_fixed.dcm",
    "Fake_MONOHR1.dcm",
    "RG1_J2KR.dcm",
]
UNCHANGED = (
    "PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "Modality", "SOPClassUID",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation",
    "WindowCenter", "WindowWidth", "PresentationLUTShape", "RescaleSlope", "RescaleIntercept",
    "StudyTime", "LossyImageCompression", "PatientOrientation",
)  # fmt: skip


def test_a_folder_of_real_chests_is_mirrored(
    cxrsr: Command,
    shared: Path,
    tiny_model: Path,
    tmp_path: Path,
    dciodvfy: Callable[[Path], set[str]],
) -> None:
    """The chests have 8 to 15 bits, both polarities, JPEG and JPEG 2000."""
    sources = tmp_path / "in" / "deep" / "er"
    sources.mkdir(parents=True)
    for name in CHESTS:
        shutil.copy(shared / "dicom" / "chest" / name, sources)
    (tmp_path / "in" / "DICOMDIR").write_bytes(b"not to be processed")
    (tmp_path / "in" / ".hidden").write_bytes(b"neither")
    done = cxrsr("upscale", "-s", 2, "-m", tiny_model, "-v", tmp_path / "in", tmp_path / "out")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "5 upscaled, 0 failed" in done.stdout
    assert done.stderr.count("done:") == 5
    assert "PixelSpacing is not above zero" in done.stderr
    for name in CHESTS:
        source, output = sources / name, tmp_path / "out" / "deep" / "er" / name
        assert dciodvfy(output) <= dciodvfy(source)
        assert verify(source, output).holds
        with quiet_libraries():
            old, new = pydicom.dcmread(source), pydicom.dcmread(output)
            for keyword in UNCHANGED:
                assert new.get(keyword) == old.get(keyword), keyword
        high = stored(output)
        assert high.min() >= PixelFormat.from_dataset(old).minimum
        assert high.max() <= PixelFormat.from_dataset(old).maximum


def bad_inputs(folder: Path) -> dict[str, str]:
    """Write one bad file of each kind; return a part of each message."""

    def variant(name: str, change: Callable[[pydicom.FileDataset], object]) -> None:
        dataset = pydicom.dcmread(EXAMPLE)
        with quiet_libraries():
            change(dataset)
            dataset.save_as(folder / name, implicit_vr=False, little_endian=True)

    raw = EXAMPLE.read_bytes()
    (folder / "text.dcm").write_text("not DICOM at all\n")
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "truncated.dcm").write_bytes(raw[: len(raw) // 2])
    (folder / "header.dcm").write_bytes(raw[:1000])
    variant("no-pixels.dcm", lambda ds: ds.__delattr__("PixelData"))
    variant("colour.dcm", lambda ds: setattr(ds, "SamplesPerPixel", 3))
    variant("syntax.dcm", lambda ds: setattr(ds.file_meta, "TransferSyntaxUID", "1.2.3.4"))
    variant("absurd.dcm", lambda ds: setattr(ds, "Rows", 16000))
    variant("huge.dcm", lambda ds: setattr(ds, "Rows", 65535))
    variant("no-uid.dcm", lambda ds: ds.__delattr__("SOPInstanceUID"))
    return {
        "text.dcm": "not a DICOM file",
        "empty.dcm": "not a DICOM file",
        "truncated.dcm": "truncated",
        "header.dcm": "damaged DICOM: it is cut off",
        "no-pixels.dcm": "no Pixel Data",
        "colour.dcm": "colour",
        "syntax.dcm": "transfer syntax",
        "absurd.dcm": "claim",
        "huge.dcm": "65535",
        "no-uid.dcm": "SOPInstanceUID",
    }


def test_bad_inputs_fail_and_the_others_are_upscaled(cxrsr: Command, tmp_path: Path) -> None:
    """Each gets one line and no output."""
    inputs, outputs = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    expected = bad_inputs(inputs)
    shutil.copy(EXAMPLE, inputs / "good.dcm")
    done = cxrsr("upscale", inputs, outputs)
    assert done.returncode == ExitCode.SOME_FAILED
    assert "Traceback" not in done.stderr
    assert "Example^Chest" not in done.stderr + done.stdout
    assert f"1 upscaled, {len(expected)} failed" in done.stdout
    lines = {
        Path(line.split(": ")[1]).name: line
        for line in done.stderr.splitlines()
        if line.startswith("failed: ")
    }
    assert lines.keys() == expected.keys()
    for name, says in expected.items():
        assert says in lines[name]
    assert {path.name for path in outputs.rglob("*")} == {"good.dcm", LEDGER_NAME}


def test_real_files_that_are_not_chests_fail(cxrsr: Command, shared: Path, tmp_path: Path) -> None:
    files = sorted((shared / "dicom" / "odd").iterdir())
    done = cxrsr("upscale", *files, tmp_path / "out")
    assert done.returncode == ExitCode.ALL_FAILED
    assert done.stderr.count("failed: ") == len(files)
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").rglob("*.dcm"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["{none}", "{out}"], ExitCode.NO_INPUT, "no file or folder"),
        (["{emptydir}", "{out}"], ExitCode.NO_INPUT, "no file to upscale"),
        (["{in}", "{in}"], ExitCode.CANNOT_WRITE, "same file"),
        (["{in}", "{link}"], ExitCode.CANNOT_WRITE, "same file"),
        (["{in}", "{taken}"], ExitCode.CANNOT_WRITE, "--overwrite"),
        (["{in}", "{taken}/out.dcm"], ExitCode.CANNOT_WRITE, "cannot write"),
        (["{dir}", "{dir}"], ExitCode.CANNOT_WRITE, "same folder"),
        (["{dir}", "{taken}"], ExitCode.CANNOT_WRITE, "is a file"),
        (["{in}", "{out}", "--model", "nobody"], ExitCode.MODEL, "no model 'nobody'"),
        (["{in}", "{out}", "--model", "{in}"], ExitCode.MODEL, "damaged"),
        (["{in}", "{out}", "--scale", "3"], ExitCode.USAGE, "3 is not one of 2, 4, 8"),
        (["{in}", "{out}", "--device", "tpu"], ExitCode.USAGE, "no device 'tpu'"),
        (["{in}", "{out}", "--device", "cuda:99"], ExitCode.USAGE, "no device 'cuda:99'"),
        (["{in}", "{out}", "--precision", "int8"], ExitCode.USAGE, "int8"),
        (["{in}", "{out}", "--device", "cpu", "--precision", "fp16"], ExitCode.USAGE, "fp16"),
        (["{in}", "{out}", "-v", "-q"], ExitCode.USAGE, "exclude"),
        (["{in}"], ExitCode.USAGE, "OUTPUT"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_are_refused_and_nothing_is_written(
    cxrsr: Command, tmp_path: Path, arguments: list[str], code: ExitCode, says: str
) -> None:
    folder = tmp_path / "dir"
    folder.mkdir()
    source = folder / "in.dcm"
    shutil.copy(EXAMPLE, source)
    (tmp_path / "emptydir").mkdir()
    (tmp_path / "taken").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(source)
    names = {name: tmp_path / name for name in ("none", "emptydir", "out", "link", "taken", "dir")}
    before = sorted(tmp_path.rglob("*"))
    done = cxrsr("upscale", *(argument.format(**names, **{"in": source}) for argument in arguments))
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert source.read_bytes() == EXAMPLE.read_bytes()
    assert (tmp_path / "taken").read_bytes() == b"precious"


def test_overwrite_replaces_an_output_and_outputs_are_not_upscaled_again(
    cxrsr: Command, tiny_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.dcm"
    output.write_bytes(b"old")
    options = ("--scale", 2, "--model", tiny_model)
    assert cxrsr("upscale", *options, "--overwrite", EXAMPLE, output).returncode == ExitCode.OK
    again = cxrsr("upscale", *options, output, tmp_path / "again.dcm")
    assert again.returncode == ExitCode.ALL_FAILED
    assert "output of cxrsr already" in again.stderr


def test_the_same_input_and_options_give_the_same_object(cxrsr: Command, tmp_path: Path) -> None:
    """Less memory means strips, which change rounding and so the UIDs."""
    for name, memory in (("a.dcm", "2GiB"), ("b.dcm", "2048 MiB"), ("c.dcm", "90M")):
        done = cxrsr("upscale", "--device", "cpu", "--memory", memory, EXAMPLE, tmp_path / name)
        assert done.returncode == ExitCode.OK
    one, again, narrow = (pydicom.dcmread(tmp_path / f"{name}.dcm") for name in "abc")
    assert one.SOPInstanceUID == again.SOPInstanceUID
    assert one.PixelData == again.PixelData
    assert one.SOPInstanceUID != narrow.SOPInstanceUID
    difference = one.pixel_array.astype(int) - narrow.pixel_array
    assert abs(difference).max() <= 1


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_an_image_that_needs_more_than_the_memory_limit_is_refused(
    cxrsr: Command, tmp_path: Path, dry: list[str]
) -> None:
    """A dry run refuses it too; the message says how much it needs."""
    output = tmp_path / "out.dcm"
    options = ["--device", "cpu", "--scale", "8", *dry]
    refused = cxrsr("upscale", *options, "--memory", "70M", EXAMPLE, output)
    assert refused.returncode == ExitCode.ALL_FAILED
    assert "256x256 needs" in refused.stderr
    assert "70 MiB that it may take; see --memory" in refused.stderr
    assert not output.exists()
    done = cxrsr("upscale", *options, "--memory", "0.1 GiB", EXAMPLE, output)
    assert done.returncode == ExitCode.OK


def test_the_memory_plan_is_shown_and_reported(
    cxrsr: Command, tiny_model: Path, tmp_path: Path
) -> None:
    options = ["--device", "cpu", "--scale", "2", "--model", tiny_model, "--verbose"]
    report = tmp_path / "report.json"
    done = cxrsr("upscale", *options, "--report", report, EXAMPLE, tmp_path / "out.dcm")
    (told,) = json.loads(report.read_text())["files"]
    assert told["plan"].keys() == {"rows", "overlap", "peak_memory_bytes"}
    assert f"strips of {told['plan']['rows']} rows" in done.stderr


def test_a_folder_that_cannot_be_read_is_reported_as_failed(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "in" / "locked").mkdir(parents=True)
    shutil.copy(EXAMPLE, tmp_path / "in" / "a.dcm")
    real = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    with patch("os.scandir", refuse):
        jobs = plan_batch([tmp_path / "in"], tmp_path / "out").jobs
    assert [job.source.name for job in jobs] == ["a.dcm", "locked"]
    batch = BatchRunner(LocalExecutor(Upscaler.load(find_model(str(tiny_model), 2))))
    results = list(batch.run(jobs))
    assert "cannot read" in str(results[1].error)
    assert exit_code(results) is ExitCode.SOME_FAILED


def test_an_output_path_that_ends_in_a_slash_is_a_folder(
    cxrsr: Command, tiny_model: Path, tmp_path: Path
) -> None:
    done = cxrsr("upscale", "-q", "-s", 2, "-m", tiny_model, EXAMPLE, f"{tmp_path}/new/")
    assert done.returncode == ExitCode.OK
    assert (tmp_path / "new" / EXAMPLE.name).is_file()


def test_quiet_writes_nothing_if_nothing_fails(
    cxrsr: Command, tiny_model: Path, tmp_path: Path
) -> None:
    done = cxrsr("upscale", "-q", "-s", 2, "-m", tiny_model, EXAMPLE, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.OK, "", "")
    assert (tmp_path / EXAMPLE.name).is_file(), "an existing folder takes the file"


def test_a_negative_image_gives_the_negative_output(cxrsr: Command, tmp_path: Path) -> None:
    """MONOCHROME1 changes how values are displayed, not how they are upscaled."""
    dataset = pydicom.dcmread(EXAMPLE)
    negative = 4095 - dataset.pixel_array
    dataset.PixelData = negative.astype("<u2").tobytes()
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.PresentationLUTShape = "INVERSE"
    dataset.save_as(tmp_path / "negative.dcm")
    for source in (EXAMPLE, tmp_path / "negative.dcm"):
        assert cxrsr("upscale", source, tmp_path / f"up-{source.name}").returncode == ExitCode.OK
    positive, back = (stored(tmp_path / f"up-{name}") for name in (EXAMPLE.name, "negative.dcm"))
    assert (4095 - back - positive).abs().max() <= 1


def test_padding_is_kept_and_does_not_change_pixels_beside_it(
    cxrsr: Command, tmp_path: Path
) -> None:
    dataset = pydicom.dcmread(EXAMPLE)
    pixels = np.maximum(dataset.pixel_array, 1)
    pixels[:40] = 0
    pixels[100:110, 50:60] = 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset.add_new("PixelPaddingValue", "US", 0)
    dataset.save_as(tmp_path / "padded.dcm")
    done = cxrsr("upscale", tmp_path / "padded.dcm", tmp_path / "out.dcm")
    assert done.returncode == ExitCode.OK
    output = pydicom.dcmread(tmp_path / "out.dcm").pixel_array
    assert np.array_equal(output == 0, (pixels == 0).repeat(4, 0).repeat(4, 1))
    # The padding must not darken the first image row.
    assert abs(output[160].mean() - output[168].mean()) < 0.05 * output[168].mean()
    assert verify(tmp_path / "padded.dcm", tmp_path / "out.dcm").holds


@pytest.mark.parametrize("limit", [None, 40])
def test_block_means_agree_beside_padding_and_a_steep_edge(
    tiny_model: Path, tmp_path: Path, limit: int | None
) -> None:
    """Values that undershoot an edge must not become padding, nor be moved out of it later."""
    dataset = pydicom.dcmread(EXAMPLE)
    pixels = np.full_like(dataset.pixel_array[:64, :64], 45)
    pixels[:, 32:] = 4095
    pixels[:8] = 0
    dataset.PixelData, dataset.Rows, dataset.Columns = pixels.tobytes(), 64, 64
    dataset.add_new("PixelPaddingValue", "US", 0)
    if limit:
        dataset.add_new("PixelPaddingRangeLimit", "US", limit)
    dataset.save_as(tmp_path / "edge.dcm")
    options = UpscaleOptions(agreement=Agreement.EXACT)
    upscaler = Upscaler.load(find_model(str(tiny_model), 2), options)
    (result,) = BatchRunner(LocalExecutor(upscaler)).run(
        [Job(tmp_path / "edge.dcm", tmp_path / "out.dcm")]
    )
    assert (result.error, result.warnings) == (None, [])
    assert verify(tmp_path / "edge.dcm", tmp_path / "out.dcm", agreement=Agreement.EXACT).holds


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5), (37, 23)])
def test_signed_images_of_small_and_odd_sizes_are_upscaled(
    tiny_model: Path, tmp_path: Path, rows: int, columns: int
) -> None:
    dataset = pydicom.dcmread(EXAMPLE)
    pixels = dataset.pixel_array[:rows, :columns].astype("<i2") // 2 - 2048
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset.Rows, dataset.Columns, dataset.PixelRepresentation = rows, columns, 1
    dataset.save_as(tmp_path / "in.dcm")
    options = UpscaleOptions(agreement=Agreement.EXACT)
    batch = BatchRunner(LocalExecutor(Upscaler.load(find_model(str(tiny_model), 2), options)))
    (result,) = batch.run([Job(tmp_path / "in.dcm", tmp_path / "out.dcm")])
    assert result.error is None
    high, low = stored(tmp_path / "out.dcm"), stored(tmp_path / "in.dcm")
    assert high.shape == (1, 1, 2 * rows, 2 * columns)
    assert low.min() < 0
    assert (block_mean(high, 2) - low).abs().max() <= 0.5


def test_each_frame_is_upscaled(cxrsr: Command, tiny_model: Path, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(EXAMPLE)
    frame = dataset.pixel_array
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = (
        XRayRadiofluoroscopicImageStorage  # CR and DX have one frame
    )
    dataset.NumberOfFrames = 2
    dataset.PixelData = np.stack([frame, frame[::-1]]).tobytes()
    dataset.save_as(tmp_path / "two.dcm")
    # Without the noise: a turned image gets other cells, hence a slightly different estimate.
    options = (
        "--scale", 2, "--model", tiny_model, "--agreement", "exact", "--allow", "modality",
    )  # fmt: skip
    assert cxrsr("upscale", *options, tmp_path / "two.dcm", tmp_path / "out.dcm").returncode == 0
    output = pydicom.dcmread(tmp_path / "out.dcm")
    assert output.NumberOfFrames == 2
    first, second = stored(tmp_path / "out.dcm")
    assert (first.flip(-2) - second).abs().max() <= 1, "equal but for rounding"


def test_an_internal_error_fails_one_file_and_quotes_nothing_of_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    jobs = [Job(EXAMPLE, tmp_path / name) for name in ("a.dcm", "b.dcm", "c.dcm")]
    batch = BatchRunner(LocalExecutor(Upscaler.load(find_model(str(tiny_model), 2))))
    faults = [KeyError("Example^Chest"), MemoryError(), None]
    real = derive

    def sometimes(*arguments: Any, **options: Any) -> object:  # noqa: ANN401
        fault = faults.pop(0)
        if fault:
            raise fault
        return real(*arguments, **options)

    with patch("cxrsr_cli.upscaler.derive", sometimes):
        results = list(batch.run(jobs))
    assert re.match(
        r"internal error: KeyError in upscaler\.py, line \d+; please", str(results[0].error)
    )
    assert "Example^Chest" not in str(results[0].error)
    assert "memory" in str(results[1].error)
    assert results[2].error is None
    assert exit_code(results) is ExitCode.SOME_FAILED
    assert exit_code(results[:1]) is ExitCode.UNEXPECTED
    assert exit_code(results[:2]) is ExitCode.ALL_FAILED


def test_pixels_at_both_ends_of_the_range_agree_exactly(tiny_model: Path, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(EXAMPLE)
    pixels = dataset.pixel_array.copy()
    pixels[:64:2, :64:2] = 0
    pixels[1:64:2, 1:64:2] = 4095
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(tmp_path / "marked.dcm")
    options = UpscaleOptions(agreement=Agreement.EXACT)
    upscaler = Upscaler.load(find_model(str(tiny_model), 2), options)
    (result,) = BatchRunner(LocalExecutor(upscaler)).run(
        [Job(tmp_path / "marked.dcm", tmp_path / "out.dcm")]
    )
    assert result.error is None
    high, low = stored(tmp_path / "out.dcm"), stored(tmp_path / "marked.dcm")
    assert (block_mean(high, 2) - low).abs().max() <= 0.5


TEXT = ("PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE", "DA", "TM", "DT", "AS", "IS", "DS", "UR")


def poison(dataset: pydicom.Dataset, keyword: str, value: object) -> None:
    """Set a value that is invalid for the element."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    assert tag is not None
    dataset[tag] = pydicom.DataElement(tag, "LO", value, validation_mode=0)


@pytest.mark.parametrize(
    "keyword",
    ["PixelData", "BodyPartExamined", "Modality", "ImagerPixelSpacing", "NumberOfFrames",
     "Rows", "Columns", "PixelPaddingValue", "StudyID"],
)  # fmt: skip
def test_no_value_of_the_header_is_written_to_a_log(
    cxrsr: Command, tiny_model: Path, tmp_path: Path, keyword: str
) -> None:
    """Pydicom quotes invalid values in its warnings. Only the body part is told when refused."""
    source, target = tmp_path / "in" / "a.dcm", tmp_path / "out" / "a.dcm"
    source.parent.mkdir()
    with quiet_libraries():
        dataset = small_chest()
        for element in list(dataset):
            if element.VR in TEXT and not element.keyword.startswith("Window"):
                poison(dataset, element.keyword, "POISON" * 20)
        poison(dataset, "SpecificCharacterSet", "POISON")
        poison(dataset, keyword, "POISON")
        dataset.save_as(source)
    assert source.read_bytes().count(b"POISON") > 100
    options = ["-v", "-s", 2, "-m", tiny_model, "--quarantine", tmp_path / "quarantine"]
    options += ["--report", tmp_path / "run.json", *(["--log-json"] if keyword < "P" else [])]
    done = cxrsr("upscale", *options, source.parent, target.parent)
    said = [done.stdout, done.stderr]
    assert done.returncode in (ExitCode.OK, ExitCode.NO_INPUT, ExitCode.ALL_FAILED), done.stderr
    assert (done.returncode == ExitCode.OK) == target.is_file()
    if target.is_file():
        audit = cxrsr("verify", source, target)
        said += [audit.stdout, audit.stderr]
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "a.dcm"]
    assert {tmp_path / "run.json"} < set(written), "and the ledger or a reason"
    said += [path.read_text("latin-1") for path in written]
    said = [text.replace("stated body part 'POISON'", "") for text in said]
    assert not any("POISON" in text for text in said)
    assert not any("Traceback" in text for text in said)
