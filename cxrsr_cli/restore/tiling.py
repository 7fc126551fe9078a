"""Run a network on a large image tile by tile, with the whole image's result.

Each tile carries a halo as wide as the receptive field, so every output pixel
sees what it would see in the whole image. Only tiles go to the device.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of the low-resolution image that one network call fills.

    Attributes
    ----------
    top, left, height, width : int
        In low-resolution pixels, without halo.
    """

    top: int
    left: int
    height: int
    width: int


def plan(height: int, width: int, tile: int) -> Iterator[Tile]:
    """Cover the image with tiles of nearly equal size, at most `tile` a side.

    Equal sizes avoid a last sliver that is mostly halo.
    """
    for top, tall in _spans(height, tile):
        for left, wide in _spans(width, tile):
            yield Tile(top, left, tall, wide)


def count(height: int, width: int, tile: int) -> int:
    """Return how many tiles `plan` makes."""
    return -(-height // tile) * -(-width // tile)


def apply_tiled(
    network: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    *,
    scale: int,
    halo: int,
    tile: int,
    device: torch.device | None = None,
    advance: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Apply `network` to every tile and put the results together.

    Parameters
    ----------
    network : callable
        Maps ``(1, 1, h, w)`` to ``(1, 1, scale * h, scale * w)``.
    image : torch.Tensor
        ``(1, 1, H, W)`` on the CPU.
    scale : int
        Whole factor.
    halo : int
        Pixels of context on each side: the network's receptive radius. Beyond
        the image it is a reflection.
    tile : int
        Largest side of a tile without halo.
    device : torch.device, optional
        Where the network runs; the CPU if not given.
    advance : callable
        Called after each tile.

    Returns
    -------
    torch.Tensor
        ``(1, 1, scale * H, scale * W)`` float32 on the CPU.
    """
    height, width = image.shape[-2:]
    padded = reflect(image, halo)
    output = torch.empty(1, 1, height * scale, width * scale)
    for part in plan(height, width, tile):
        patch = padded[
            ...,
            part.top : part.top + part.height + 2 * halo,
            part.left : part.left + part.width + 2 * halo,
        ]
        patch = patch.to(device=device, memory_format=torch.channels_last)
        result = network(patch)
        rows = slice(halo * scale, (halo + part.height) * scale)
        columns = slice(halo * scale, (halo + part.width) * scale)
        output[
            ...,
            part.top * scale : (part.top + part.height) * scale,
            part.left * scale : (part.left + part.width) * scale,
        ] = result[..., rows, columns].float()
        advance()
    return output


def reflect(image: torch.Tensor, margin: int) -> torch.Tensor:
    """Reflect the image about its border pixels, as often as the margin needs.

    Parameters
    ----------
    image : torch.Tensor
        ``(N, C, H, W)``.
    margin : int
        Pixels added on each side; may exceed the image.

    Returns
    -------
    torch.Tensor
        ``(N, C, H + 2 * margin, W + 2 * margin)``.
    """
    while margin > 0:
        step_y, step_x = (min(margin, side - 1) for side in image.shape[-2:])
        if step_y == step_x == margin:
            return F.pad(image, (margin,) * 4, mode="reflect")
        if not step_y or not step_x:  # a single row or column has no neighbour to mirror
            return F.pad(image, (margin,) * 4, mode="replicate")
        step = min(step_y, step_x)
        image = F.pad(image, (step,) * 4, mode="reflect")
        margin -= step
    return image


def _spans(length: int, largest: int) -> Iterator[tuple[int, int]]:
    parts = -(-length // largest)
    edges = [length * index // parts for index in range(parts + 1)]
    for start, stop in pairwise(edges):
        yield start, stop - start
