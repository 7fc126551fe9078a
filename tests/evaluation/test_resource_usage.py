"""Operations, time and memory are counted and measured."""

import sys
import time

import pytest
import torch
from torch import nn

from cxrsr_cli.evaluation.resource_usage import MethodComplexity, count_macs, measure_usage
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.config import Stem, Upsampler
from cxrsr_cli.networks.layers import build_network
from cxrsr_cli.networks.rir import RirConfig

CPU = torch.device("cpu")


def test_macs_of_convolutions_are_counted() -> None:
    """9 x 1 x 4 at full size, then 25 x 4 x 2 at half of it."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 5, stride=2, padding=2))
    assert count_macs(network, CPU) == 64 * 64 * 9 * 4 + 32 * 32 * 25 * 4 * 2


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_residual_network_multiplies_every_weight_once_per_pixel(ensemble: bool) -> None:
    """Biases do not count; the 9 fixed filters of 3x3 of the stem are added."""
    architecture = RirConfig(scale=2, channels=4, groups=1, blocks=1, stem=Stem.WHITENED,
                             upsampler=Upsampler.CONV_SHUFFLE)  # fmt: skip
    predictor = Predictor.from_network(build_network(architecture), CPU)
    found = MethodComplexity.of(predictor, ensemble=ensemble)
    parameters = list(predictor.network.parameters())
    weights = sum(parameter.numel() for parameter in parameters if parameter.ndim > 1)
    assert found.parameters == sum(parameter.numel() for parameter in parameters)
    assert found.macs == (8 if ensemble else 1) * (weights + 81)


@pytest.mark.skipif(sys.platform != "linux", reason="needs proc(5)")
def test_memory_that_was_freed_is_measured() -> None:
    with measure_usage(CPU) as usage:
        torch.ones(25_000_000)
        time.sleep(0.05)
    assert usage.peak_bytes == pytest.approx(100e6, rel=0.1)
    assert usage.seconds > 0.05
