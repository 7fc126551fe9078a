"""The image skip: what the network's residual is added to."""

import torch

from cxrsr_cli.inference.data_consistency import consistent_bicubic
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.networks.resampling import upsample


def image_skip(
    kind: ImageSkip,
    low_resolution: torch.Tensor,
    scale: int,
    *,
    minimum: float,
    maximum: float,
) -> torch.Tensor | None:
    """Make the image that a network's residual is added to.

    Parameters
    ----------
    kind : ImageSkip
        From the network's architecture.
    low_resolution : torch.Tensor
        ``(N, 1, H, W)``, floating point.
    scale : int
        Whole factor.
    minimum, maximum : float
        Legal range, in the units of `low_resolution`.

    Returns
    -------
    torch.Tensor or None
        ``(N, 1, scale * H, scale * W)``; None for `ImageSkip.NONE`.
    """
    match kind:
        case ImageSkip.NONE:
            return None
        case ImageSkip.BICUBIC:
            return upsample(low_resolution, scale)
        case ImageSkip.CONSISTENT:
            return consistent_bicubic(low_resolution, scale, minimum=minimum, maximum=maximum)
