"""Normalisation removes bit depth and polarity."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cxrsr_cli.inference.normalisation import Normalisation

IMAGE = torch.linspace(200, 900, 10_000).reshape(1, 1, 100, 100)


def test_the_percentiles_map_to_0_and_1() -> None:
    seen = Normalisation.from_image(IMAGE).to_network(IMAGE)
    assert seen.min() == pytest.approx(0, abs=0.002)
    assert seen.max() == pytest.approx(1, abs=0.002)


def test_a_bright_marker_hardly_changes_the_map() -> None:
    marked = IMAGE.clone()
    marked[..., :2, :2] = 65535
    assert Normalisation.from_image(marked).one < 1000


@given(gain=st.sampled_from([1, 16, 256]), offset=st.integers(-5000, 5000))
def test_bit_depth_does_not_change_network_values(gain: int, offset: int) -> None:
    other = IMAGE * gain + offset
    seen = Normalisation.from_image(other).to_network(other)
    assert torch.allclose(seen, Normalisation.from_image(IMAGE).to_network(IMAGE), atol=1e-3)


def test_polarity_does_not_change_network_values() -> None:
    negative = 4095 - IMAGE
    seen = Normalisation.from_image(negative, inverted=True).to_network(negative)
    assert torch.allclose(seen, Normalisation.from_image(IMAGE).to_network(IMAGE), atol=1e-5)


@pytest.mark.parametrize("inverted", [False, True])
def test_the_inverse_map_restores_stored_values(inverted: bool) -> None:
    norm = Normalisation.from_image(IMAGE, inverted=inverted)
    seen = norm.to_network(IMAGE)
    assert torch.allclose(norm.to_stored(seen), IMAGE, atol=1e-3)
    step = norm.residual_to_stored(seen[..., 1:] - seen[..., :-1])
    assert torch.allclose(step, IMAGE[..., 1:] - IMAGE[..., :-1], atol=1e-3)


def test_an_image_without_contrast_is_only_shifted() -> None:
    flat = torch.full((1, 1, 4, 4), 7.0)
    assert (Normalisation.from_image(flat).to_network(flat) == 0).all()
