"""Metrics agree with reference implementations and with their formulas."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.transform import downscale_local_mean

from cxrsr_cli.metrics.fourier_ring_correlation import PATCH, compute_sfrc, ring_correlation
from cxrsr_cli.metrics.haarpsi import haarpsi
from cxrsr_cli.metrics.ms_ssim import MIN_SIDE, WEIGHTS, ms_ssim
from cxrsr_cli.metrics.psnr_ssim import psnr, ssim

RANDOM = np.random.default_rng(0)
REFERENCE = RANDOM.integers(0, 4096, (40, 50)).astype(np.float32)
IMAGE = np.clip(REFERENCE + RANDOM.normal(0, 99, REFERENCE.shape), 0, 4095).astype(np.float32)


def tensor(pixels: NDArray[np.floating]) -> torch.Tensor:
    return torch.from_numpy(pixels)[None, None]


def waves(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a smooth image and its distortion, for which reference values are known."""
    y, x = np.mgrid[:height, :width].astype(float)
    reference = 127.5 + 60 * np.sin(x / 5) * np.cos(y / 9) + 60 * np.cos((x + 2 * y) / 31)
    reference = np.round(reference)
    image = np.clip(np.round(reference + 12 * np.sin(x * y / 40)), 0, 255)
    return tensor(image), tensor(reference)


@pytest.mark.parametrize("border", [0, 4])
def test_psnr_is_that_of_scikit_image(border: int) -> None:
    inner = np.s_[border : 40 - border, border : 50 - border]
    expected = peak_signal_noise_ratio(REFERENCE[inner], IMAGE[inner], data_range=4095)
    result = psnr(tensor(IMAGE), tensor(REFERENCE), peak=4095, border=border)
    assert result == pytest.approx(expected, abs=1e-4)


def test_psnr_of_a_known_error() -> None:
    reference = torch.zeros(1, 1, 8, 8)
    assert psnr(reference + 1, reference, peak=255, border=0) == pytest.approx(48.1308, abs=1e-4)
    assert math.isinf(psnr(reference, reference, peak=255, border=0))


