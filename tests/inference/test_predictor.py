"""Precision, device and strips change an output by less than is visible."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.errors import DeviceError, ModelError
from cxrsr_cli.inference.agreement import AgreementDeviation
from cxrsr_cli.inference.device import choose_device, choose_precision
from cxrsr_cli.inference.memory_plan import MemoryPlan
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.config import DEFAULT_NOISE_REDUCTION, Agreement, Precision
from cxrsr_cli.networks.model_files import find_model
from tests.conftest import EXAMPLE

STORED = pydicom.dcmread(EXAMPLE).pixel_array[64:128, 64:128].astype(np.int32)


def between_shutters(bits: int) -> np.ndarray:
    """Return a radiograph with long white borders, where the range binds most."""
    values = pydicom.dcmread(EXAMPLE).pixel_array.astype(float)
    low, high = np.quantile(values, (0.01, 0.99))
    top = (1 << bits) - 1
    clipped = np.clip((values - low) / (high - low), 0, 1) * top
    clipped[:30] = clipped[-35:] = clipped[:, :28] = clipped[:, -40:] = top
    stored: np.ndarray = clipped.round().astype(np.int32)
    return stored


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_no_strip_is_visible_in_the_output(bits: int, rows: int) -> None:
    stored = between_shutters(bits)[:80]
    predictor = Predictor.load(find_model("rir-s", 4).path, device="cpu")
    plan = predictor.plan(*stored.shape)

    def made(one: MemoryPlan) -> np.ndarray:
        strips = predictor.predict_strips(stored, PixelRange(0, (1 << bits) - 1), plan=one)
        return np.concatenate([strip for _, strip in strips])

    whole, top = made(replace(plan, rows=80)), (1 << bits) - 1
    assert (whole >= top - top // 4096).mean() > 0.2, "white borders"
    difference = np.abs(made(replace(plan, rows=rows)) - whole)
    assert difference.max() <= (4 if bits == 16 else 1)


@pytest.mark.parametrize("agreement", [Agreement.EXACT, Agreement.NOISE])
def test_block_means_agree_with_the_source(agreement: Agreement) -> None:
    predictor = Predictor.load(find_model("rir-s", 4).path, device="cpu", agreement=agreement)
    pixel_range = PixelRange(0, 4095)
    noise = predictor.estimate_noise(STORED, pixel_range)
    found = AgreementDeviation.measure(predictor.upscale(STORED, pixel_range), STORED, noise=noise)
    assert found.beyond < 1e-3
    assert (found.largest <= 0.5) == (agreement is Agreement.EXACT)


@pytest.mark.parametrize(
    ("agreement", "asked", "expected"),
    [
        (Agreement.NOISE, None, DEFAULT_NOISE_REDUCTION),
        (Agreement.NONE, None, DEFAULT_NOISE_REDUCTION),
        (Agreement.EXACT, None, 0.0),
        (Agreement.EXACT, 0.5, 0.5),
        (Agreement.NOISE, 0.0, 0.0),
    ],
)
def test_noise_is_reduced_by_default_unless_the_agreement_brings_it_back(
    agreement: Agreement, asked: float | None, expected: float
) -> None:
    path = find_model("rir-s", 4).path
    predictor = Predictor.load(path, device="cpu", agreement=agreement, noise_reduction=asked)
    assert predictor.noise_reduction == expected


def test_a_model_without_a_share_reduces_no_noise_and_refuses_to(tiny_model: Path) -> None:
    assert Predictor.load(tiny_model, device="cpu").noise_reduction == 0
    with pytest.raises(ModelError, match="leave out the noise reduction"):
        Predictor.load(tiny_model, device="cpu", noise_reduction=0.5)


def test_the_share_of_noise_decides_the_noise_of_the_output() -> None:
    stored = pydicom.dcmread(EXAMPLE).pixel_array.astype(np.int32)
    noise = np.random.default_rng(0).normal(0, 40, stored.shape).astype(np.int32)
    noisy = np.clip(stored + noise, 0, 4095)
    spreads = []
    for share in (0.0, 0.7, 1.0):
        predictor = Predictor.load(
            find_model("rir-s", 4).path,
            device="cpu",
            noise_reduction=1 - share,
            agreement=Agreement.NONE,
        )
        clean, output = (
            predictor.upscale(values, PixelRange(0, 4095)) for values in (stored, noisy)
        )
        spreads.append((output - clean).std())
    none, default, whole = spreads
    assert none < 0.9 * default
    assert default < 0.95 * whole


def test_an_output_with_nan_is_a_model_error() -> None:
    predictor = Predictor.load(find_model("rir-s", 4).path, device="cpu")
    assert predictor.program
    bias = predictor.program.layers[-1].branches[0].conv.bias  # type: ignore[union-attr]
    assert bias is not None
    bias.fill_(torch.nan)
    with pytest.raises(ModelError, match="not numbers in fp32; try fp32"):
        predictor.upscale(STORED, PixelRange(0, 4095))


def test_the_automatic_precision_is_float32() -> None:
    assert choose_precision(Precision.AUTO, torch.device("cpu")) is Precision.FP32
    assert choose_precision(Precision.AUTO, torch.device("cuda")) is Precision.FP32


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:x", "cuda:99", "mps:0", ""])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="no device"):
        choose_device(name)
