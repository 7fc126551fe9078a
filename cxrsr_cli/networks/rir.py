"""RIR: the residual-in-residual network of Khishigdelger, Salem and Kang.

J. Imaging 2024, 10(3), 64. The paper states neither the channels nor the slope:
those defaults of `RirConfig` are this project's choice.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, cast

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli.networks.config import (
    ConvSpec,
    PostUpsamplingConfig,
    Stem,
    Upsampler,
    channel_attention_convs,
)
from cxrsr_cli.networks.conv_program import Branch, Conv, LayerList, split_fusion
from cxrsr_cli.networks.layers import ChannelAttention, PostUpsampler


class Attention(StrEnum):
    """Where RCAN's channel attention stands in a residual-in-residual network."""

    NONE = "none"
    """Nowhere, as in the paper."""
    BLOCK = "block"
    """On what each block adds to its input."""
    GROUP = "group"
    """On the output of each group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RirConfig(PostUpsamplingConfig):
    """A residual-in-residual network, or an ablation of it.

    Attributes
    ----------
    groups, blocks : int
        Residual groups, and residual blocks in each; 4 and 4 in the paper.
    negative_slope : float
        Slope of LeakyReLU.
    kernels : tuple of int
        Sides of a block's parallel convolutions, rising; 1, 3, 5 in the paper.
    branch_channels : int or None
        Width of each of them; None for `channels`, as in the paper.
    dense : bool
        A group fuses its input and all its blocks' outputs, as in the paper;
        otherwise only the last block's output, which is the input and the sum
        of what every block adds.
    long_skip : bool
        The shallow features are added to the deep ones, as in the paper.
    attention : Attention
        Where channel attention stands; nowhere in the paper.
    reduction : int
        Of channel attention's bottleneck; 16 in RCAN.
    """

    network: ClassVar[str] = "rir"

    groups: int = 4
    blocks: int = 4
    negative_slope: float = 0.1
    upsampler: Upsampler = Upsampler.CONV_SHUFFLE
    stem: Stem = Stem.WHITENED
    kernels: tuple[int, ...] = (1, 3, 5)
    branch_channels: int | None = None
    dense: bool = True
    long_skip: bool = True
    attention: Attention = Attention.NONE
    reduction: int = 16

    def __post_init__(self) -> None:
        PostUpsamplingConfig.__post_init__(self)
        self._check_counts("groups", "blocks", "reduction")
        if self.branch_channels is not None:
            self._check_counts("branch_channels")
        self._check_number("negative_slope")
        self._check_kernels("kernels", self.kernels)
        self._check_switches("dense", "long_skip")
        if not self.kernels or list(self.kernels) != sorted(set(self.kernels)):
            raise ValueError("kernels must be at least one, rising")
        if self.attention is not Attention.NONE:
            self._check_reduction(self.channels, self.reduction)

    def build(self) -> "ResidualInResidual":
        """Make the untrained network."""
        return ResidualInResidual(self)

    @property
    def branch_width(self) -> int:
        """Width of each parallel convolution of a block."""
        return self.channels if self.branch_channels is None else self.branch_channels

    @property
    def needs_whole_image(self) -> bool:
        """Whether there is channel attention."""
        return self.attention is not Attention.NONE

    @property
    def body_radius(self) -> int:
        """Sum of the blocks' radii: each feeds the next."""
        return max(self.kernels) // 2 * self.groups * self.blocks

    def body(self) -> list[ConvSpec]:
        """List the groups' convolutions."""
        channels, width = self.channels, self.branch_width
        attention = channel_attention_convs(channels, self.reduction)
        block = [ConvSpec(channels, width, kernel) for kernel in self.kernels]
        block += [ConvSpec(len(self.kernels) * width, channels, 1)]
        block += attention if self.attention is Attention.BLOCK else []
        fused = (self.blocks + 1) * channels if self.dense else channels
        group = block * self.blocks + [ConvSpec(fused, channels, 1)]
        group += attention if self.attention is Attention.GROUP else []
        return group * self.groups


