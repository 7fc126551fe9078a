"""What the benchmarks measure against is the same work, and they measure all of it."""

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import plain
from benchmarks.ceiling import ceiling_seconds
from benchmarks.precision import compare
from benchmarks.radiographs import mosaic, write
from benchmarks.timing import Budget, clock
from cxrsr_cli.job import Job
from cxrsr_cli.read.dataset import read_source
from cxrsr_cli.read.pixels import decode
from cxrsr_cli.restore.precision import Precision
from cxrsr_cli.restore.registry import find_model
from cxrsr_cli.restore.restorer import Restorer
from cxrsr_cli.upscale import Upscaler


def restorer(scale: int, precision: Precision = Precision.FP32) -> Restorer:
    return Restorer.load(find_model("rir-s", scale).path, device="cpu", precision=precision)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_plain_implementation_does_the_same(
    scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "TILE", 48)
    low = mosaic(1024, 1024)[200:280, 500:600].astype(np.int32)
    of = restorer(scale)
    quick = of.restore(low, minimum=0, maximum=4095)
    assert np.abs(quick - plain.restore(of.network, low, minimum=0, maximum=4095)).max() <= 1


def test_a_mosaic_is_the_radiograph_and_its_mirror_image(tmp_path: Path) -> None:
    values = mosaic(1500, 700)
    assert np.array_equal(values[1024:], values[1023:547:-1])
    assert np.array_equal(decode(read_source(write(tmp_path / "a.dcm", 1500, 700)))[0], values)


def test_the_budget_is_all_of_the_time(tmp_path: Path) -> None:
    upscaler = Upscaler(restorer(2), find_model("rir-s", 2))
    job = Job(write(tmp_path / "in.dcm", 64, 64), tmp_path / "out.dcm")
    budget, seconds = clock(Budget.of, upscaler, job)
    assert budget.total <= seconds
    assert min(budget.parts) > 0
    assert job.target.exists()


def test_the_ceiling_counts_every_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """With convolutions that take a second each, as many seconds as there are strips of each."""
    seconds = iter(range(10**6))
    monkeypatch.setattr(time, "perf_counter", lambda: next(seconds))
    program = restorer(4).program
    assert program
    filters = sum(bool(term.filter) for layer in program.layers for term in layer.terms)
    assert ceiling_seconds(program, 64, 64, 32) == 2 * filters


def test_precisions_are_compared_with_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.precision.ROUNDS", 1)
    kinds = (Precision.FP32, Precision.BF16)
    exact, half = compare(
        {each: restorer(2, each) for each in kinds}, dict.fromkeys(kinds, 1.0), 64
    )
    assert exact[6:] == ["1.00", "0.000", "0", "0.00 %"]
    assert 0 < float(half[7]) < 1
