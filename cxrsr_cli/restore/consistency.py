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

import torch

from cxrsr_cli.restore.resample import downsample, upsample

DEFAULT_STEPS = 15
LARGEST_STEPS = 150
"""Where a border at the end of the range is long and bright beside it, many more
steps help; each costs as much as two resamplings."""

_STALLED = 0.95


def project(
    estimate: torch.Tensor,
    low_resolution: torch.Tensor,
    scale: int,
    *,
    minimum: float | torch.Tensor,
    maximum: float | torch.Tensor,
    steps: int = DEFAULT_STEPS,
    tolerance: float | None = None,
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
    tolerance : float, optional
        Go on after `steps` while the RMS of ``lr - down(x)`` is above it and
        falls by a twentieth in as many steps again, `LARGEST_STEPS` at most.

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
    last = math.inf
    for step in range(LARGEST_STEPS if tolerance is not None else steps):
        if tolerance is not None and step >= steps and step % max(steps, 1) == 0:
            error = _rms(low_resolution - downsample(current, scale))
            if error <= tolerance or error > _STALLED * last:
                break
            last = error
        previous = current
        residual = low_resolution - downsample(point, scale)
        current = upsample(residual, scale).add_(point).clamp_(low, high)
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        point = torch.lerp(previous, current, 1 + (momentum - 1) / following)
        momentum = following
    return current


def _rms(difference: torch.Tensor) -> float:
    return float(difference.square().mean().sqrt())


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
    return project(
        upsample(low_resolution, scale),
        low_resolution,
        scale,
        minimum=minimum,
        maximum=maximum,
        steps=steps,
    )
