"""PSNR and SSIM against a reference, on stored values."""

import numpy as np
import torch
from skimage.metrics import structural_similarity

from cxrsr_cli.metrics.metric import ImageComparison, Metric, crop_border

_WINDOW_SIDE = 11
"""Pixels: 3.5 sigma, as in scikit-image."""


def psnr(image: torch.Tensor, reference: torch.Tensor, *, peak: float, border: int) -> float:
    """Peak signal-to-noise ratio.

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
        ``10 log10(peak**2 / MSE)`` in dB; infinite for equal images.
    """
    return psnr_of_error(_squared_error(image, reference, border).mean().item(), peak)


def psnr_outside_marks(compared: ImageComparison) -> float:
    """Peak signal-to-noise ratio of the pixels that are not close to a burnt-in mark.

    Returns
    -------
    float
        As `psnr`; NaN if marks cover the whole image.
    """
    kept = ~crop_border(compared.marks, compared.border)
    error = _squared_error(compared.output, compared.original, compared.border)[kept]
    return psnr_of_error(error.mean().item(), compared.peak)


def _squared_error(image: torch.Tensor, reference: torch.Tensor, border: int) -> torch.Tensor:
    return (crop_border(image, border) - crop_border(reference, border)).square()


def psnr_of_error(error: float, peak: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error, infinite for none."""
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")


def ssim(image: torch.Tensor, reference: torch.Tensor, *, peak: float, border: int) -> float:
    """Structural similarity of Wang et al. (2004): Gaussian window, sigma 1.5.

    Parameters as for `psnr`, with 0 as the smallest legal value. The result is
    within [-1, 1], or NaN if the image is smaller than the window.
    """
    first, second = (crop_border(values, border)[0, 0].numpy() for values in (image, reference))
    if min(first.shape) < _WINDOW_SIDE:
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


_TOLERANCE_DB = 0.05

PSNR_OUTSIDE_MARKS = Metric(
    "psnr_outside_marks", "PSNR outside marks dB", 3, psnr_outside_marks, tolerance=_TOLERANCE_DB
)
PSNR = Metric("psnr", "PSNR dB", 3, lambda compared: compared.apply(psnr), tolerance=_TOLERANCE_DB)
SSIM = Metric("ssim", "SSIM", 4, lambda compared: compared.apply(ssim), is_plotted=False)
