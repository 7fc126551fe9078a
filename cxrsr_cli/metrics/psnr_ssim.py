"""PSNR and SSIM against a reference, on stored values."""

import numpy as np
import torch
from skimage.metrics import structural_similarity


def crop_border(image: torch.Tensor, border: int) -> torch.Tensor:
    """Cut the border off, where every upsampler guesses.

    Parameters
    ----------
    image : torch.Tensor
        ``(N, C, H, W)``, any dtype.
    border : int
        Pixels left out on each side.

    Returns
    -------
    torch.Tensor
        ``(N, C, H - 2 * border, W - 2 * border)``, a view.
    """
    return image[..., border : -border or None, border : -border or None]


_WINDOW = 11
"""Pixels on a side: 3.5 sigma, as in scikit-image."""


def psnr(image: torch.Tensor, reference: torch.Tensor, *, peak: float, border: int) -> float:
    """Peak signal-to-noise ratio.

    Parameters
    ----------
    image, reference : torch.Tensor
        ``(1, 1, H, W)``, same units.
    peak : float
        Data range: largest minus smallest legal stored value.
    border : int
        Pixels left out on each side, where every upsampler guesses.

    Returns
    -------
    float
        ``10 log10(peak**2 / MSE)`` in dB; infinite for equal images.
    """
    error = (crop_border(image, border) - crop_border(reference, border)).square().mean().item()
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")


def ssim(image: torch.Tensor, reference: torch.Tensor, *, peak: float, border: int) -> float:
    """Structural similarity of Wang et al. (2004): Gaussian window, sigma 1.5.

    Parameters are those of `psnr`, the smallest legal value 0; the result lies
    within [-1, 1], and is not a number if the window does not fit.
    """
    first, second = (crop_border(values, border)[0, 0].numpy() for values in (image, reference))
    if min(first.shape) < _WINDOW:
        return float("nan")
    return float(
        structural_similarity(
            first,
            second,
            data_range=peak,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
