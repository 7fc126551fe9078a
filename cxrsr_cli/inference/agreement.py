"""Agreement: the mean of each block of the output is the source's pixel, to within its noise.

A detector's pixel is the mean over its area. An output of a higher resolution shows the same
radiograph if the mean of its block of ``scale * scale`` pixels is that pixel. Where the pixel is
noisy, the mean may leave it by `SIGMAS` standard deviations of the noise.
"""

import torch

from cxrsr_cli.networks.resampling import block_mean, repeat_pixels

SIGMAS = 2.0
"""Standard deviations of the noise by which a block's mean may leave the source's pixel."""


def enforce_agreement(
    estimate: torch.Tensor,
    source: torch.Tensor,
    scale: int,
    *,
    bound: torch.Tensor | float,
    minimum: torch.Tensor | float,
    maximum: torch.Tensor | float,
) -> torch.Tensor:
    """Move each block so that its mean is within the bound of the source, and all values legal.

    The block is shifted by what its mean lacks, and clipped to the range. What clipping took
    away is given to the other pixels of the block in proportion to their distance from the end
    of the range, which is enough at once: the mean is a legal value.

    Parameters
    ----------
    estimate : torch.Tensor
        ``(N, 1, scale * H, scale * W)``, floating point.
    source : torch.Tensor
        ``(N, 1, H, W)`` in the same units, within the range.
    scale : int
        Whole factor between the two.
    bound : torch.Tensor or float
        Largest difference between a block's mean and its pixel; a tensor broadcasts against
        `source`. 0 is `Agreement.EXACT`.
    minimum, maximum : torch.Tensor or float
        Legal range; tensors broadcast against `source`.

    Returns
    -------
    torch.Tensor
        Shape of `estimate`, within the range.

    Notes
    -----
    It is differentiable. Blocks do not depend on each other.
    """
    low, high, bound = (
        torch.as_tensor(limit, dtype=estimate.dtype, device=estimate.device)
        for limit in (minimum, maximum, bound)
    )
    mean = block_mean(estimate, scale)
    wanted = torch.maximum(torch.minimum(mean, source + bound), source - bound).clamp(low, high)
    moved = (estimate + repeat_pixels(wanted - mean, scale)).clamp(low, high)
    lacking = wanted - block_mean(moved, scale)
    room = torch.where(repeat_pixels(lacking, scale) > 0, high - moved, low - moved)
    share = lacking / block_mean(room, scale).abs().clamp(min=torch.finfo(room.dtype).tiny)
    return (moved + repeat_pixels(share.abs(), scale) * room).clamp(low, high)
