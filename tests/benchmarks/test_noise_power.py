"""Noise of known power has the spectrum that it must have, and a pattern in it is found."""

import numpy as np
import pytest

from benchmarks.noise_power import NoisePower, detrend, flat_patches

SIGMA = 12.0
BANDS = ((0.0, 0.25), (0.25, 0.5), (0.5, 1.0), (1.0, np.inf))


def white(seed: int = 0, count: int = 12, side: int = 64) -> np.ndarray:
    noise: np.ndarray = np.random.default_rng(seed).normal(0, SIGMA, (count, side, side))
    return noise


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_spectrum_integrates_to_the_variance(scale: int) -> None:
    power = NoisePower.of(white(), scale)
    assert power.variance() == pytest.approx(SIGMA**2, rel=0.03)
    assert sum(power.variance(*band) for band in BANDS) == pytest.approx(power.variance())


def test_the_spectrum_of_white_noise_is_its_variance_at_every_frequency() -> None:
    """A pixel holds one unit of area, and all frequencies together are one."""
    frequencies, mean = NoisePower.of(white(), 1).radial()
    assert frequencies[0] == 1 / 32
    assert frequencies[-1] == 31 / 32
    assert mean[2:] == pytest.approx(SIGMA**2, rel=0.2)


def test_a_repeated_pixel_keeps_the_spectrum_at_low_frequencies() -> None:
    """So the spectra of a source and its enlargement can be compared."""
    source = white()
    enlarged = source.repeat(4, 1).repeat(4, 2)
    own, other = (NoisePower.of(source, 1).radial()[1], NoisePower.of(enlarged, 4).radial()[1])
    assert other[2:5] == pytest.approx(own[2:5], rel=0.1)


@pytest.mark.parametrize(
    ("shape", "found"),
    [("rows", (True, False, False)), ("columns", (False, True, False)),
     ("both", (False, False, True))],
)  # fmt: skip
@pytest.mark.parametrize("scale", [2, 4])
def test_a_pattern_of_a_twelfth_of_the_noise_is_found(
    shape: str, found: tuple[bool, ...], scale: int
) -> None:
    period = np.resize([1.0, -1.0], 64)
    pattern = {
        "rows": period[:, None] * np.ones(64),
        "columns": period * np.ones((64, 1)),
        "both": np.outer(period, period),
    }[shape]
    assert max(NoisePower.of(white(), scale).lines()) < 2
    power = NoisePower.of(white() + pattern * SIGMA / 12, scale)
    assert tuple(line > 2 for line in power.lines()) == found
    assert power.pattern == pytest.approx(SIGMA / 12, rel=0.2)


def test_a_trend_of_second_order_is_not_noise() -> None:
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    trend = 1000 + 3 * x - 2 * y + 0.1 * x * y - 0.05 * x**2
    assert np.abs(detrend(trend[None])).max() < 1e-6


def test_flat_patches_have_no_edge_and_no_saturated_pixel() -> None:
    image = (500 + white(count=1, side=64)[0]).round().astype(np.int32)
    image[:16, :16] = 2000
    image[20, 20] = 2000
    image[16:32, 40:] += 90
    image[0:16, 32:48] = 700
    assert flat_patches(image, 16, 3)[0][0] >= 32
    found = flat_patches(image, 16, 16)
    assert not {(0, 0), (16, 16), (0, 32)} & set(found)
    assert found[-1] == (16, 32), "the edge is in it"
