"""The residual-in-residual network of Khishigdelger, Salem and Kang.

J. Imaging 2024, 10(3), 64. Widths and the slope are not in the paper; what
`Architecture` leaves at its default is this project's choice.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli.restore.architecture import DETAIL_WINDOW, Architecture, ImageSkip, Tail


class ResidualBlock(nn.Module):
    """``x + conv1x1(cat(act(conv1x1 x), act(conv3x3 x), act(conv5x5 x)))``."""

    def __init__(self, channels: int, negative_slope: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, channels, size, padding=size // 2) for size in (1, 3, 5)
        )
        self.fuse = nn.Conv2d(3 * channels, channels, 1)
        self.negative_slope = negative_slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H, W)``."""
        features = torch.cat([branch(x) for branch in self.branches], dim=1)
        fused: torch.Tensor = self.fuse(F.leaky_relu(features, self.negative_slope))
        return x + fused


class ResidualGroup(nn.Module):
    """``conv1x1(cat(RB1, ..., RBn, input))``, each block fed by the one before.

    The paper calls the blocks "parallel" for their three branches; its dense
    fusion keeps every block's output, as in a residual dense network.
    """

    def __init__(self, channels: int, blocks: int, negative_slope: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(channels, negative_slope) for _ in range(blocks))
        self.fuse = nn.Conv2d((blocks + 1) * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H, W)``."""
        outputs = []
        feature = x
        for block in self.blocks:
            feature = block(feature)
            outputs.append(feature)
        fused: torch.Tensor = self.fuse(torch.cat([*outputs, x], dim=1))
        return fused


class ResidualInResidual(nn.Module):
    """Shallow conv, residual groups, long skip, PixelShuffle tail.

    The module makes the *residual*: what is added to the image skip of its
    architecture (`cxrsr_cli.restore.skip`), or with `ImageSkip.NONE` the image.

    Parameters
    ----------
    architecture : Architecture
        Widths and forms.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels = architecture.channels
        self.shallow = nn.Conv2d(2 if architecture.detail_gain else 1, channels, 3, padding=1)
        self.groups = nn.ModuleList(
            ResidualGroup(channels, architecture.blocks, architecture.negative_slope)
            for _ in range(architecture.groups)
        )
        self.deep = nn.Conv2d(channels, channels, 3, padding=1)
        self.tail = _tail(architecture)
        if architecture.image_skip is not ImageSkip.NONE:
            last = self.tail[-1] if architecture.tail is Tail.SHUFFLE_CONV else self.tail[0]
            _zero(last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the residual.

        Parameters
        ----------
        x : torch.Tensor
            ``(N, 1, H, W)``, image values mapped to about [0, 1].

        Returns
        -------
        torch.Tensor
            ``(N, 1, scale * H, scale * W)`` in the same units.
        """
        shallow = self.shallow(self._with_detail(x) if self.architecture.detail_gain else x)
        feature = shallow
        for group in self.groups:
            feature = group(feature)
        output: torch.Tensor = self.tail(self.deep(feature) + shallow)
        return output * self.architecture.residual_scale

    def _with_detail(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(N, 2, H, W)``: the image centred on zero, and its detail."""
        mean = F.avg_pool2d(
            x, DETAIL_WINDOW, stride=1, padding=DETAIL_WINDOW // 2, count_include_pad=False
        )
        return torch.cat([2 * x - 1, (x - mean) * self.architecture.detail_gain], dim=1)


def _tail(architecture: Architecture) -> nn.Sequential:
    channels, scale = architecture.channels, architecture.scale
    if architecture.tail is Tail.CONV_SHUFFLE:
        return nn.Sequential(
            nn.Conv2d(channels, scale**2, 5, padding=2),
            nn.PixelShuffle(scale),
        )
    stages: list[nn.Module] = []
    for _ in range(scale.bit_length() - 1):
        stages += [nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(*stages, nn.Conv2d(channels, 1, 3, padding=1))


def _zero(module: nn.Module) -> None:
    """Start the last layer at zero, so that training starts at the image skip."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
