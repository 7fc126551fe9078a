"""Multi-scale SSIM, our reading of what the paper calls MSIM."""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom

from cxrsr_cli.judge.border import inner

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang et al. 2003, section 3.2)."""

_TAPS, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03

SMALLEST_SIDE = _TAPS << len(WEIGHTS) - 1
"""Pixels, without the border: the coarsest scale must hold one window."""


def ms_ssim(image: torch.Tensor, reference: torch.Tensor, *, peak: float, border: int) -> float:
    """Multi-scale structural similarity.

    Parameters
    ----------
    image, reference : torch.Tensor
        ``(1, 1, H, W)``, same units.
    peak : float
        Data range: largest minus smallest legal stored value.
    border : int
        Pixels left out on each side.

    Returns
    -------
    float
        Equation 7 of Wang, Simoncelli and Bovik (Asilomar 2003): the mean
        contrast-structure term of every scale and the mean luminance term of
        the coarsest, each to its power of `WEIGHTS`, multiplied. A negative
        mean counts as 0. Not a number for images below `SMALLEST_SIDE`.

    Notes
    -----
    As in the authors' ``msssim.m``: Gaussian window of 11x11, sigma 1.5, where
    it lies inside the image; C1 = (0.01 peak)^2, C2 = (0.03 peak)^2; each next
    scale is the mean of 2x2 pixels. In the coarsest scale the two terms are
    multiplied before the mean is taken.
    """
    first, second = (inner(values, border).double() / peak for values in (image, reference))
    if min(first.shape[-2:]) < SMALLEST_SIDE:
        return float("nan")
    result = 1.0
    for scale, weight in enumerate(WEIGHTS, start=1):
        luminance, structure = _terms(first, second)
        similarity = structure if scale < len(WEIGHTS) else luminance * structure
        result *= max(similarity.mean().item(), 0.0) ** weight
        first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
    return result


def _terms(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the luminance and the contrast-structure map of images within [0, 1]."""
    products = torch.cat([first, second, first**2, second**2, first * second])
    mean_1, mean_2, square_1, square_2, product = _blur(products).split(1)
    variances = square_1 - mean_1**2 + square_2 - mean_2**2
    covariance = product - mean_1 * mean_2
    luminance = (2 * mean_1 * mean_2 + _K1**2) / (mean_1**2 + mean_2**2 + _K1**2)
    return luminance, (2 * covariance + _K2**2) / (variances + _K2**2)


def _blur(images: torch.Tensor) -> torch.Tensor:
    place = torch.arange(_TAPS, dtype=images.dtype) - _TAPS // 2
    window = torch.exp(-(place**2) / (2 * _SIGMA**2))
    window /= window.sum()
    return F.conv2d(F.conv2d(images, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
