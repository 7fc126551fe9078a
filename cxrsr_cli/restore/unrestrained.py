"""Data consistency where the stored range does not bind: in closed form.

Without the range, the nearest image that downsamples to the input is
``estimate + up(filter(low - down(estimate)))``, where the filter is the inverse
of ``down(up(.))`` on the input's grid. Both resamplings are separable, so that
it is one banded system of equations along each axis.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_banded

from cxrsr_cli.restore.resample import downsample, upsample

_BAND = 4
"""``down(up(.))`` reaches that far: two pixels each."""
_BORDER = 8
"""Rows at each border in which it is not the same everywhere; more than enough."""


def project_closed_form(estimate: torch.Tensor, low_resolution: torch.Tensor, scale: int) -> torch.Tensor:
    """Project on the images that downsample to `low_resolution`, legal or not.

    Parameters
    ----------
    estimate : torch.Tensor
        ``(1, 1, scale * H, scale * W)`` float32.
    low_resolution : torch.Tensor
        ``(1, 1, H, W)`` float32, on the same device, in the same units.
    scale : int
        Whole factor.

    Returns
    -------
    torch.Tensor
        The nearest image to `estimate` whose `downsample` is `low_resolution`.
    """
    missing = low_resolution - downsample(estimate, scale)
    return upsample(solve_down_up(missing, scale), scale).add_(estimate)


def solve_down_up(low_resolution: torch.Tensor, scale: int) -> torch.Tensor:
    """Apply the inverse of ``downsample(upsample(.))``.

    Parameters
    ----------
    low_resolution : torch.Tensor
        ``(1, 1, H, W)`` float32.
    scale : int
        Whole factor.

    Returns
    -------
    torch.Tensor
        Of the same shape; its `upsample` downsamples to `low_resolution`.
    """
    values = low_resolution[0, 0].cpu().double().numpy()
    for _ in range(2):
        bands = _bands(values.shape[0], scale)
        # Solved along the first axis; turned twice, the image lies as before.
        values = solve_banded((_BAND, _BAND), bands, values, check_finite=False).T
    return torch.from_numpy(values.astype(np.float32))[None, None].to(low_resolution.device)


@lru_cache(maxsize=16)
def _bands(length: int, scale: int) -> NDArray[np.float64]:
    """Return the diagonals of ``downsample(upsample(.))`` along one axis."""
    matrix = _matrix(min(length, 4 * _BORDER), scale)
    bands = np.zeros((2 * _BAND + 1, length))
    rows = np.arange(length)
    # What lies between the borders is the same everywhere: one row stands for all.
    like = np.minimum(rows, 2 * _BORDER - 1)
    like = np.maximum(like, rows - length + len(matrix))
    for offset in range(-_BAND, _BAND + 1):
        column = rows + offset
        there = (column >= 0) & (column < length)
        bands[_BAND - offset, column[there]] = matrix[like[there], (like + offset)[there]]
    return bands


def _matrix(length: int, scale: int) -> NDArray[np.float64]:
    columns = torch.eye(length, dtype=torch.float64).reshape(length, 1, length, 1)
    answers = downsample(upsample(columns, scale), scale)
    return answers.reshape(length, length).T.numpy()
