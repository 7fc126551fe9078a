"""The residual-in-residual network of Khishigdelger, Salem and Kang.

J. Imaging 2024, 10(3), 64. Widths and the slope are not in the paper; what
`Architecture` leaves at its default is this project's choice.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli.restore.architecture import Architecture, ImageSkip, Stem, Tail


class WhiteningStem(nn.Module):
    """The 3x3 cosine transform (DCT-II) around each pixel, scaled by components.

    Nothing here is trained: `fit` sets the scales once from images, and they
    are kept with the weights. It stays in float32 when the network does not:
    differences of neighbours would drown in half precision.
    """

    filters: torch.Tensor
    gains: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        place, order = torch.arange(3), torch.arange(3)[:, None]
        waves = torch.cos(torch.pi * (place + 0.5) * order / 3)
        waves /= waves.norm(dim=1, keepdim=True)
        filters = torch.einsum("ai,bj->abij", waves, waves).reshape(9, 1, 3, 3)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("gains", torch.ones(9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, 1, H, W)`` of about [0, 1] to ``(N, 9, H, W)`` of unit power."""
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(
                F.pad(x - 0.5, (1, 1, 1, 1), mode="replicate"),
                self.filters * self.gains.view(-1, 1, 1, 1),
            )

    @torch.no_grad()
    def fit(self, images: Iterable[torch.Tensor]) -> None:
        """Scale every component to unit power over images ``(N, 1, H, W)``."""
        self.gains.fill_(1)
        power = torch.stack([self(image).square().mean((0, 2, 3)) for image in images])
        self.gains.copy_(power.mean(0).clamp(min=1e-12).rsqrt())


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
        whitened = architecture.stem is Stem.WHITENED
        self.stem = WhiteningStem() if whitened else nn.Identity()
        self.shallow = nn.Conv2d(9 if whitened else 1, channels, 3, padding=1)
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
        shallow = self.shallow(self.stem(x).to(self.shallow.weight.dtype))
        feature = shallow
        for group in self.groups:
            feature = group(feature)
        output: torch.Tensor = self.tail(self.deep(feature) + shallow)
        return output * self.architecture.residual_scale


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
