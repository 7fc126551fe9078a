"""The references of the benchmarks do the same work, and the benchmarks measure all of it."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import reference_tiled
from benchmarks.archive_estimate import Archive, Needs, breaks_first, limits, most_files
from benchmarks.conv_ceiling import _RUNS, ceiling_seconds
from benchmarks.file_costs import PAGE, Costs
from benchmarks.precision import compare
from benchmarks.synthetic_radiographs import mosaic, write
from benchmarks.timing import Budget, clock
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.config import Agreement, Precision
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler


def load_predictor(scale: int, precision: Precision = Precision.FP32) -> Predictor:
    return Predictor.load(find_model("rir-s", scale).path, device="cpu", precision=precision)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_tiled_reference_has_the_same_output(
    scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_tiled, "TILE", 48)
    low = mosaic(1024, 1024)[200:280, 500:600].astype(np.int32)
    of = replace(load_predictor(scale), agreement=Agreement.EXACT)
    quick = of.upscale(low, PixelRange(0, 4095))
    assert np.abs(quick - reference_tiled.upscale(of.network, low, PixelRange(0, 4095))).max() <= 1


def test_a_synthetic_radiograph_is_the_radiograph_and_its_mirror_image(tmp_path: Path) -> None:
    values = mosaic(1500, 700)
    assert np.array_equal(values[1024:], values[1023:547:-1])
    assert np.array_equal(decode(read_source(write(tmp_path / "a.dcm", 1500, 700)))[0], values)


def test_the_parts_of_the_budget_are_within_the_total_time(tmp_path: Path) -> None:
    upscaler = Upscaler.load(find_model("rir-s", 2), UpscaleOptions(device="cpu"))
    job = Job(write(tmp_path / "in.dcm", 64, 64), tmp_path / "out.dcm")
    budget, seconds = clock(Budget.of, upscaler, job)
    assert budget.total <= seconds
    assert min(budget.parts) > 0
    assert job.target.exists()


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_convolution_limit_counts_every_convolution(
    repeats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a second per convolution, the limit is the number of convolutions of all strips."""
    monkeypatch.setitem(_RUNS, "cpu", (2, repeats))
    seconds = iter(range(0, 10**6, repeats))
    monkeypatch.setattr(time, "perf_counter", lambda: next(seconds))
    program = load_predictor(4).program
    assert program
    filters = sum(bool(branch.conv) for layer in program.layers for branch in layer.branches)
    assert ceiling_seconds(program, 64, 64, 32) == 2 * filters


@pytest.mark.slow
def test_precisions_are_compared_with_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.precision.ROUNDS", 1)
    kinds = (Precision.FP32, Precision.BF16)
    exact, half = compare(
        {each: load_predictor(2, each) for each in kinds}, dict.fromkeys(kinds, 1.0), 64
    )
    assert exact[6:] == ["1.00", "0.000", "0", "0.00 %"]
    assert 0 < float(half[7]) < 1


COSTS = Costs(
    core_seconds_per_megapixel_x2=3.6,
    core_seconds_per_megapixel_x4=7.2,
    jpegls_x2=0.25,
    jpegls_x4=0.5,
    jpegls_in=0.125,
    tasks_per_second=100.0,
    ledger_files_per_second=50.0,
    ledger_bytes=300.0,
    report_bytes=256.0,
    client_bytes=512.0,
)


def test_the_needs_of_an_archive_are_computed_from_the_costs() -> None:
    archive = Archive(images=8.64e6, megapixels=2, days=1, gpu_teraflops=1, memory_gib=1)
    needs = Needs.of(archive, COSTS, 4)
    assert needs.core_hours == pytest.approx(8.64e6 * 2 * 7.2 / 3600)
    assert needs.cores == pytest.approx(needs.core_hours / 24)
    assert needs.gpu_hours == pytest.approx(2 * 166_753 * 8.64e6 * 2e6 / 1e12 / 3600)
    assert needs.bytes_out == 16 * needs.bytes_in == 16 * 2 * 8.64e6 * 2e6
    assert (needs.packed_in, needs.packed_out) == (needs.bytes_in / 8, needs.bytes_out / 2)
    worst, next_worst = limits(archive, COSTS)
    assert worst.name == "ledger on this machine's disk"
    assert worst.days == pytest.approx(2)
    assert next_worst.days == pytest.approx(1)
    assert most_files(archive, COSTS) == 2**30 / 1024
    assert "memory breaks first" in breaks_first(archive, COSTS)
    assert "disk limits it" in breaks_first(replace(archive, images=1e6), COSTS)


def test_the_costs_are_read_from_the_page() -> None:
    costs = Costs.read(PAGE.read_text(encoding="utf-8"))
    assert 0 < costs.jpegls_x4 < costs.jpegls_in < 1
    assert costs.core_seconds_per_megapixel_x2 > 0
