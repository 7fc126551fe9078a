"""What a network is made of, as plain data that needs no torch to read.

`NetworkConfig` is what every network has. `RirConfig` here describes this
project's network and its ablations; its rivals are in `rival_architectures`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar

from cxrsr_cli.networks.complexity import ConvSpec, NetworkComplexity, channel_attention_convs


class Precision(StrEnum):
    """Arithmetic inside the network. Everything around the network is float32."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class NetworkFamily(StrEnum):
    """Families of networks: what ``network:`` names in a configuration."""

    RIR = "rir"
    """Residual in residual (Khishigdelger et al., J. Imaging 2024, 10(3), 64)."""
    SRCNN = "srcnn"
    """Dong et al., ECCV 2014 and TPAMI 2016."""
    EDSR = "edsr"
    """Lim et al., CVPR workshops 2017."""
    RCAN = "rcan"
    """Zhang et al., ECCV 2018."""


class ImageSkip(StrEnum):
    """What the network's output is added to."""

    NONE = "none"
    """The paper's form: the network makes the whole image."""
    BICUBIC = "bicubic"
    """Bicubic interpolation: training starts from it instead of from nothing."""
    CONSISTENT = "consistent"
    """Bicubic projected on the images that downsample to the input."""


class Upsampler(StrEnum):
    """How features become the enlarged image."""

    SHUFFLE_CONV = "shuffle_conv"
    """The paper's: 3x3 convolution and PixelShuffle by stages, then a 3x3."""
    CONV_SHUFFLE = "conv_shuffle"
    """One 5x5 convolution to scale**2 maps, one PixelShuffle: the same linear map."""


class Stem(StrEnum):
    """What the shallow convolution sees."""

    PLAIN = "plain"
    """The paper's: the image."""
    WHITENED = "whitened"
    """The 3x3 cosine transform around each pixel, every component scaled to
    unit power on the training images. A linear change of coordinates that a
    convolution could learn; given it, training need not find fine detail, a
    hundredth of the range, beside the brightness that the image skip carries."""


class Attention(StrEnum):
    """Where RCAN's channel attention stands in a residual-in-residual network."""

    NONE = "none"
    """The paper's form."""
    BLOCK = "block"
    """On what each block adds to its input."""
    GROUP = "group"
    """On what each group makes."""


SCALES = (2, 4, 8)

_MAX_COUNT = 1024
"""Beyond any network of this kind: a header that claims more is damaged."""

_MAX_KERNEL = 15

