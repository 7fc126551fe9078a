"""Geometric self-ensemble: a network's answer, the same from all eight sides.

Timofte, Rothe and Van Gool (CVPR 2016), "enhanced prediction". What the
network says of an image should not depend on how the image lies; the mean over
the eight ways to lay it takes away what does. Eight times the work.
"""

from collections.abc import Callable

import torch

NUM_TRANSFORMS = 8


def self_ensemble(
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
        Of the same form: the mean of the eight outputs, each turned back. One output
        at a time is held beside the sum.
    """

    def ensemble(image: torch.Tensor) -> torch.Tensor:
        total = network(image).float()
        for side in range(1, NUM_TRANSFORMS):
            turned = _turn(image, side).contiguous(memory_format=torch.channels_last)
            total = total + _turn_back(network(turned), side)
        return total / NUM_TRANSFORMS

    return ensemble


def _turn(image: torch.Tensor, side: int) -> torch.Tensor:
    turned = torch.rot90(image, side % 4, (-2, -1))
    return turned.flip(-1) if side >= 4 else turned


def _turn_back(image: torch.Tensor, side: int) -> torch.Tensor:
    straight = image.flip(-1) if side >= 4 else image
    return torch.rot90(straight, -(side % 4), (-2, -1))
