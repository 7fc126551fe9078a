"""Noise has the stated kind and amount, and is reproducible."""

import numpy as np
import pytest

from cxrsr_cli.errors import UsageError
from cxrsr_cli.evaluation.noise import Noise, NoiseKind

GREY = np.full((400, 500), 1000, dtype=np.float32)
TWELVE_BITS = {"minimum": 0.0, "maximum": 4095.0}


@pytest.mark.parametrize(
    ("text", "noise"),
    [
        ("sp:0.01", Noise(NoiseKind.SALT_AND_PEPPER, 0.01)),
        ("gauss:0.005", Noise(NoiseKind.GAUSS, 0.005)),
    ],
)
def test_kind_and_amount_are_parsed(text: str, noise: Noise) -> None:
    assert Noise.parse(text) == noise
    assert str(noise) == text


@pytest.mark.parametrize(
    "text", ["", "sp", "sp:", "sp:0", "sp:-0.1", "sp:2", "sp:nan", "poisson:1"]
)
def test_illegal_noise_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="sp:AMOUNT, gauss:AMOUNT"):
        Noise.parse(text)


def test_salt_and_pepper_are_half_smallest_and_half_largest_values() -> None:
    noisy = Noise.parse("sp:0.02").add(GREY, **TWELVE_BITS, name="a")
    values, counts = np.unique(noisy, return_counts=True)
    assert values.tolist() == [0, 1000, 4095]
    assert counts / GREY.size == pytest.approx([0.01, 0.98, 0.01], abs=0.001)


def test_gaussian_noise_has_a_share_of_the_range_as_standard_deviation() -> None:
    noisy = Noise.parse("gauss:0.01").add(GREY, **TWELVE_BITS, name="a")
    assert noisy.std() == pytest.approx(40.95, rel=0.01)
    assert noisy.mean() == pytest.approx(1000, abs=0.5)
    assert (noisy == noisy.round()).all()


def test_noise_keeps_signed_values_within_the_range() -> None:
    noisy = Noise.parse("gauss:0.5").add(0 * GREY, minimum=-128, maximum=127, name="a")
    assert (noisy.min(), noisy.max()) == (-128, 127)


@pytest.mark.parametrize("text", ["sp:0.01", "gauss:0.01"])
def test_the_image_name_is_the_seed(text: str) -> None:
    first, again, other = (
        Noise.parse(text).add(GREY, **TWELVE_BITS, name=name) for name in ("a", "a", "b")
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
