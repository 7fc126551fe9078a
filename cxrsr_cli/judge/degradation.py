"""Make the input that methods are given."""

import torch

from cxrsr_cli.judge.noise import Noise
from cxrsr_cli.learn.images import GreyImage
from cxrsr_cli.restore.resample import downsample


def degrade(original: GreyImage, scale: int, noise: Noise | None = None) -> torch.Tensor:
    """Make the low-resolution image in the bit depth of the original.

    Parameters
    ----------
    original : GreyImage
        Its sides are multiples of `scale`.
    scale : int
        Whole factor.
    noise : Noise, optional
        Added to the low-resolution image.

    Returns
    -------
    torch.Tensor
        ``(1, 1, H / scale, W / scale)`` float32, whole numbers in the range.
    """
    minimum, maximum = original.minimum, original.maximum
    low = downsample(original.values, scale).round_().clamp_(minimum, maximum)
    if noise is None:
        return low
    noisy = noise.add(low.numpy(), minimum=minimum, maximum=maximum, name=original.name)
    return torch.from_numpy(noisy)
