"""Data consistency: an output must downsample to its input, in legal values.

Any estimate is moved to the nearest image that reproduces the input under
`downsample` and lies inside the stored range. What the radiograph says is then
kept, whatever a network thought of it; a network can only fill in what the
radiograph leaves open.

The equality alone is the consistency enforcing module of Bahat and Michaeli
(CVPR 2020). The range matters on radiographs: where collimated borders sit at
black or white, plain back-projection overshoots the range, and clipping
afterwards breaks the equality by several stored units.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_banded

from cxrsr_cli.networks.resampling import downsample, upsample

DEFAULT_STEPS = 15
OUTPUT_STEPS = 45
"""For an output: where a border at the end of the range is long and bright beside
it, more than the default help. The number does not follow from the error: parts of
an image would stop at different steps, and show where they meet."""

MARGIN = 16
"""Input pixels around a window beyond which nothing changes what is inside: a
legal image is sought up to half of that from where the range binds, and what
lies further away weighs less than a ten thousandth there."""
_NEAR = MARGIN // 2

_BINDS = 0.05
"""Stored units by which values may leave the range and be cut off: a tenth of rounding."""


def project_iteratively(
    estimate: torch.Tensor,
    low_resolution: torch.Tensor,
    scale: int,
    *,
    minimum: float | torch.Tensor,
    maximum: float | torch.Tensor,
    steps: int = DEFAULT_STEPS,
) -> torch.Tensor:
    """Project `estimate` on the legal images that downsample to `low_resolution`.

    Accelerated projected gradient: ``x <- clip(v + up(lr - down(v)))`` with
    the momentum of FISTA (Beck and Teboulle 2009).

    Parameters
    ----------
    estimate : torch.Tensor
        ``(N, C, scale * H, scale * W)``, floating point.
    low_resolution : torch.Tensor
        ``(N, C, H, W)``, same units as `estimate`.
    scale : int
        Whole factor between the two.
    minimum, maximum : float or torch.Tensor
        Legal range of the output, in the units of `estimate`; tensors
        broadcast against it.
    steps : int
        Iterations; 0 only clips.

    Returns
    -------
    torch.Tensor
        Shape of `estimate`, every value within ``[minimum, maximum]``.
    """
    low, high = (
        torch.as_tensor(limit, dtype=estimate.dtype, device=estimate.device)
        for limit in (minimum, maximum)
    )
    current = estimate.clamp(low, high)
    point = estimate
    momentum = 1.0
    for _ in range(steps):
        previous = current
        residual = low_resolution - downsample(point, scale)
        current = upsample(residual, scale).add_(point).clamp_(low, high)
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        point = torch.lerp(previous, current, 1 + (momentum - 1) / following)
        momentum = following
    return current


def enforce_consistency(
    estimate: torch.Tensor | None,
    low_resolution: torch.Tensor,
    scale: int,
    *,
    minimum: float,
    maximum: float,
    steps: int = DEFAULT_STEPS,
) -> torch.Tensor:
    """Do what `project` does, iterating only where the range binds.

    Elsewhere the answer is linear and in closed form (`unrestrained`), exact
    where `project` stops after its steps.

    Parameters
    ----------
    estimate : torch.Tensor or None
        ``(1, 1, scale * H, scale * W)`` float32 stored values; None for bicubic
        interpolation of `low_resolution`.
    low_resolution, scale, minimum, maximum, steps
        As in `project`.

    Returns
    -------
    torch.Tensor
        ``(1, 1, scale * H, scale * W)`` within ``[minimum, maximum]``. Rows or
        columns cut off further away than `MARGIN` would hardly change it.
    """
    if estimate is None:
        found = upsample(solve_down_up(low_resolution, scale), scale)
    else:
        found = project_closed_form(estimate, low_resolution, scale)
    beyond = torch.maximum(minimum - found.amin(), found.amax() - maximum)
    if not beyond > _BINDS:  # nor does what is no number, which is for others to find
        return found.clamp_(minimum, maximum)
    binding = _binding(found, scale, minimum - _BINDS, maximum + _BINDS)
    found.clamp_(minimum, maximum)
    for left, right, first, last in _column_runs(binding):
        low = low_resolution[..., first:last]
        wide = slice(first * scale, last * scale)
        start = upsample(low, scale) if estimate is None else estimate[..., wide]
        legal = project_iteratively(
            start, low, scale, minimum=minimum, maximum=maximum, steps=steps
        )
        inner = slice((left - first) * scale, (right - first) * scale)
        found[..., left * scale : right * scale] = legal[..., inner]
    return found


def _binding(found: torch.Tensor, scale: int, lowest: float, highest: float) -> torch.Tensor:
    """Return which columns of the input have a pixel under which values are out of bounds."""
    columns = ((found < lowest) | (found > highest)).any(-2)[0, 0]
    return columns.view(-1, scale).any(-1)


def _column_runs(binding: torch.Tensor) -> Iterator[tuple[int, int, int, int]]:
    """Yield stretches of columns to be made legal, and those that must be seen for it.

    What is near one that binds is one stretch with it; and so are those whose
    surroundings touch.
    """
    width = len(binding)
    hot = binding.nonzero()[:, 0].tolist()
    gaps = enumerate(pairwise(hot), 1)
    breaks = [number for number, (one, other) in gaps if other - one > 2 * MARGIN]
    for start, stop in pairwise([0, *breaks, len(hot)]):
        left, right = max(hot[start] - _NEAR, 0), min(hot[stop - 1] + 1 + _NEAR, width)
        yield left, right, max(left - _NEAR, 0), min(right + _NEAR, width)


def consistent_bicubic(
    low_resolution: torch.Tensor,
    scale: int,
    *,
    minimum: float,
    maximum: float,
    steps: int = DEFAULT_STEPS,
) -> torch.Tensor:
    """Bicubic interpolation projected by `project`: the floor a network must clear.

    Parameters
    ----------
    low_resolution : torch.Tensor
        ``(N, C, H, W)``, floating point.
    scale, minimum, maximum, steps
        As in `project`.

    Returns
    -------
    torch.Tensor
        ``(N, C, scale * H, scale * W)`` within ``[minimum, maximum]``.
    """
    return project_iteratively(
        upsample(low_resolution, scale),
        low_resolution,
        scale,
        minimum=minimum,
        maximum=maximum,
        steps=steps,
    )


_BAND = 4
"""``down(up(.))`` reaches that far: two pixels each."""
_BORDER = 8
"""Rows at each border in which it is not the same everywhere; more than enough."""


def project_closed_form(
    estimate: torch.Tensor, low_resolution: torch.Tensor, scale: int
) -> torch.Tensor:
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
