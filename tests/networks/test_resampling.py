"""Resampling is MATLAB's antialiased bicubic; upsampling is the transpose of downsampling."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cxrsr_cli.networks.resampling import downsample, upsample


def keys_cubic(x: float) -> float:
    """Keys' kernel with a = -0.5, as in MATLAB's imresize."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x < 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


def reference(signal: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Resize along the first axis by the formula, borders cut and renormalised."""
    ratio = len(signal) / length
    width = max(ratio, 1.0)
    rows = []
    for index in range(length):
        centre = (index + 0.5) * ratio - 0.5
        weights = [keys_cubic((centre - position) / width) for position in range(len(signal))]
        rows.append(np.tensordot(np.array(weights) / math.fsum(weights), signal, 1))
    return np.array(rows)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("direction", [downsample, upsample])
def test_resampling_equals_the_formula(scale: int, direction: object) -> None:
    generator = torch.Generator().manual_seed(scale)
    image = torch.rand(1, 1, 6 * scale, 5 * scale, dtype=torch.float64, generator=generator)
    resize = downsample if direction is downsample else upsample
    result = resize(image, scale)[0, 0].numpy()
    rows = reference(image[0, 0].numpy(), result.shape[0])
    expected = reference(rows.T, result.shape[1]).T
    assert np.abs(result - expected).max() < 1e-12


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_inside_the_image_upsampling_is_the_transpose_of_downsampling(scale: int) -> None:
    high = torch.zeros(1, 1, 16 * scale, 16 * scale, dtype=torch.float64)
    low = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    high[0, 0, 8 * scale + 1, 7 * scale] = 1
    low[0, 0, 9, 8] = 1
    forward = (downsample(high, scale) * low).sum()
    backward = (upsample(low, scale) * high).sum()
    assert backward.item() == pytest.approx(scale**2 * forward.item(), rel=1e-9)


@given(value=st.floats(-1e4, 1e4), scale=st.sampled_from([2, 4, 8]))
def test_a_flat_image_stays_flat(value: float, scale: int) -> None:
    image = torch.full((1, 1, 3, 5), value, dtype=torch.float64)
    enlarged = upsample(image, scale)
    assert torch.allclose(enlarged, torch.full_like(enlarged, value))
    assert torch.allclose(downsample(enlarged, scale), image)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_an_image_one_pixel_wide_is_resized_like_equal_columns(scale: int) -> None:
    """PyTorch gives every row the values of the first."""
    column = torch.rand(1, 1, 6 * scale, 1, generator=torch.Generator().manual_seed(0))
    wide = column.expand(-1, -1, -1, 4 * scale)
    assert torch.allclose(
        downsample(wide[..., :scale], scale)[..., 0], downsample(wide, scale)[..., 1], atol=1e-6
    )
    assert torch.allclose(upsample(column, scale)[..., 0], upsample(wide, scale)[..., 1], atol=1e-6)


def test_a_size_that_is_no_multiple_of_the_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        downsample(torch.zeros(1, 1, 9, 8), 4)
