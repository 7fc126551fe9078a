"""RCAN (Zhang et al., ECCV 2018): residual in residual with channel attention.

As in the paper, but for one grey channel instead of RGB and no mean colour to
subtract: the image is normalised before any network sees it. Stem, image skip and
the factor on the output are this project's, the same for all families. Weights
start as PyTorch starts convolutions, as in the public code.

It must see the whole image, because channel attention averages whole feature
maps. So it is not compiled to a `ConvProgram`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli.networks.config import ConvSpec, PostUpsamplingConfig, channel_attention_convs
from cxrsr_cli.networks.layers import ChannelAttention, PostUpsampler


@dataclass(frozen=True, slots=True, kw_only=True)
class RcanConfig(PostUpsamplingConfig):
    """RCAN; the default is the paper's (Section 4.1).

    Attributes
    ----------
    groups, blocks : int
        Residual groups, and channel attention blocks in each; 10 and 20.
    reduction : int
        Of channel attention's bottleneck; 16.
    """

    network: ClassVar[str] = "rcan"

    groups: int = 10
    blocks: int = 20
    reduction: int = 16

    def __post_init__(self) -> None:
        PostUpsamplingConfig.__post_init__(self)
        self._check_counts("groups", "blocks", "reduction")
        self._check_reduction(self.channels, self.reduction)

    def build(self) -> "Rcan":
        """Make the untrained network."""
        return Rcan(self)

    @property
    def needs_whole_image(self) -> bool:
        """Always: channel attention averages whole feature maps."""
        return True

    @property
    def body_radius(self) -> int:
        """Two 3x3 convolutions a block, and one a group."""
        return self.groups * (2 * self.blocks + 1)

    def body(self) -> list[ConvSpec]:
        """List the groups' convolutions."""
        convolution = ConvSpec(self.channels, self.channels, 3)
        block = [convolution, convolution, *channel_attention_convs(self.channels, self.reduction)]
        return [*block * self.blocks, convolution] * self.groups


class RcanBlock(nn.Module):
    """``x + attention(conv(relu(conv x)))`` (RCAN, Equations 12 and 13)."""

    def __init__(self, architecture: RcanConfig) -> None:
        super().__init__()
        channels = architecture.channels
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.attend = ChannelAttention(channels, architecture.reduction)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H, W)``."""
        attended: torch.Tensor = self.attend(self.second(F.relu(self.first(x))))
        return x + attended


class RcanGroup(nn.Module):
    """``x + conv(RCAB_n(... RCAB_1(x)))`` (RCAN, Equations 6 and 7)."""

    def __init__(self, architecture: RcanConfig) -> None:
        super().__init__()
        channels = architecture.channels
        self.blocks = nn.Sequential(*(RcanBlock(architecture) for _ in range(architecture.blocks)))
        self.last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H, W)``."""
        added: torch.Tensor = self.last(self.blocks(x))
        return x + added


class Rcan(PostUpsampler):
    """Residual in residual with channel attention (RCAN, Equations 1 to 5).

    Parameters
    ----------
    architecture : RcanConfig
        Its configuration.
    """

    def __init__(self, architecture: RcanConfig) -> None:
        super().__init__(
            architecture, lambda: [RcanGroup(architecture) for _ in range(architecture.groups)]
        )
