"""An accelerator makes the output that a CPU makes. Each test that can also runs on the CPU."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.inference.streaming import stream
from cxrsr_cli.networks.config import Precision
from cxrsr_cli.networks.model_files import find_model
from tests.conftest import EXAMPLE
from tests.helpers.devices import on_each_device

WHOLE = pydicom.dcmread(EXAMPLE).pixel_array.astype(np.int32)
STORED = WHOLE[64:128, 64:128]
RANGE = PixelRange(0, 4095)


def load(device: str, precision: Precision = Precision.FP32, scale: int = 4) -> Predictor:
    return Predictor.load(find_model("rir-s", scale).path, device=device, precision=precision)


@on_each_device
def test_float32_equals_that_of_a_cpu(device: str) -> None:
    difference = np.abs(load(device).upscale(STORED, RANGE) - load("cpu").upscale(STORED, RANGE))
    assert difference.max() <= 1


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", Precision.BF16),
        pytest.param("cuda", Precision.BF16, marks=pytest.mark.gpu),
        pytest.param("cuda", Precision.FP16, marks=pytest.mark.gpu),
    ],
)
def test_half_precision_is_close_to_float32(device: str, precision: Precision) -> None:
    """The stem stays in float32. In half precision the error would be many times larger."""
    exact, half = (
        load(device, each).upscale(STORED, RANGE).astype(float)
        for each in (Precision.FP32, precision)
    )
    assert np.sqrt(np.mean((exact - half) ** 2)) < 1
    assert np.abs(exact - half).max() <= 16


@on_each_device
@pytest.mark.parametrize("rows", [7, 20])
def test_strips_make_the_whole_image(device: str, rows: int) -> None:
    predictor = load(device)
    plan = replace(predictor.plan(*STORED.shape), rows=64)
    whole, parts = (
        np.concatenate([strip for _, strip in predictor.predict_strips(STORED, RANGE, plan=each)])
        for each in (plan, replace(plan, rows=rows))
    )
    assert np.abs(whole - parts).max() <= 1


@pytest.mark.gpu
def test_rows_are_halved_when_the_memory_of_the_device_is_too_small() -> None:
    """On a CPU, `test_streaming` raises the error by itself."""
    predictor, device = load("cuda", scale=2), torch.device("cuda:0")
    stored = np.tile(WHOLE, (4, 4))
    plan = replace(predictor.plan(*stored.shape), rows=len(stored))
    torch.cuda.reset_peak_memory_stats(device)
    expected = np.concatenate(
        [strip for _, strip in predictor.predict_strips(stored, RANGE, plan=plan)]
    )
    total = torch.cuda.get_device_properties(device).total_memory
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.empty_cache()
    notes = list[str]()
    try:
        torch.cuda.set_per_process_memory_fraction(0.7 * peak / total, device)
        strips = predictor.predict_strips(stored, RANGE, plan=plan, note=notes.append)
        found = np.concatenate([strip for _, strip in strips])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert notes
    assert "rows at a time" in notes[0]
    assert np.abs(found - expected).max() <= 1


@pytest.mark.gpu
@torch.inference_mode()
def test_a_graph_replays_the_network() -> None:
    """A network has no operation that a CUDA graph cannot record."""
    device = torch.device("cuda")
    network = load("cuda").network
    first, second = (torch.rand(1, 1, 64, 64, device=device) for _ in range(2))
    expected = [network(each).clone() for each in (first, second)]
    seen, graph = first.clone(), torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        network(seen)
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        made = network(seen)
    for image, each in zip((first, second), expected, strict=True):
        seen.copy_(image)
        graph.replay()
        assert (made - each).abs().max().item() <= 1e-3


@pytest.mark.slow
@pytest.mark.process
@on_each_device
def test_two_processes_share_a_device(device: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cxrsr_cli", "upscale", "--scale", "2", "--device", device]
    outputs = [tmp_path / f"{number}.dcm" for number in range(2)]
    running = [subprocess.Popen([*command, str(EXAMPLE), str(output)]) for output in outputs]
    assert [process.wait() for process in running] == [0, 0]
    one, other = (pydicom.dcmread(output).pixel_array for output in outputs)
    assert np.array_equal(one, other)
    alone = load(device, scale=2).upscale(WHOLE, RANGE)
    assert np.abs(one.astype(np.int32) - alone).max() <= 1


@on_each_device
@torch.inference_mode()
def test_the_program_runs_on_the_device_of_its_weights(device: str) -> None:
    predictor = load(device)
    assert predictor.program
    strips = stream(
        predictor.program, torch.rand(1, 1, 20, 20), rows=8, device=torch.device(device)
    )
    assert {strip.device.type for strip in strips} == {device}