_WHOLE_IMAGE_HALO = 32
"""About what the local networks of this size see beyond the border."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig(ABC):
    """Hyper-parameters that every network has.

    Attributes
    ----------
    scale : int
        2, 4 or 8.
    image_skip : ImageSkip
        What the output is added to.
    residual_scale : float
        Factor on the network's output; with an image skip, a small one keeps
        early training close to the skip.
    impulse_filter : bool
        Network and image skip see the input without impulse noise.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    network: ClassVar[NetworkFamily]

    scale: int
    image_skip: ImageSkip = ImageSkip.CONSISTENT
    residual_scale: float = 0.1
    impulse_filter: bool = False

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale is {self.scale}; it must be one of {SCALES}")
        self._check_number("residual_scale")
        self._check_switches("impulse_filter")

    @property
    @abstractmethod
    def receptive_radius(self) -> int:
        """Input pixels on each side that convolutions carry to an output pixel."""

    @abstractmethod
    def convolutions(self) -> list[ConvSpec]:
        """List every convolution."""

    @property
    def needs_whole_image(self) -> bool:
        """Whether every output pixel depends on every input pixel.

        Channel attention averages whole maps; no strip has the whole's averages.
        """
        return False

    @property
    def halo(self) -> int:
        """Input pixels of reflection around the image.

        The receptive radius, beyond which nothing is seen. A network that sees the
        whole image sees its reflection too, and needs only enough to soften the border.
        """
        if self.needs_whole_image:
            return min(self.receptive_radius, _WHOLE_IMAGE_HALO)
        return self.receptive_radius

    @property
    def cost(self) -> NetworkComplexity:
        """Parameters, and multiplications for each input pixel."""
        return NetworkComplexity.of(self.convolutions())

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, as `family.config_from_dict` reads them."""
        plain: dict[str, Any] = {"network": self.network.value}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, StrEnum):
                value = value.value
            plain[field.name] = list(value) if isinstance(value, tuple) else value
        return plain

    def _check_counts(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= _MAX_COUNT:
                raise ValueError(f"{name} must be a whole number from 1 to {_MAX_COUNT}")

    def _check_switches(self, *names: str) -> None:
        for name in names:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false")

    def _check_number(self, name: str) -> None:
        if not isinstance(getattr(self, name), int | float):
            raise ValueError(f"{name} must be a number")

    def _check_kernels(self, name: str, kernels: tuple[int, ...]) -> None:
        if not all(isinstance(one, int) and one in range(1, _MAX_KERNEL + 1, 2) for one in kernels):
            raise ValueError(f"{name}: sides of kernels are odd, from 1 to {_MAX_KERNEL}")

    def _check_reduction(self, channels: int, reduction: int) -> None:
        if reduction > channels:
            raise ValueError(f"reduction is {reduction}, more than the {channels} channels")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostUpsamplingConfig(NetworkConfig):
    """A network that works at input resolution and enlarges at its end.

    Attributes
    ----------
    channels : int
        Width of every feature map.
    upsampler : Upsampler
        Form of the upsampler.
    stem : Stem
        What the shallow convolution sees.
    """

    channels: int = 64
    upsampler: Upsampler = Upsampler.SHUFFLE_CONV
    stem: Stem = Stem.PLAIN

    def __post_init__(self) -> None:
        NetworkConfig.__post_init__(self)
        self._check_counts("channels")

    @property
    @abstractmethod
    def body_radius(self) -> int:
        """Reach of what stands between the shallow and the deep convolution."""

    @abstractmethod
    def body(self) -> list[ConvSpec]:
        """List what stands between the shallow and the deep convolution."""

    @property
    def receptive_radius(self) -> int:
        """Input pixels on each side that convolutions carry to an output pixel.

        Two 3x3 convolutions stand around the body. A staged tail never reaches
        further than the 5x5 that it is equal to.
        """
        stem = 1 if self.stem is Stem.WHITENED else 0
        return stem + 1 + self.body_radius + 1 + 2

    def convolutions(self) -> list[ConvSpec]:
        """List every convolution."""
        channels = self.channels
        stem = [ConvSpec(1, 9, 3, trained=False)] if self.stem is Stem.WHITENED else []
        shallow = ConvSpec(9 if stem else 1, channels, 3)
        deep = ConvSpec(channels, channels, 3)
        return [*stem, shallow, *self.body(), deep, *self._tail()]

    def _tail(self) -> list[ConvSpec]:
        channels, scale = self.channels, self.scale
        if self.upsampler is Upsampler.CONV_SHUFFLE:
            return [ConvSpec(channels, scale**2, 5)]
        stages = [
            ConvSpec(channels, 4 * channels, 3, positions_per_pixel=4**stage)
            for stage in range(scale.bit_length() - 1)
        ]
        return [*stages, ConvSpec(channels, 1, 3, positions_per_pixel=scale**2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RirConfig(PostUpsamplingConfig):
    """A residual-in-residual network, or an ablation of it.

    Attributes
    ----------
    groups, blocks : int
        Residual groups, and residual blocks in each; 4 and 4 in the paper. The
        paper does not state `channels`.
    negative_slope : float
        Slope of LeakyReLU. The paper does not state it.
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

    network: ClassVar[NetworkFamily] = NetworkFamily.RIR

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

    @property
    def branch_width(self) -> int:
        """Width of each parallel convolution of a block."""
        return self.channels if self.branch_channels is None else self.branch_channels

    @property
    def needs_whole_image(self) -> bool:
        """Whether every output pixel depends on every input pixel."""
        return self.attention is not Attention.NONE

    @property
    def body_radius(self) -> int:
        """Blocks are chained, so the reaches of their widest branches add up."""
        return max(self.kernels) // 2 * self.groups * self.blocks

    def body(self) -> list[ConvSpec]:
        """List the groups' convolutions."""
        channels, width = self.channels, self.branch_width
        squeeze = channel_attention_convs(channels, self.reduction) if self.needs_whole_image else []
        block = [ConvSpec(channels, width, kernel) for kernel in self.kernels]
        block += [ConvSpec(len(self.kernels) * width, channels, 1)]
        block += squeeze if self.attention is Attention.BLOCK else []
        fused = (self.blocks + 1) * channels if self.dense else channels
        group = block * self.blocks + [ConvSpec(fused, channels, 1)]
        group += squeeze if self.attention is Attention.GROUP else []
        return group * self.groups
