"""A family of networks outside the package: one file with configuration, module, compilation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from cxrsr_cli.networks.config import ConvSpec, NetworkConfig
from cxrsr_cli.networks.conv_program import IMAGE, Branch, Conv, ConvProgram, LayerList
from cxrsr_cli.networks.layers import SuperResolutionNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyConfig(NetworkConfig):
    """One convolution and a PixelShuffle."""

    network: ClassVar[str] = "toy"

    kernel: int = 3

    def __post_init__(self) -> None:
        NetworkConfig.__post_init__(self)
        self._check_kernels("kernel", (self.kernel,))

    def build(self) -> "Toy":
        """Make the untrained network."""
        return Toy(self)

    @property
    def receptive_radius(self) -> int:
        """Half of the kernel."""
        return self.kernel // 2

    def convolutions(self) -> list[ConvSpec]:
        """List the convolution."""
        return [ConvSpec(1, self.scale**2, self.kernel)]


class Toy(SuperResolutionNetwork):
    """One convolution and a PixelShuffle."""

    def __init__(self, architecture: ToyConfig) -> None:
        super().__init__(architecture, nn.Identity())
        scale, kernel = architecture.scale, architecture.kernel
        self.conv = nn.Conv2d(1, scale**2, kernel, padding=kernel // 2)
        self.shuffle = nn.PixelShuffle(scale)

    def residual(
        self,
        x: torch.Tensor,
        noise_share: torch.Tensor | float,  # noqa: ARG002 - this network removes no noise
    ) -> torch.Tensor:
        """Map ``(N, 1, H, W)`` to ``(N, 1, scale * H, scale * W)``."""
        output: torch.Tensor = self.shuffle(self.conv(x))
        return output

    @torch.no_grad()
    def to_conv_program(self, noise_share: float = 1.0) -> ConvProgram:  # noqa: ARG002 - as above
        """Compile the network."""
        layers = LayerList()
        conv = Conv.from_module(self.conv).scaled(self.architecture.residual_scale)
        layers.add(Branch(IMAGE, conv))
        return ConvProgram(tuple(layers), pixel_shuffle=self.architecture.scale)
