"""Pictures on their way through `upscale`: by suffix, with their provenance beside them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from cxrsr_cli.batch.discover import NameFilter
from cxrsr_cli.batch.ledger import LEDGER_NAME, Ledger
from cxrsr_cli.batch.plan import _reject_conflicts, add_suffix, plan_batch
from cxrsr_cli.batch.result import FileStatus, Result
from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.errors import OutOfScopeError, OutputError, UsageError
from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import small_chest


def upscaled(upscaler: Upscaler, *paths: Path, **more: object) -> list[Result]:
    """Plan and run; the last path is the output."""
    plan = plan_batch(paths[:-1], paths[-1], **more)  # type: ignore[arg-type] # any of its options
    return list(BatchRunner(LocalExecutor(upscaler, 0)).run(plan.jobs))


def provenance(picture: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(Path(f"{picture}.json").read_text())
    return read


def test_a_picture_has_the_stored_values_of_the_object(upscaler: Upscaler, tmp_path: Path) -> None:
    small_chest(PhotometricInterpretation="MONOCHROME1", PixelSpacing=[0.2, 0.1]).save_as(
        tmp_path / "a.dcm"
    )
    for name in ("x.dcm", "x.png", "x.tif", "x.npy"):
        (result,) = upscaled(upscaler, tmp_path / "a.dcm", tmp_path / name)
        assert result.status is FileStatus.DONE, result.error
    object_, png = pydicom.dcmread(tmp_path / "x.dcm"), Image.open(tmp_path / "x.png")
    for values in (png, Image.open(tmp_path / "x.tif"), np.load(tmp_path / "x.npy")):
        assert np.array_equal(np.asarray(values), object_.pixel_array)
    assert png.info["dpi"] == pytest.approx((25.4 / 0.05, 25.4 / 0.1), rel=1e-3)
    stated = provenance(tmp_path / "x.png")
    assert stated["schema"] == "cxrsr-picture/1"
    assert stated["picture"] == {
        "format": "PNG",
        "sha256": result.output_sha256 and stated["picture"]["sha256"],
        "rows": 48,
        "columns": 40,
        "values": "stored",
        "window": None,
        "bits": 12,
        "minimum": 0,
        "maximum": 4095,
        "larger_is_darker": True,
        "spacing_mm": [0.1, 0.05],
        "spacing_attribute": "PixelSpacing",
    }
    assert stated["source"]["format"] == "DICOM"
    assert str(pydicom.dcmread(tmp_path / "a.dcm").PatientName) not in str(stated)


def test_a_windowed_picture_is_what_a_screen_shows(upscaler: Upscaler, tmp_path: Path) -> None:
    shown = replace(upscaler, options=replace(upscaler.options, windowed=True))
    window: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 1024}
    window["VOILUTFunction"] = "LINEAR_EXACT"
    small_chest(**window).save_as(tmp_path / "a.dcm")
    small_chest(**window, PhotometricInterpretation="MONOCHROME1").save_as(tmp_path / "b.dcm")
    for name in "ab":
        upscaled(upscaler, tmp_path / f"{name}.dcm", tmp_path / f"{name}-stored.png")
        (result,) = upscaled(shown, tmp_path / f"{name}.dcm", tmp_path / f"{name}.png")
        assert result.status is FileStatus.DONE, result.error
        stored = np.asarray(Image.open(tmp_path / f"{name}-stored.png")).astype(float)
        wanted = ((stored - 1536) / 1024).clip(0, 1) * 255
        if name == "b":
            wanted = 255 - wanted
        picture = np.asarray(Image.open(tmp_path / f"{name}.png"))
        assert picture.dtype == np.uint8
        assert np.abs(picture - wanted).max() <= 1
        stated = provenance(tmp_path / f"{name}.png")["picture"]
        assert (stated["values"], stated["bits"], stated["larger_is_darker"]) == (
            "windowed", 8, False,
        )  # fmt: skip
        assert stated["window"] == {"name": "Window of the object", "low": 1536, "high": 2560}


def test_a_picture_makes_a_picture_as_the_array_does(upscaler: Upscaler, tmp_path: Path) -> None:
    values = small_chest().pixel_array
    Image.fromarray(values).save(tmp_path / "a.png", dpi=(254, 254))
    twelve = replace(upscaler, options=replace(upscaler.options, bits=12))
    (result,) = upscaled(twelve, tmp_path / "a.png", tmp_path / "out.png")
    assert (result.status, result.warnings) == (FileStatus.DONE, [])
    made = Image.open(tmp_path / "out.png")
    expected = upscaler.upscale_array(values, minimum=0, maximum=4095)
    assert np.array_equal(np.asarray(made), expected)
    assert made.info["dpi"] == pytest.approx((508, 508), rel=1e-3)
    assert provenance(tmp_path / "out.png")["picture"]["spacing_attribute"] is None


@pytest.mark.parametrize(
    ("name", "says"),
    [("out.dcm", "a picture has no patient"), ("out.jpg", "JPEG is lossy")],
)
def test_outputs_that_cannot_be_made_fail_and_leave_nothing(
    upscaler: Upscaler, tmp_path: Path, name: str, says: str
) -> None:
    Image.fromarray(small_chest().pixel_array).save(tmp_path / "a.png")
    (result,) = upscaled(upscaler, tmp_path / "a.png", tmp_path / name)
    assert isinstance(result.error, OutputError)
    assert says in str(result.error)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_file_of_others_beside_the_picture_is_kept(upscaler: Upscaler, tmp_path: Path) -> None:
    small_chest().save_as(tmp_path / "a.dcm")
    beside = tmp_path / "out.png.json"
    beside.write_text('{"mine": 1}')
    forced = replace(upscaler, options=replace(upscaler.options, overwrite=True))
    for each in (upscaler, forced):
        (result,) = upscaled(each, tmp_path / "a.dcm", tmp_path / "out.png")
        assert "out.png.json exists" in str(result.error)
        assert beside.read_text() == '{"mine": 1}'
        assert not (tmp_path / "out.png").exists()


def test_the_json_of_a_picture_never_replaces_a_source(tmp_path: Path) -> None:
    sources = [tmp_path / "in" / name for name in ("s.png.json", "s.dcm")]
    sources[0].parent.mkdir()
    for index, path in enumerate(sources):
        small_chest(index).save_as(path)
    jobs = [Job(sources[0], tmp_path / "in" / "s.png"), Job(sources[1], tmp_path / "t.dcm")]
    refused, other = _reject_conflicts(jobs)
    assert "a source is never overwritten" in str(refused.error)
    assert other.error is None


def test_a_picture_without_its_json_is_not_up_to_date(upscaler: Upscaler, inputs: Path) -> None:
    out = inputs.parent / "out"
    for _ in range(2):
        ledger = Ledger(out / LEDGER_NAME)
        plan = plan_batch([inputs], out, suffix=".png")
        runner = BatchRunner(LocalExecutor(upscaler), ledger)
        results = {result.job.target.name: result for result in runner.run(plan.jobs)}
        ledger.close()
        (out / "0.png.json").unlink(missing_ok=True)
    assert "0.png.json is missing" in str(results["0.png"].error)
    assert results["1.png"].status is FileStatus.UP_TO_DATE


def test_a_dicom_file_named_as_a_picture_is_refused(upscaler: Upscaler, tmp_path: Path) -> None:
    small_chest().save_as(tmp_path / "a.png")
    (result,) = upscaled(upscaler, tmp_path / "a.png", tmp_path / "out.png")
    assert "rename it to .dcm" in str(result.error)


def test_pictures_of_a_folder_are_taken_only_if_they_are_included(
    upscaler: Upscaler, inputs: Path, tmp_path: Path
) -> None:
    Image.fromarray(small_chest().pixel_array).save(inputs / "preview.png")
    results = upscaled(upscaler, inputs, tmp_path / "out")
    (skipped,) = (result for result in results if result.status is not FileStatus.DONE)
    assert skipped.status is FileStatus.SKIPPED
    assert isinstance(skipped.error, OutOfScopeError)
    assert "--include '*.png'" in str(skipped.error)
    (taken,) = upscaled(upscaler, inputs, tmp_path / "out", filters=NameFilter(["*.png"]))
    assert taken.status is FileStatus.DONE
    assert {path.name for path in (tmp_path / "out").glob("preview*")} == {
        "preview.png", "preview.png.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "suffix", "result"),
    [
        ("a.dcm", "_x4", "a_x4.dcm"),
        ("a.dcm", ".png", "a.png"),
        ("a.dcm", "_x4.png", "a_x4.png"),
        ("1.2.840.1", "_x4", "1.2.840.1_x4"),
        ("1.2.840.1", ".png", "1.2.840.1.png"),
        ("a", ".tif", "a.tif"),
        ("a.dcm", "", "a.dcm"),
    ],
)
def test_a_suffix_is_added_to_names(name: str, suffix: str, result: str) -> None:
    assert add_suffix(Path("folder") / name, suffix) == Path("folder") / result


def test_a_suffix_makes_pictures_of_a_folder(
    upscaler: Upscaler, inputs: Path, tmp_path: Path
) -> None:
    results = upscaled(upscaler, inputs, tmp_path / "out", suffix="_x2.png")
    assert {result.status for result in results} == {FileStatus.DONE}
    assert (tmp_path / "out" / "0_x2.png").exists()
    with pytest.raises(UsageError, match="--suffix is for outputs in a folder"):
        plan_batch([inputs / "0.dcm"], tmp_path / "a.dcm", suffix="_x2")
