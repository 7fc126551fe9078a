"""Descriptions of the networks that this project's is compared with."""

from dataclasses import dataclass
from typing import ClassVar

from cxrsr_cli.networks.complexity import ConvSpec, channel_attention_convs
from cxrsr_cli.networks.config import NetworkConfig, NetworkFamily, PostUpsamplingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SrcnnConfig(NetworkConfig):
    """SRCNN: three convolutions on the bicubic-enlarged image.

    The default is 9-5-5 of TPAMI 2016 (Section 4.3.2, 57,184 weights); ECCV
    2014 has 9-1-5.

    Attributes
    ----------
    channels, mapped : int
        Maps of the first and the second layer; 64 and 32 in the papers.
    kernels : tuple of int
        Sides of the three kernels.
    """

    network: ClassVar[NetworkFamily] = NetworkFamily.SRCNN

    channels: int = 64
    mapped: int = 32
    kernels: tuple[int, int, int] = (9, 5, 5)

    def __post_init__(self) -> None:
        NetworkConfig.__post_init__(self)
        self._check_counts("channels", "mapped")
        self._check_kernels("kernels", self.kernels)
        if len(self.kernels) != 3:
            raise ValueError("kernels must be three")

    @property
    def receptive_radius(self) -> int:
        """The convolutions' reach in enlarged pixels, and 2 of the interpolation."""
        reach = sum(kernel // 2 for kernel in self.kernels)
        return -(-reach // self.scale) + 2

    def convolutions(self) -> list[ConvSpec]:
        """List every convolution; all at output resolution."""
        widths = (1, self.channels, self.mapped, 1)
        return [
            ConvSpec(widths[index], widths[index + 1], kernel, positions_per_pixel=self.scale**2)
            for index, kernel in enumerate(self.kernels)
        ]


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

    network: ClassVar[NetworkFamily] = NetworkFamily.EDSR

    blocks: int = 16
    block_scale: float = 1.0

    def __post_init__(self) -> None:
        PostUpsamplingConfig.__post_init__(self)
        self._check_counts("blocks")
        self._check_number("block_scale")

    @property
    def body_radius(self) -> int:
        """Two 3x3 convolutions a block."""
        return 2 * self.blocks

    def body(self) -> list[ConvSpec]:
        """List the blocks' convolutions."""
        return [ConvSpec(self.channels, self.channels, 3)] * 2 * self.blocks


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

    network: ClassVar[NetworkFamily] = NetworkFamily.RCAN

    groups: int = 10
    blocks: int = 20
    reduction: int = 16

    def __post_init__(self) -> None:
        PostUpsamplingConfig.__post_init__(self)
        self._check_counts("groups", "blocks", "reduction")
        self._check_reduction(self.channels, self.reduction)

    @property
    def needs_whole_image(self) -> bool:
        """Always: channel attention averages whole maps."""
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
