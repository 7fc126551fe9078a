"""Standard input and output, and the scale that is chosen for each file, by the command."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import BasicTextSRStorage
from typer.testing import CliRunner, Result

from cxrsr_cli.commands.app import app
from cxrsr_cli.commands.pipes import open_pipes
from cxrsr_cli.errors import CxrsrError, ExitCode, UsageError
from tests.conftest import small_chest


def upscale(model: Path, *arguments: object, given: bytes = b"") -> Result:
    """Run the command at x2 in this process."""
    options = ["upscale", "-m", str(model), "-s", "2"]
    return CliRunner().invoke(app, [*options, *map(str, arguments)], input=given)


def encoded() -> bytes:
    file = io.BytesIO()
    small_chest().save_as(file)
    return file.getvalue()


def test_a_file_goes_through_a_pipe(tiny_model: Path) -> None:
    done = upscale(tiny_model, "-", "-", given=encoded())
    assert done.exit_code == ExitCode.OK, done.output
    made = pydicom.dcmread(io.BytesIO(done.stdout_bytes))
    assert (made.Rows, made.Columns) == (48, 40)
    assert "1 upscaled" in done.stderr


def test_the_format_of_a_pipe_is_the_inputs_or_that_of_the_suffix(tiny_model: Path) -> None:
    picture, values = io.BytesIO(), small_chest().pixel_array
    Image.fromarray(values).save(picture, "PNG")
    png = upscale(tiny_model, "-", "-", given=picture.getvalue()).stdout_bytes
    assert Image.open(io.BytesIO(png)).size == (40, 48)
    npy = upscale(tiny_model, "-", "-", "--suffix", ".npy", given=encoded()).stdout_bytes
    assert np.load(io.BytesIO(npy)).shape == (48, 40)


def test_either_end_may_be_a_file(tiny_model: Path, tmp_path: Path) -> None:
    done = upscale(tiny_model, "-", tmp_path / "out.png", given=encoded())
    assert done.exit_code == ExitCode.OK, done.output
    assert done.stdout.startswith("1 upscaled")
    (tmp_path / "in.dcm").write_bytes(encoded())
    done = upscale(tiny_model, tmp_path / "in.dcm", "-")
    assert pydicom.dcmread(io.BytesIO(done.stdout_bytes)).Rows == 48
    assert {path.name for path in tmp_path.iterdir()} == {"in.dcm", "out.png", "out.png.json"}


def test_a_failure_writes_nothing_to_the_pipe(tiny_model: Path) -> None:
    done = upscale(tiny_model, "-", "-", given=b"no image")
    assert done.exit_code == ExitCode.ALL_FAILED
    assert done.stdout_bytes == b""


@pytest.mark.parametrize("arguments", [("-", "a.dcm", "-"), ("FOLDER", "-")])
def test_a_pipe_takes_one_file(
    tiny_model: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    given = [tmp_path if argument == "FOLDER" else argument for argument in arguments]
    error = upscale(tiny_model, *given).exception
    assert isinstance(error, CxrsrError)
    assert (error.exit_code, str(error)[:23]) == (ExitCode.USAGE, "- stands for one file; ")


def test_scale_and_target_spacing_exclude_each_other(tiny_model: Path, tmp_path: Path) -> None:
    error = upscale(tiny_model, "--target-spacing", "0.1", tmp_path, tmp_path / "out").exception
    assert isinstance(error, CxrsrError)
    assert error.exit_code == ExitCode.USAGE
    assert "--scale and --target-spacing" in str(error)


@pytest.mark.parametrize("suffix", ["a/b", "_x4.", "\0"])
def test_a_suffix_is_a_part_of_a_file_name(tiny_model: Path, tmp_path: Path, suffix: str) -> None:
    done = upscale(tiny_model, "--suffix", suffix, tmp_path, tmp_path / "out")
    assert done.exit_code == ExitCode.USAGE
    assert "cannot be in a file name" in done.stderr


def test_files_that_are_fine_enough_are_skipped(tiny_model: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for index, spacing in enumerate((0.2, 0.1)):
        small_chest(index, PixelSpacing=[spacing, spacing]).save_as(folder / f"{spacing}.dcm")
    report = tmp_path / "report.json"
    options = ["-m", tiny_model, "--target-spacing", 0.1, "--report", report]
    done = CliRunner().invoke(app, ["upscale", *map(str, [*options, folder, out])])
    assert done.exit_code == ExitCode.OK, done.output
    assert [path.name for path in out.glob("*.dcm")] == ["0.2.dcm"]
    assert json.loads(report.read_text(encoding="utf-8"))["counts"]["skipped"] == 1


def test_each_file_has_its_scale_and_all_are_in_one_report(tmp_path: Path) -> None:
    """Other objects are skipped, and pipes refused, as with one scale for all."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for index, spacing in enumerate((0.2, 0.4)):
        small_chest(index, PixelSpacing=[spacing, spacing]).save_as(folder / f"{spacing}.dcm")
    small_chest(2, BodyPartExamined="HIP", PixelSpacing=[0.2, 0.2]).save_as(folder / "hip.dcm")
    report = small_chest(3, SOPClassUID=BasicTextSRStorage)
    report.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(report, keyword)
    report.save_as(folder / "sr.dcm")
    small_chest(4, PixelSpacing=None, ImagerPixelSpacing=None).save_as(folder / "unknown.dcm")
    os.mkfifo(folder / "pipe")
    options = ["--target-spacing", 0.1, "--report", tmp_path / "r.json", "--quarantine"]
    arguments = [*options, tmp_path / "quarantine", folder, out]
    done = CliRunner().invoke(app, ["upscale", *map(str, arguments)])
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    status = {Path(file["source"]).name: file["status"] for file in told["files"]}
    assert status == {
        "0.2.dcm": "done", "0.4.dcm": "done", "hip.dcm": "skipped", "sr.dcm": "skipped",
        "unknown.dcm": "failed", "pipe": "failed",
    }  # fmt: skip
    assert done.exit_code == ExitCode.SOME_FAILED
    sizes = {path.name: pydicom.dcmread(path).Rows for path in out.glob("*.dcm")}
    assert sizes == {"0.2.dcm": 48, "0.4.dcm": 96}
    assert [told["model"]["name"], *(one["name"] for one in told["further_models"])] == [
        "rir-s-x2", "rir-s-x4",
    ]  # fmt: skip
    assert done.stdout.count("upscaled") == 1, "one summary"
    assert not list((tmp_path / "quarantine").rglob("unknown*"))


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_closed_stream_is_refused(
    tiny_model: Path, tmp_path: Path, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"cxrsr_cli.commands.pipes.sys.{stream}", None)
    with pytest.raises(UsageError, match="is closed"), open_pipes(["-"], "-", ""):
        pass