class ResidualBlock(nn.Module):
    """``x + conv1x1(cat(act(conv1x1 x), act(conv3x3 x), act(conv5x5 x)))``.

    The architecture decides kernels, widths, and whether channel attention acts on
    what is added to `x`.
    """

    def __init__(self, architecture: RirConfig) -> None:
        super().__init__()
        channels, width = architecture.channels, architecture.branch_width
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, width, size, padding=size // 2) for size in architecture.kernels
        )
        self.fuse = nn.Conv2d(len(self.branches) * width, channels, 1)
        _shrink(self.fuse)
        self.attend = _attention(architecture, Attention.BLOCK)
        self.negative_slope = architecture.negative_slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H, W)``."""
        features = torch.cat([branch(x) for branch in self.branches], dim=1)
        fused: torch.Tensor = self.fuse(F.leaky_relu(features, self.negative_slope))
        attended: torch.Tensor = self.attend(fused)
        return x + attended

    def add_layers(self, layers: LayerList, value: int) -> int:
        """Add its layers to a program."""
        branches = [
            layers.add(Branch(value, Conv.from_module(branch)), negative_slope=self.negative_slope)
            for branch in cast("Iterable[nn.Conv2d]", self.branches)
        ]
        return layers.add(*split_fusion(self.fuse, branches), Branch(value))


class ResidualGroup(nn.Module):
    """``conv1x1(cat(RB1, ..., RBn, input))``; each block feeds the next.

    The paper calls the blocks "parallel" for their three branches; its dense
    fusion uses every block's output, as in a residual dense network. Without
    dense fusion it is ``conv1x1(RBn)``: the input and the sum of what all
    blocks add.
    """

    def __init__(self, architecture: RirConfig) -> None:
        super().__init__()
        channels, blocks = architecture.channels, architecture.blocks
        self.blocks = nn.ModuleList(ResidualBlock(architecture) for _ in range(blocks))
        self.dense = architecture.dense
        self.fuse = nn.Conv2d((blocks + 1) * channels if self.dense else channels, channels, 1)
        _shrink(self.fuse)
        last = slice((blocks - 1) * channels, blocks * channels) if self.dense else slice(None)
        with torch.no_grad():
            self.fuse.weight[:, last, 0, 0] += torch.eye(channels)
        self.attend = _attention(architecture, Attention.GROUP)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H, W)``."""
        outputs = []
        feature = x
        for block in self.blocks:
            feature = block(feature)
            outputs.append(feature)
        features = torch.cat([*outputs, x], dim=1) if self.dense else feature
        fused: torch.Tensor = self.attend(self.fuse(features))
        return fused

    def add_layers(self, layers: LayerList, value: int) -> int:
        """Add its layers to a program."""
        outputs, feature = [], value
        for block in cast("Iterable[ResidualBlock]", self.blocks):
            feature = block.add_layers(layers, feature)
            outputs.append(feature)
        fused = [*outputs, value] if self.dense else [feature]
        return layers.add(*split_fusion(self.fuse, fused), crop_columns=True)


class ResidualInResidual(PostUpsampler):
    """Shallow convolution, residual groups, long skip, upsampler.

    Parameters
    ----------
    architecture : RirConfig
        Its configuration.
    """

    def __init__(self, architecture: RirConfig) -> None:
        super().__init__(
            architecture,
            lambda: [ResidualGroup(architecture) for _ in range(architecture.groups)],
            long_skip=architecture.long_skip,
        )

    def compile_body(self, layers: LayerList, value: int) -> int | None:
        """Add the groups' layers; None if there is channel attention."""
        if self.architecture.needs_whole_image:
            return None
        for group in cast("Iterable[ResidualGroup]", self.groups):
            value = group.add_layers(layers, value)
        return value


def _shrink(fusion: nn.Conv2d) -> None:
    """Make a fusion's initial output small.

    Blocks and groups then start close to the identity. With PyTorch's initial weights
    a group's output is noise at first.
    """
    with torch.no_grad():
        fusion.weight.mul_(0.1)
        if fusion.bias is not None:
            nn.init.zeros_(fusion.bias)


def _attention(architecture: RirConfig, position: Attention) -> nn.Module:
    if architecture.attention is not position:
        return nn.Identity()
    return ChannelAttention(architecture.channels, architecture.reduction)
