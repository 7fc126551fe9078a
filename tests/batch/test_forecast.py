"""What would fail late is refused before the network runs; a dry run foretells time and space."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import FileDataset
from pydicom.tag import Tag

from cxrsr_cli.batch.result import FileStatus, Result
from cxrsr_cli.batch.runner import BatchRunner, JobStages, LocalExecutor
from cxrsr_cli.derive.overlays import overlay_memory
from cxrsr_cli.errors import OutputError
from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import small_chest


def run(upscaler: Upscaler, folder: Path, *, dry_run: bool = False) -> Result:
    batch = BatchRunner(LocalExecutor(upscaler), dry_run=dry_run)
    (result,) = batch.run([Job(folder / "in.dcm", folder / f"out-{dry_run}.dcm")])
    return result


def test_time_and_bytes_are_foretold(upscaler: Upscaler, tmp_path: Path) -> None:
    small_chest().save_as(tmp_path / "in.dcm")
    foretold, done = run(upscaler, tmp_path, dry_run=True), run(upscaler, tmp_path)
    assert (foretold.status, done.status) == (FileStatus.DRY_RUN, FileStatus.DONE)
    assert foretold.forecast
    assert foretold.forecast.output_bytes == 48 * 40 * 2
    assert foretold.forecast.seconds > 0
    assert foretold.warnings == done.warnings


def with_spacing(value: str) -> FileDataset:
    dataset, tag = small_chest(), Tag("ImagerPixelSpacing")
    dataset[tag] = DataElement(tag, "LO", value)
    return dataset


def with_overlay(rows: int, columns: int) -> FileDataset:
    dataset = small_chest()
    for element, vr, value in (
        (0x0010, "US", rows), (0x0011, "US", columns), (0x0040, "CS", "G"),
        (0x0050, "SS", [1, 1]), (0x0100, "US", 1), (0x0102, "US", 0),
        (0x3000, "OW", bytes(-(-rows * columns // 16) * 2)),
    ):  # fmt: skip
        dataset.add_new((0x6000, element), vr, value)
    return dataset


def test_what_the_derivation_refuses_is_refused_before_the_network_runs(
    upscaler: Upscaler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_spacing("N/A").save_as(tmp_path / "in.dcm")
    monkeypatch.setattr(JobStages, "upscale", lambda *_: pytest.fail("the network ran"))
    foretold, failed = run(upscaler, tmp_path, dry_run=True), run(upscaler, tmp_path)
    assert (foretold.status, failed.status) == (FileStatus.FAILED, FileStatus.FAILED)
    assert str(foretold.error) == str(failed.error)
    assert "ImagerPixelSpacing" in str(failed.error)


def test_what_the_derivation_drops_is_foretold(upscaler: Upscaler, tmp_path: Path) -> None:
    """An overlay far larger than the image would take memory and space without end."""
    with_overlay(4000, 4000).save_as(tmp_path / "in.dcm")
    foretold, done = run(upscaler, tmp_path, dry_run=True), run(upscaler, tmp_path)
    assert done.status is FileStatus.DONE
    assert foretold.warnings == done.warnings
    assert "an overlay was dropped: it is far larger than the image" in done.warnings
    assert done.job.target.stat().st_size < 50_000


def test_overlays_count_as_memory() -> None:
    """A byte for each bit of one plane, and the upscaled bits twice."""
    assert overlay_memory(small_chest(), 2) == 0
    assert overlay_memory(with_overlay(48, 40), 2) == 1920 + 2 * 1920 * 4 // 8
    assert overlay_memory(with_overlay(4000, 4000), 2) == 0, "it is dropped"


@pytest.mark.parametrize("dry_run", [False, True], ids=["run", "dry run"])
def test_too_little_space_is_found_before_the_network_runs(
    upscaler: Upscaler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    small_chest().save_as(tmp_path / "in.dcm")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10**6, free=1000))
    monkeypatch.setattr(JobStages, "upscale", lambda *_: pytest.fail("the network ran"))
    result = run(upscaler, tmp_path, dry_run=dry_run)
    assert isinstance(result.error, OutputError)
    assert "No space left on device" in str(result.error)
