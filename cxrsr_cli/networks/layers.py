"""What networks share: the base class, the stem, channel attention, the upsampler."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli.networks.config import (
    ImageSkip,
    NetworkConfig,
    PostUpsamplingConfig,
    Stem,
    Upsampler,
)
from cxrsr_cli.networks.conv_program import (
    IMAGE,
    Branch,
    Conv,
    ConvProgram,
    LayerList,
    fuse_upsampler,
)


def cosine_filters(side: int) -> torch.Tensor:
    """Return the filters of the cosine transform (DCT-II), ``(side**2, 1, side, side)``."""
    position, order = torch.arange(side), torch.arange(side)[:, None]
    waves = torch.cos(torch.pi * (position + 0.5) * order / side)
    waves /= waves.norm(dim=1, keepdim=True)
    return torch.einsum("ai,bj->abij", waves, waves).reshape(-1, 1, side, side)


class WhiteningStem(nn.Module):
    """The 3x3 cosine transform (DCT-II) around each pixel, each component scaled.

    Nothing here is trained. `fit` sets the scales once from images, and they are
    saved with the weights. The stem stays in float32 when the network does not,
    because half precision would lose the differences of neighbours.
    """

    filters: torch.Tensor
    gains: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", cosine_filters(3), persistent=False)
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

    def to_conv(self) -> Conv:
        """Return the same map as one convolution."""
        weight = self.filters * self.gains.view(-1, 1, 1, 1)
        return Conv(weight, -0.5 * weight.sum((1, 2, 3)))


class ChannelAttention(nn.Module):
    """``x * sigmoid(conv1x1(relu(conv1x1(mean(x)))))`` (RCAN, Equations 10 and 11)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.excite = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C, H, W)``; the mean is over H and W."""
        mean = x.mean((-2, -1), keepdim=True)
        gate: torch.Tensor = self.excite(F.relu(self.squeeze(mean)))
        return x * gate.sigmoid()


class NoiseShare(nn.Module):
    """Tell a network which share of the noise its output keeps.

    A constant plane as one more input of a convolution is a bias for every map.

    Parameters
    ----------
    channels : int
        Maps of the convolution.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor, share: torch.Tensor | float) -> torch.Tensor:
        """Add the share, a number or ``(N, 1, 1, 1)``, to ``(N, C, H, W)``."""
        if isinstance(share, torch.Tensor):
            share = share.to(x.dtype)
        return x + self.weight.view(1, -1, 1, 1) * share

    def add_to(self, conv: Conv, share: float) -> Conv:
        """Return the convolution with the share in its bias."""
        added = self.weight.detach() * share
        return Conv(conv.weight, added if conv.bias is None else conv.bias + added)


class SuperResolutionNetwork(nn.Module, ABC):
    """A network of any family.

    It makes the *residual*: what is added to the image skip of its architecture
    (`cxrsr_cli.inference.assemble`), or with `ImageSkip.NONE` the image.

    Parameters
    ----------
    architecture : NetworkConfig
        Its configuration.
    stem : nn.Module
        What stands before the first trained layer. It works in float32, whatever
        the precision of the rest.
    """

    def __init__(self, architecture: NetworkConfig, stem: nn.Module) -> None:
        super().__init__()
        self.architecture = architecture
        self.stem = stem

    def forward(self, x: torch.Tensor, noise_share: torch.Tensor | float = 1.0) -> torch.Tensor:
        """Compute the residual.

        Parameters
        ----------
        x : torch.Tensor
            ``(N, 1, H, W)``, image values mapped to about [0, 1].
        noise_share : torch.Tensor or float
            Share of the input's noise that the output keeps, within [0, 1]: one
            number or ``(N, 1, 1, 1)``. Only a network with
            `NetworkConfig.noise_share` uses it.

        Returns
        -------
        torch.Tensor
            ``(N, 1, scale * H, scale * W)`` in the same units.
        """
        dtype = next(self.parameters()).dtype
        residual = self.residual(self.stem(x).to(dtype), noise_share)
        return residual * self.architecture.residual_scale

    @abstractmethod
    def residual(self, x: torch.Tensor, noise_share: torch.Tensor | float) -> torch.Tensor:
        """Map the stem's output, in the network's precision, to the unscaled residual."""

    def to_conv_program(self, noise_share: float = 1.0) -> ConvProgram | None:  # noqa: ARG002
        """Compile the network for one share of noise.

        Returns
        -------
        ConvProgram or None
            In the network's precision; equal to the network wherever that sees no
            zero padding. None for a network that must see the whole image at once.
        """
        return None


