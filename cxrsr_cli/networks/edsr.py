"""EDSR (Lim et al., CVPR workshops 2017): residual blocks without normalisation.

As in the paper, but for one grey channel instead of RGB and no mean colour to
subtract: the image is normalised before any network sees it. Stem, image skip and
the factor on the output are this project's, the same for all families. Weights
start as PyTorch starts convolutions, as in the public code.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli.networks.config import ConvSpec, PostUpsamplingConfig
from cxrsr_cli.networks.conv_program import Branch, Conv, LayerList
from cxrsr_cli.networks.layers import PostUpsampler


@dataclass(frozen=True, slots=True, kw_only=True)
class EdsrConfig(PostUpsamplingConfig):
    """EDSR; the default is EDSR-baseline (Table 1 of the paper).

    Attributes
    ----------
    blocks : int
        Residual blocks of two 3x3 convolutions; 16 in the baseline.
    block_scale : float
        Factor on what a block adds; 1, none, in the baseline.
    """

    network: ClassVar[str] = "edsr"

    blocks: int = 16
    block_scale: float = 1.0

    def __post_init__(self) -> None:
        PostUpsamplingConfig.__post_init__(self)
        self._check_counts("blocks")
        self._check_number("block_scale")

    def build(self) -> "Edsr":
        """Make the untrained network."""
        return Edsr(self)

    @property
    def body_radius(self) -> int:
        """Two 3x3 convolutions a block."""
        return 2 * self.blocks

    def body(self) -> list[ConvSpec]:
        """List the blocks' convolutions."""
        return [ConvSpec(self.channels, self.channels, 3)] * 2 * self.blocks


class EdsrBlock(nn.Module):
    """``x + block_scale * conv(relu(conv x))`` (EDSR, Figure 2c)."""

    def __init__(self, architecture: EdsrConfig) -> None:
        super().__init__()
        channels = architecture.channels
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = architecture.block_scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H, W)``."""
        added: torch.Tensor = self.second(F.relu(self.first(x)))
        return x + self.scale * added

    def add_layers(self, layers: LayerList, value: int) -> int:
        """Add its layers to a program."""
        first = layers.add(Branch(value, Conv.from_module(self.first)), negative_slope=0.0)
        second = Conv.from_module(self.second).scaled(self.scale)
        return layers.add(Branch(first, second), Branch(value), crop_columns=True)


class Edsr(PostUpsampler):
    """Residual blocks without normalisation (EDSR, Figure 3).

    Parameters
    ----------
    architecture : EdsrConfig
        Its configuration.
    """

    def __init__(self, architecture: EdsrConfig) -> None:
        super().__init__(
            architecture, lambda: [EdsrBlock(architecture) for _ in range(architecture.blocks)]
        )

    def compile_body(self, layers: LayerList, value: int) -> int:
        """Add the blocks' layers."""
        for block in cast("Iterable[EdsrBlock]", self.groups):
            value = block.add_layers(layers, value)
        return value
