"""Geometric self-ensemble: the mean over all flips and rotations of the input.

Timofte, Rothe and Van Gool (CVPR 2016), "enhanced prediction". The output of a
network should not depend on how the image lies. The mean over the eight flips and
rotations removes such dependence, for eight times the work.
"""

from collections.abc import Callable

import torch

NUM_TRANSFORMS = 8


def average_over_transforms(
    network: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Wrap a network so that it sees every flip and rotation.

    Parameters
    ----------
    network : callable
        Maps ``(N, 1, H, W)`` to ``(N, 1, scale * H, scale * W)``.

    Returns
    -------
    callable
        Of the same form: the mean of the eight outputs, each turned back. It holds
        one output at a time beside the sum.
    """

    def ensemble(image: torch.Tensor) -> torch.Tensor:
        total = network(image).float()
        for index in range(1, NUM_TRANSFORMS):
            turned = _transform(image, index).contiguous(memory_format=torch.channels_last)
            total = total + _invert(network(turned), index)
        return total / NUM_TRANSFORMS

    return ensemble


def _transform(image: torch.Tensor, index: int) -> torch.Tensor:
    turned = torch.rot90(image, index % 4, (-2, -1))
    return turned.flip(-1) if index >= 4 else turned


def _invert(image: torch.Tensor, index: int) -> torch.Tensor:
    unflipped = image.flip(-1) if index >= 4 else image
    return torch.rot90(unflipped, -(index % 4), (-2, -1))
