"""Estimate the standard deviation of an image's noise from its local frequencies."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from cxrsr_cli.errors import ModelError
from cxrsr_cli.networks.layers import cosine_filters
from cxrsr_cli.networks.model_files import NOISE_LEVEL_FILE, find_bundled_file

_SIDE = 4
"""Of the cosine transform."""
_CELL = 8
_DILATIONS = (1, 2, 4)
"""Of the convolutions over neighbouring cells. A spectrum is known only from many cells: grain
looks like the anatomy of a few."""
_NEIGHBOURS = sum(_DILATIONS)
"""Cells on each side that an estimate depends on."""
STRIDE = 4
"""Pixels between two estimates. Each is made from cells of 8x8 pixels and their neighbours."""
_NEEDED = _CELL + _SIDE - 1
"""Pixels on a side from which one estimate is made, without its neighbours."""
_CHANNELS = 48
_MIN_POWER = 1e-12
_MAX_RATIO = 4.0
"""Of the noise to the root mean power of the components. White noise has 1, noise that is
correlated over two pixels 2, and JPEG errors may have more."""
_MIN_CEILING = 0.01
"""Network values. JPEG may remove all detail: its error is then larger than what is left."""
MIN_PIXELS = 2 * _CELL
"""Side of the smallest image that is estimated."""


class NoiseLevel(nn.Module):
    """Maps an image to the logarithm of the standard deviation of its noise.

    The power of each component of a cosine transform (DCT-II, 4x4) is averaged over cells of
    8x8 pixels. Its logarithms and the mean value go through convolutions over neighbouring
    cells. Noise that is twice as strong adds a constant to all logarithms, so that little
    training covers all strengths. It is trained by Gaussian likelihood on noise and JPEG errors
    that are known (``benchmarks/train_noise_level.py``).
    """

    filters: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", cosine_filters(_SIDE)[1:], persistent=False)
        layers: list[nn.Module] = [nn.Conv2d(_SIDE**2, _CHANNELS, 1), nn.LeakyReLU(0.2)]
        for dilation in _DILATIONS:
            layers += [
                nn.Conv2d(
                    _CHANNELS,
                    _CHANNELS,
                    3,
                    padding=dilation,
                    dilation=dilation,
                    padding_mode="replicate",
                ),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(_CHANNELS, 1, 1))

    @classmethod
    def load(cls, path: Path | None = None) -> "NoiseLevel":
        """Load the bundled weights, or those of a file.

        Raises
        ------
        ModelError
            If the file is missing, damaged, or of another network.
        """
        network, path = cls(), path or find_bundled_file(NOISE_LEVEL_FILE)
        try:
            network.load_state_dict(load_file(path))
        except (SafetensorError, OSError, RuntimeError) as error:
            raise ModelError(f"{path} does not hold the weights that estimate noise") from error
        return network.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map network values ``(N, 1, H, W)`` to ``(N, 1, h, w)`` logarithms, one a cell."""
        power = average_cells(F.conv2d(x, self.filters).square())
        logarithms = power.clamp(min=_MIN_POWER).log() / 2
        mean = average_cells(x[..., : 1 - _SIDE, : 1 - _SIDE])
        # The mean of the logarithms is close to the answer for white noise.
        typical = logarithms.mean(1, keepdim=True)
        correction: torch.Tensor = self.layers(torch.cat([logarithms - typical, mean], 1))
        # Where some components are zero, as in lines of one value, the network has learnt nothing.
        total = power.mean(1, keepdim=True).clamp(min=_MIN_CEILING**2).log() / 2
        return torch.minimum(typical + correction, total + math.log(_MAX_RATIO))


def average_cells(values: torch.Tensor) -> torch.Tensor:
    """Average ``(N, C, H, W)`` over the cells of an estimate."""
    return F.avg_pool2d(values, _CELL, STRIDE)


def contrast_of_cells(values: torch.Tensor) -> torch.Tensor:
    """Return the largest less the smallest value of each cell of ``(N, 1, H, W)``."""
    return F.max_pool2d(values, _CELL, STRIDE) + F.max_pool2d(-values, _CELL, STRIDE)


@dataclass(frozen=True, slots=True)
class CellRows:
    """Rows of cells that are estimated together.

    Attributes
    ----------
    read : slice
        Rows of the image to estimate from, with those of the neighbours.
    kept : slice
        Rows of the estimates that are the same as of the whole image.
    """

    read: slice
    kept: slice


def max_strip_rows(cells: int) -> int:
    """Return the most rows of an image that `strips_of_cells` reads at a time."""
    return (cells + 2 * _NEIGHBOURS - 1) * STRIDE + _NEEDED


def strips_of_cells(height: int, cells: int) -> Iterator[CellRows]:
    """Divide an image of `height` rows into strips of at most so many rows of cells."""
    count = (height - _NEEDED) // STRIDE + 1
    for top in range(0, count, cells):
        bottom = min(top + cells, count)
        first, last = max(top - _NEIGHBOURS, 0), min(bottom + _NEIGHBOURS, count) - 1
        read = slice(first * STRIDE, last * STRIDE + _NEEDED)
        yield CellRows(read, slice(top - first, bottom - first))