def test_ssim_is_that_of_scikit_image() -> None:
    expected = structural_similarity(
        REFERENCE, IMAGE, data_range=4095, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    result = ssim(tensor(IMAGE), tensor(REFERENCE), peak=4095, border=0)
    assert result == pytest.approx(expected, abs=1e-6)
    assert ssim(tensor(REFERENCE), tensor(REFERENCE), peak=4095, border=4) == pytest.approx(1)
    assert math.isnan(ssim(tensor(REFERENCE), tensor(REFERENCE), peak=4095, border=15))


def test_ms_ssim_is_the_value_that_torchmetrics_documents() -> None:
    """0.9627 in the example of its documentation, the mean over nine planes."""
    first = torch.rand([3, 3, 256, 256], generator=torch.manual_seed(42))
    values = [
        ms_ssim(plane[None, None], 0.75 * plane[None, None], peak=1, border=0)
        for plane in first.flatten(0, 1)
    ]
    assert np.mean(values) == pytest.approx(0.9627, abs=5e-5)


def test_ms_ssim_is_the_product_of_scikit_image_terms_at_every_scale() -> None:
    """SSIM without its luminance term is the contrast-structure term."""
    image, reference = waves(180, 190)
    expected = 1.0
    first, second = image[0, 0].numpy(), reference[0, 0].numpy()
    for weight in WEIGHTS[:-1]:
        # With a large K1 the luminance term is 1.
        structure = structural_similarity(
            first, second, data_range=255, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, K1=1e6,
        )  # fmt: skip
        expected *= structure**weight
        even = np.s_[: len(first) // 2 * 2, : first.shape[1] // 2 * 2]
        first, second = (downscale_local_mean(side[even], (2, 2)) for side in (first, second))
    expected *= (
        structural_similarity(
            first, second, data_range=255, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        ** WEIGHTS[-1]
    )  # fmt: skip
    assert ms_ssim(image, reference, peak=255, border=0) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("side", "defined"), [(MIN_SIDE, True), (MIN_SIDE - 1, False)])
def test_ms_ssim_is_undefined_if_no_window_fits_at_the_coarsest_scale(
    side: int, defined: bool
) -> None:
    reference = torch.rand(1, 1, side + 4, side + 4)
    value = ms_ssim(reference, reference, peak=1, border=2)
    assert (value == pytest.approx(1)) if defined else math.isnan(value)


@pytest.mark.parametrize(
    ("shape", "natural", "medical"),
    [
        # From the authors' NumPy code (github.com/rgcda/haarpsi) and from the code for the
        # medical constants (github.com/ideal-iqa/haarpsi-pytorch, float32), run on `waves`.
        ((64, 80), 0.8552446535865059, 0.786715),
        ((65, 81), 0.8610182796619572, 0.793217),
        ((40, 50), 0.7832491082478887, 0.690961),
    ],
)
def test_haarpsi_agrees_with_the_authors_code(
    shape: tuple[int, int], natural: float, medical: float
) -> None:
    image, reference = waves(*shape)
    value = haarpsi(image, reference, peak=255, border=0, c=30, alpha=4.2)
    assert value == pytest.approx(natural, abs=1e-12)
    assert haarpsi(image, reference, peak=255, border=0) == pytest.approx(medical, abs=1e-5)


def test_haarpsi_does_not_depend_on_the_bit_depth() -> None:
    image, reference = waves(64, 80)
    expected = haarpsi(image, reference, peak=255, border=0)
    value = haarpsi(16 * image, 16 * reference, peak=4080, border=0)
    assert value == pytest.approx(expected, abs=1e-12)


def test_haarpsi_of_equal_images_is_one() -> None:
    _, reference = waves(40, 40)
    assert haarpsi(reference, reference, peak=255, border=4) == pytest.approx(1)
    flat = torch.zeros(1, 1, 40, 40)
    assert haarpsi(flat, flat, peak=255, border=4) == 1


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_ring_correlation_of_signal_in_noise_is_one_over_one_plus_noise() -> None:
    """Two images of one signal have independent noise of variance 1/4."""
    signal, first, second = (noise(200, PATCH, PATCH, seed=seed) for seed in range(3))
    curve = ring_correlation(signal + first / 2, signal + second / 2).mean(0)
    assert curve[6:].numpy() == pytest.approx(np.full(PATCH // 2 - 6, 1 / 1.25), abs=0.02)


@pytest.mark.parametrize(("factor", "expected"), [(3.0, 1.0), (-1.0, -1.0)])
def test_ring_correlation_depends_on_the_sign_but_not_on_the_scale_of_contrast(
    factor: float, expected: float
) -> None:
    patch = noise(PATCH, PATCH, seed=0)
    curve = ring_correlation(patch, factor * patch + 7)
    assert curve[1:].numpy() == pytest.approx(np.full(PATCH // 2 - 1, expected), abs=1e-9)


def replaced_above(image: torch.Tensor, frequency: float) -> torch.Tensor:
    """Replace the frequencies above a limit, in cycles per pixel, by those of noise."""
    steps = [torch.fft.fftfreq(side) for side in image.shape[-2:]]
    above = torch.hypot(steps[0][:, None], steps[1][None, :]) > frequency
    other = torch.fft.fft2(noise(*image.shape, seed=9))
    mixed: torch.Tensor = torch.fft.ifft2(torch.where(above, other, torch.fft.fft2(image)))
    return mixed.real


@pytest.mark.parametrize(("scale", "limit"), [(2, 0.25), (4, 0.125), (8, 0.0625)])
def test_patches_that_differ_below_the_nyquist_frequency_of_the_input_are_flagged(
    scale: int, limit: float
) -> None:
    reference = noise(1, 1, 4 * PATCH, 4 * PATCH, seed=1)
    for frequency, flagged in [(limit - 0.035, True), (limit + 0.035, False)]:
        result = compute_sfrc(
            replaced_above(reference, frequency), reference, scale=scale, border=0
        )
        assert result.flagged.all() == flagged
        assert result.flagged_fraction == flagged
        assert result.crossings.median() == pytest.approx(frequency, abs=2.1 / PATCH)


def test_a_single_different_patch_is_flagged() -> None:
    reference = noise(1, 1, 3 * PATCH + 8, 4 * PATCH + 8, seed=1)
    image = reference.clone()
    image[..., 4 + PATCH : 4 + 2 * PATCH, 4 : 4 + PATCH] = noise(PATCH, PATCH, seed=2)
    flagged = compute_sfrc(image, reference, scale=2, border=4).flagged
    assert flagged.nonzero().tolist() == [[1, 0]]


def test_patches_without_contrast_are_not_compared() -> None:
    reference = noise(1, 1, PATCH, 2 * PATCH, seed=1)
    reference[..., PATCH:] = 0
    result = compute_sfrc(reference, reference, scale=2, border=0)
    assert result.candidates.tolist() == [[True, False]]
    for side in (PATCH, PATCH - 1):
        flat = torch.zeros(1, 1, side, side)
        assert math.isnan(compute_sfrc(flat, flat, scale=2, border=0).flagged_fraction)
