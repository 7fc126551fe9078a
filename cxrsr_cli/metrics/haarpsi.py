"""HaarPSI with constants for medical images."""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom

from cxrsr_cli.metrics.metric import Metric, crop_border

MEDICAL_C = 5.0
MEDICAL_ALPHA = 4.9
"""HaarPSI_MED (Karner et al. 2024, arXiv 2410.24098); natural images: 30 and 4.2."""

_PEAK_OF_C = 255.0
"""`c` is for values of 0 to 255, whatever the range of the images."""


def haarpsi(
    image: torch.Tensor,
    reference: torch.Tensor,
    *,
    peak: float,
    border: int,
    c: float = MEDICAL_C,
    alpha: float = MEDICAL_ALPHA,
) -> float:
    """Haar wavelet-based perceptual similarity index.

    Parameters
    ----------
    image, reference : torch.Tensor
        ``(1, 1, H, W)``, same units, the smallest legal value 0.
    peak : float
        Data range: largest minus smallest legal stored value.
    border : int
        Pixels left out on each side.
    c, alpha : float
        Constants of the similarity and of the logistic function.

    Returns
    -------
    float
        Equation 10 of Reisenhofer, Bosse, Kutyniok and Wiegand (Signal
        Processing: Image Communication 61, 2018), within [0, 1]; 1 for equal
        images.

    Notes
    -----
    Stored values are mapped to [0, 1], then to [0, 255] where `c` applies, as
    in the code of Karner et al. Both images are halved by the mean of 2x2
    pixels. The Haar filters have 2, 4 and 8 pixels, horizontal and vertical,
    with zeros outside of the image. The two finer filters give the local
    similarity, the coarsest gives the weight. The result for two images
    without any contrast is 1.
    """
    first, second = (
        _halve(crop_border(values, border).double().mul(_PEAK_OF_C / peak))
        for values in (image, reference)
    )
    fine, weight = [], []
    for horizontal in (False, True):
        magnitudes = [
            [_haar(image, order, horizontal=horizontal) for image in (first, second)]
            for order in (1, 2, 3)
        ]
        terms = [(2 * a * b + c) / (a**2 + b**2 + c) for a, b in magnitudes[:2]]
        fine.append((terms[0] + terms[1]) / 2)
        weight.append(torch.maximum(*magnitudes[2]))
    similarity, weights = torch.stack(fine), torch.stack(weight)
    if not weights.any():
        return 1.0
    mean = (torch.sigmoid(alpha * similarity) * weights).sum() / weights.sum()
    return float((torch.logit(mean) / alpha) ** 2)


def _haar(image: torch.Tensor, order: int, *, horizontal: bool) -> torch.Tensor:
    """Return the magnitude of the Haar coefficients, ``(1, 1, H, W)``."""
    side = 1 << order
    mean = torch.full((side,), 1.0 / side, dtype=image.dtype)
    step = torch.ones(side, dtype=image.dtype)
    step[: side // 2] = -1
    rows, columns = (mean, step) if horizontal else (step, mean)
    return _same(image, rows, columns).abs_()


def _halve(image: torch.Tensor) -> torch.Tensor:
    mean = torch.full((2,), 0.5, dtype=image.dtype)
    return _same(image, mean, mean)[..., ::2, ::2]


def _same(image: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Filter with MATLAB's ``conv2(..., 'same')`` alignment, zeros outside."""
    height, width = image.shape[-2:]
    pad = len(rows) // 2
    filtered = F.conv2d(image, rows.view(1, 1, -1, 1), padding=(pad, 0))[..., -height:, :]
    return F.conv2d(filtered, columns.view(1, 1, 1, -1), padding=(0, pad))[..., -width:]


HAARPSI_MED = Metric("haarpsi_med", "HaarPSI_MED", 4, lambda compared: compared.apply(haarpsi))
