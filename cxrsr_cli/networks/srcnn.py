"""SRCNN (Dong et al., ECCV 2014 and TPAMI 2016): three convolutions on the upsampled image.

As in the paper, but for one grey channel instead of RGB. Image skip and the
factor on the output are this project's, the same for all families. Weights start
as PyTorch starts convolutions: the paper's own start, noise of 0.001, belongs to
its plain gradient descent.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli.networks.config import ConvSpec, ImageSkip, NetworkConfig, noise_share_convs
from cxrsr_cli.networks.conv_program import IMAGE, Branch, Conv, ConvProgram, LayerList
from cxrsr_cli.networks.layers import NoiseShare, SuperResolutionNetwork, zero_init
from cxrsr_cli.networks.resampling import upsample


@dataclass(frozen=True, slots=True, kw_only=True)
class SrcnnConfig(NetworkConfig):
    """SRCNN.

    The default is 9-5-5 of TPAMI 2016 (Section 4.3.2, 57,184 weights); ECCV
    2014 has 9-1-5.

    Attributes
    ----------
    channels, mapped : int
        Maps of the first and the second layer; 64 and 32 in the papers.
    kernels : tuple of int
        Sides of the three kernels.
    """

    network: ClassVar[str] = "srcnn"

    channels: int = 64
    mapped: int = 32
    kernels: tuple[int, int, int] = (9, 5, 5)

    def __post_init__(self) -> None:
        NetworkConfig.__post_init__(self)
        self._check_counts("channels", "mapped")
        self._check_kernels("kernels", self.kernels)
        if len(self.kernels) != 3:
            raise ValueError("kernels must be three")

    def build(self) -> "Srcnn":
        """Make the untrained network."""
        return Srcnn(self)

    @property
    def receptive_radius(self) -> int:
        """Radius of the convolutions in upsampled pixels, and 2 of the interpolation."""
        radius = sum(kernel // 2 for kernel in self.kernels)
        return -(-radius // self.scale) + 2

    def convolutions(self) -> list[ConvSpec]:
        """List every convolution; all are at output resolution."""
        widths = (1, self.channels, self.mapped, 1)
        share = noise_share_convs(self.channels) if self.noise_share else []
        return share + [
            ConvSpec(widths[index], widths[index + 1], kernel, positions_per_pixel=self.scale**2)
            for index, kernel in enumerate(self.kernels)
        ]


class BicubicUpsample(nn.Module):
    """Bicubic interpolation before the first layer: SRCNN's stem."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, 1, H, W)`` to ``(N, 1, scale * H, scale * W)``."""
        return upsample(x, self.scale)


class Srcnn(SuperResolutionNetwork):
    """Patch extraction, mapping, reconstruction (SRCNN, Equations 1 to 3).

    Parameters
    ----------
    architecture : SrcnnConfig
        Its configuration.
    """

    def __init__(self, architecture: SrcnnConfig) -> None:
        super().__init__(architecture, BicubicUpsample(architecture.scale))
        channels, mapped = architecture.channels, architecture.mapped
        first, second, third = architecture.kernels
        self.extract = nn.Conv2d(1, channels, first, padding=first // 2)
        self.share = NoiseShare(channels) if architecture.noise_share else None
        self.map = nn.Conv2d(channels, mapped, second, padding=second // 2)
        self.reconstruct = nn.Conv2d(mapped, 1, third, padding=third // 2)
        if architecture.image_skip is not ImageSkip.NONE:
            zero_init(self.reconstruct)

    def residual(self, x: torch.Tensor, noise_share: torch.Tensor | float) -> torch.Tensor:
        """Map the upsampled ``(N, 1, sH, sW)`` to the same shape."""
        feature = self.extract(x)
        if self.share:
            feature = self.share(feature, noise_share)
        output: torch.Tensor = self.reconstruct(F.relu(self.map(F.relu(feature))))
        return output

    @torch.no_grad()
    def to_conv_program(self, noise_share: float = 1.0) -> ConvProgram:
        """Compile the network."""
        layers = LayerList()
        value = IMAGE
        extract = Conv.from_module(self.extract)
        if self.share:
            extract = self.share.add_to(extract, noise_share)
        for conv in (extract, Conv.from_module(self.map)):
            value = layers.add(Branch(value, conv), negative_slope=0.0)
        last = Conv.from_module(self.reconstruct).scaled(self.architecture.residual_scale)
        layers.add(Branch(value, last))
        return ConvProgram(tuple(layers), pixel_shuffle=1, pre_upscale=self.architecture.scale)
