"""Metrics are those of the reference library and of the formula."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cxrsr_cli.judge.metrics import psnr, ssim

RANDOM = np.random.default_rng(0)
REFERENCE = RANDOM.integers(0, 4096, (40, 50)).astype(np.float32)
IMAGE = np.clip(REFERENCE + RANDOM.normal(0, 99, REFERENCE.shape), 0, 4095).astype(np.float32)


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels)[None, None]


@pytest.mark.parametrize("border", [0, 4])
def test_psnr(border: int) -> None:
    inner = np.s_[border : 40 - border, border : 50 - border]
    expected = peak_signal_noise_ratio(REFERENCE[inner], IMAGE[inner], data_range=4095)
    result = psnr(tensor(IMAGE), tensor(REFERENCE), peak=4095, border=border)
    assert result == pytest.approx(expected, abs=1e-4)


def test_psnr_of_a_known_error() -> None:
    reference = torch.zeros(1, 1, 8, 8)
    assert psnr(reference + 1, reference, peak=255, border=0) == pytest.approx(48.1308, abs=1e-4)
    assert math.isinf(psnr(reference, reference, peak=255, border=0))


def test_ssim() -> None:
    expected = structural_similarity(
        REFERENCE, IMAGE, data_range=4095, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    result = ssim(tensor(IMAGE), tensor(REFERENCE), peak=4095, border=0)
    assert result == pytest.approx(expected, abs=1e-6)
    assert ssim(tensor(REFERENCE), tensor(REFERENCE), peak=4095, border=4) == pytest.approx(1)
