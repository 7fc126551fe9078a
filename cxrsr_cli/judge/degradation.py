"""Make the input that methods are given."""

import torch

from cxrsr_cli.judge.noise import Noise
from cxrsr_cli.learn import pairs
from cxrsr_cli.learn.images import GrayscaleImage


def make_low_resolution(original: GrayscaleImage, scale: int, noise: Noise | None = None) -> torch.Tensor:
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
    low = pairs.degrade(original, scale)
    if noise is None:
        return low
    noisy = noise.add(
        low.numpy(), minimum=original.minimum, maximum=original.maximum, name=original.name
    )
    return torch.from_numpy(noisy)
