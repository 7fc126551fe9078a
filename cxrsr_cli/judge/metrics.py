"""Image quality against a reference, on stored values."""

import numpy as np
import torch
from skimage.metrics import structural_similarity


def psnr(image: torch.Tensor, reference: torch.Tensor, *, peak: float, border: int) -> float:
    """Peak signal-to-noise ratio.

    Parameters
    ----------
    image, reference : torch.Tensor
        ``(1, 1, H, W)``, same units.
    peak : float
        Largest legal value, in the same units.
    border : int
        Pixels left out on each side, where every upsampler guesses.

    Returns
    -------
    float
        ``10 log10(peak**2 / MSE)`` in dB; infinite for equal images.
    """
    error = (_inner(image, border) - _inner(reference, border)).square().mean().item()
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")


def ssim(image: torch.Tensor, reference: torch.Tensor, *, peak: float, border: int) -> float:
    """Structural similarity of Wang et al. (2004): Gaussian window, sigma 1.5.

    Parameters are those of `psnr`; the value lies within [-1, 1].
    """
    return float(
        structural_similarity(
            _inner(image, border)[0, 0].numpy(),
            _inner(reference, border)[0, 0].numpy(),
            data_range=peak,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def _inner(image: torch.Tensor, border: int) -> torch.Tensor:
    return image[..., border : -border or None, border : -border or None]
