"""Multi-scale SSIM, which is probably what the paper calls MSIM."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from cxrsr_cli.metrics.metric import Metric, crop_border

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang et al. 2003, section 3.2)."""

_Plane = NDArray[np.float64]

_TAPS, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03

MIN_SIDE = _TAPS << len(WEIGHTS) - 1
"""Pixels without the border. At the coarsest scale one window must fit in the image."""


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
        the coarsest, each raised to its power in `WEIGHTS`, multiplied. A
        negative mean counts as 0. NaN for images smaller than `MIN_SIDE`.

    Notes
    -----
    As in the authors' ``msssim.m``: a Gaussian window of 11x11, sigma 1.5, at
    positions where it is inside the image; C1 = (0.01 peak)^2,
    C2 = (0.03 peak)^2; each next scale is the mean of 2x2 pixels. At the
    coarsest scale the two terms are multiplied before the mean is taken.
    """
    first, second = (
        crop_border(values, border)[0, 0].double().div(peak).numpy()
        for values in (image, reference)
    )
    if min(first.shape) < MIN_SIDE:
        return float("nan")
    result = 1.0
    for scale, weight in enumerate(WEIGHTS, start=1):
        luminance, structure = _terms(first, second)
        similarity = structure if scale < len(WEIGHTS) else luminance * structure
        result *= max(float(similarity.mean()), 0.0) ** weight
        first, second = _halve(first), _halve(second)
    return result


def _terms(first: _Plane, second: _Plane) -> tuple[_Plane, _Plane]:
    """Return the luminance and the contrast-structure map of images within [0, 1]."""
    mean_1, mean_2 = _blur(first), _blur(second)
    variances = _blur(first**2) - mean_1**2 + _blur(second**2) - mean_2**2
    covariance = _blur(first * second) - mean_1 * mean_2
    luminance = (2 * mean_1 * mean_2 + _K1**2) / (mean_1**2 + mean_2**2 + _K1**2)
    return luminance, (2 * covariance + _K2**2) / (variances + _K2**2)


def _blur(plane: _Plane) -> _Plane:
    """Apply the window where it is inside the image."""
    margin = _TAPS // 2
    window = np.exp(-(np.arange(-margin, margin + 1) ** 2) / (2 * _SIGMA**2))
    window /= window.sum()
    rows = correlate1d(plane, window, axis=0)[margin:-margin]
    columns: _Plane = correlate1d(rows, window, axis=1)[:, margin:-margin]
    return columns


def _halve(plane: _Plane) -> _Plane:
    """Return the mean of 2x2 pixels without an odd last row or column."""
    height, width = (side // 2 for side in plane.shape)
    quads = plane[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
    halved: _Plane = quads.mean((1, 3))
    return halved


MS_SSIM = Metric("ms_ssim", "MS-SSIM", 4, lambda compared: compared.apply(ms_ssim))
