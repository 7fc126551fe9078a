"""The networks that this project's is compared with, as their papers have them.

One grey channel instead of RGB, and no mean colour to subtract: the image is
normalised before any network sees it. Stem, image skip and the factor on the
output are the recipe's, the same for all. Weights start as PyTorch starts
convolutions, as in the public code of EDSR and RCAN; SRCNN's own start, noise
of 0.001, belongs to its plain gradient descent.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.networks.layers import (
    ChannelAttention,
    PostUpsampler,
    SuperResolutionNetwork,
    zero_init,
)
from cxrsr_cli.networks.resampling import upsample
from cxrsr_cli.networks.rival_configs import (
    EdsrConfig,
    RcanConfig,
    SrcnnConfig,
)


class BicubicUpsample(nn.Module):
    """Bicubic interpolation, before the first layer: SRCNN's stem."""

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
    architecture : SrcnnArchitecture
        Widths and kernels.
    """

    def __init__(self, architecture: SrcnnConfig) -> None:
        super().__init__(architecture, BicubicUpsample(architecture.scale))
        channels, mapped = architecture.channels, architecture.mapped
        first, second, third = architecture.kernels
        self.extract = nn.Conv2d(1, channels, first, padding=first // 2)
        self.map = nn.Conv2d(channels, mapped, second, padding=second // 2)
        self.reconstruct = nn.Conv2d(mapped, 1, third, padding=third // 2)
        if architecture.image_skip is not ImageSkip.NONE:
            zero_init(self.reconstruct)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """Map the enlarged ``(N, 1, sH, sW)`` to the same shape."""
        output: torch.Tensor = self.reconstruct(F.relu(self.map(F.relu(self.extract(x)))))
        return output


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


class Edsr(PostUpsampler):
    """Residual blocks without normalisation (EDSR, Figure 3).

    Parameters
    ----------
    architecture : EdsrArchitecture
        Widths and forms.
    """

    def __init__(self, architecture: EdsrConfig) -> None:
        super().__init__(
            architecture, (EdsrBlock(architecture) for _ in range(architecture.blocks))
        )


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
    architecture : RcanArchitecture
        Widths and forms.
    """

    def __init__(self, architecture: RcanConfig) -> None:
        super().__init__(
            architecture, (RcanGroup(architecture) for _ in range(architecture.groups))
        )