def build_network(config: NetworkConfig) -> SuperResolutionNetwork:
    """Make an untrained network, in training mode, in float32, on the CPU.

    Raises
    ------
    TypeError
        If the family's module is no `SuperResolutionNetwork`.
    """
    network = config.build()
    if not isinstance(network, SuperResolutionNetwork):
        raise TypeError(f"{type(network).__name__} is no SuperResolutionNetwork")
    return network


class PostUpsampler(SuperResolutionNetwork):
    """Shallow convolution, body, deep convolution, long skip, upsampler.

    Parameters
    ----------
    architecture : PostUpsamplingConfig
        Its configuration.
    make_body : callable
        Makes the modules of the body; each feeds the next.
    long_skip : bool
        Add the shallow features to the deep ones.

    Notes
    -----
    A module draws its initial weights from PyTorch's global generator when it is
    made. The order here, shallow, body, deep, upsampler, therefore decides the
    initial weights of a seed.
    """

    def __init__(
        self,
        architecture: PostUpsamplingConfig,
        make_body: Callable[[], Iterable[nn.Module]],
        *,
        long_skip: bool = True,
    ) -> None:
        whitened = architecture.stem is Stem.WHITENED
        super().__init__(architecture, WhiteningStem() if whitened else nn.Identity())
        channels = architecture.channels
        self.shallow = nn.Conv2d(9 if whitened else 1, channels, 3, padding=1)
        self.share = NoiseShare(channels) if architecture.noise_share else None
        self.groups = nn.ModuleList(make_body())
        self.deep = nn.Conv2d(channels, channels, 3, padding=1)
        self.tail = _upsampler(architecture)
        self.long_skip = long_skip
        if architecture.image_skip is not ImageSkip.NONE:
            zero_init(self.tail[-1 if architecture.upsampler is Upsampler.SHUFFLE_CONV else 0])

    def residual(self, x: torch.Tensor, noise_share: torch.Tensor | float) -> torch.Tensor:
        """Map ``(N, 1 or 9, H, W)`` to ``(N, 1, scale * H, scale * W)``."""
        shallow = self.shallow(x)
        if self.share:
            shallow = self.share(shallow, noise_share)
        feature = shallow
        for part in self.groups:
            feature = part(feature)
        deep = self.deep(feature)
        output: torch.Tensor = self.tail(deep + shallow if self.long_skip else deep)
        return output

    @torch.no_grad()
    def to_conv_program(self, noise_share: float = 1.0) -> ConvProgram | None:
        """Compile the network, if its family compiles its body."""
        layers = LayerList()
        stem = IMAGE
        if isinstance(self.stem, WhiteningStem):
            stem = layers.add(Branch(IMAGE, self.stem.to_conv()))
        float32_layers = len(layers)
        first = Conv.from_module(self.shallow)
        if self.share:
            first = self.share.add_to(first, noise_share)
        shallow = layers.add(Branch(stem, first))
        body = self.compile_body(layers, shallow)
        if body is None:
            return None
        skip = [Branch(shallow)] if self.long_skip else []
        deep = layers.add(Branch(body, Conv.from_module(self.deep)), *skip)
        scale = self.architecture.scale
        upsampler = fuse_upsampler(self.tail, scale).scaled(self.architecture.residual_scale)
        layers.add(Branch(deep, upsampler))
        return ConvProgram(tuple(layers), pixel_shuffle=scale, float32_layers=float32_layers)

    def compile_body(self, layers: LayerList, value: int) -> int | None:  # noqa: ARG002
        """Add the body's layers.

        Parameters
        ----------
        layers : LayerList
            Gets them.
        value : int
            Number of the body's input.

        Returns
        -------
        int or None
            Number of the body's output. None if the body must see the whole image.
        """
        return None


def zero_init(module: nn.Module) -> None:
    """Set the last layer to zero, so that training starts at the image skip."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def _upsampler(architecture: PostUpsamplingConfig) -> nn.Sequential:
    channels, scale = architecture.channels, architecture.scale
    if architecture.upsampler is Upsampler.CONV_SHUFFLE:
        return nn.Sequential(
            nn.Conv2d(channels, scale**2, 5, padding=2),
            nn.PixelShuffle(scale),
        )
    stages: list[nn.Module] = []
    for _ in range(scale.bit_length() - 1):
        stages += [nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(*stages, nn.Conv2d(channels, 1, 3, padding=1))
