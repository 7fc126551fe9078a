"""The residual-in-residual network of Khishigdelger, Salem and Kang.

J. Imaging 2024, 10(3), 64. Widths and the slope are not in the paper; what
`RirConfig` leaves at its default is this project's choice.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli.networks.config import Attention, RirConfig
from cxrsr_cli.networks.layers import ChannelAttention, PostUpsampler


class ResidualBlock(nn.Module):
    """``x + conv1x1(cat(act(conv1x1 x), act(conv3x3 x), act(conv5x5 x)))``.

    Other kernels and widths, and channel attention on what is added to `x`, as
    the architecture has them.
    """

    def __init__(self, architecture: RirConfig) -> None:
        super().__init__()
        channels, width = architecture.channels, architecture.branch_width
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, width, size, padding=size // 2) for size in architecture.kernels
        )
        self.fuse = nn.Conv2d(len(self.branches) * width, channels, 1)
        self.attend = _attention(architecture, Attention.BLOCK)
        self.negative_slope = architecture.negative_slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H, W)``."""
        features = torch.cat([branch(x) for branch in self.branches], dim=1)
        fused: torch.Tensor = self.fuse(F.leaky_relu(features, self.negative_slope))
        attended: torch.Tensor = self.attend(fused)
        return x + attended


class ResidualGroup(nn.Module):
    """``conv1x1(cat(RB1, ..., RBn, input))``, each block fed by the one before.

    The paper calls the blocks "parallel" for their three branches; its dense
    fusion keeps every block's output, as in a residual dense network. Without
    dense fusion it is ``conv1x1(RBn)``: the input and the sum of what all
    blocks add.
    """

    def __init__(self, architecture: RirConfig) -> None:
        super().__init__()
        channels, blocks = architecture.channels, architecture.blocks
        self.blocks = nn.ModuleList(ResidualBlock(architecture) for _ in range(blocks))
        self.dense = architecture.dense
        self.fuse = nn.Conv2d((blocks + 1) * channels if self.dense else channels, channels, 1)
        self.attend = _attention(architecture, Attention.GROUP)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H, W)``."""
        outputs = []
        feature = x
        for block in self.blocks:
            feature = block(feature)
            outputs.append(feature)
        kept = torch.cat([*outputs, x], dim=1) if self.dense else feature
        fused: torch.Tensor = self.attend(self.fuse(kept))
        return fused


class ResidualInResidual(PostUpsampler):
    """Shallow conv, residual groups, long skip, PixelShuffle tail.

    Parameters
    ----------
    architecture : RirArchitecture
        Widths and forms.
    """

    def __init__(self, architecture: RirConfig) -> None:
        super().__init__(
            architecture,
            (ResidualGroup(architecture) for _ in range(architecture.groups)),
            long_skip=architecture.long_skip,
        )


def _attention(architecture: RirConfig, place: Attention) -> nn.Module:
    if architecture.attention is not place:
        return nn.Identity()
    return ChannelAttention(architecture.channels, architecture.reduction)
