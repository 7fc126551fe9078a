"""What the families' configurations have in common, such as scale and image skip, without torch.

A family's own configuration, module and compilation are in one file (`rir`,
`srcnn`, `edsr`, `rcan`), which `cxrsr_cli.networks.registry` names.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import nn


class Precision(StrEnum):
    """Arithmetic inside the network. Everything around the network is float32."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class ImageSkip(StrEnum):
    """What the network's output is added to."""

    NONE = "none"
    """Nothing: the network makes the whole image, as in the papers."""
    BICUBIC = "bicubic"
    """Bicubic interpolation of the input. Training starts from it instead of from zero."""


class Agreement(StrEnum):
    """How close the means of an output's blocks are to the source's pixels."""

    EXACT = "exact"
    """Equal, but for rounding."""
    NOISE = "noise"
    """To within the noise that was estimated in the source."""
    NONE = "none"
    """Whatever the network makes."""


class Upsampler(StrEnum):
    """How feature maps become the upscaled image."""

    SHUFFLE_CONV = "shuffle_conv"
    """Stages of a 3x3 convolution and a PixelShuffle, then a 3x3 convolution, as in the papers."""
    CONV_SHUFFLE = "conv_shuffle"
    """One 5x5 convolution to scale**2 maps and one PixelShuffle: the same linear map."""


class Stem(StrEnum):
    """What the first convolution sees."""

    PLAIN = "plain"
    """The image, as in the papers."""
    WHITENED = "whitened"
    """The 3x3 cosine transform around each pixel, with every component scaled to
    unit power on the training images. A convolution could learn this linear map.
    Given it, training need not find fine detail, a hundredth of the range, beside
    the brightness that the image skip carries."""


SCALES = (2, 4, 8)

DEFAULT_NOISE_REDUCTION = 0.3
"""Share of the input's noise that is removed; the output shows the rest as bicubic interpolation
would."""
DEFAULT_NOISE_SHARE = 1 - DEFAULT_NOISE_REDUCTION

_MAX_COUNT = 1024
"""More than any network of this kind has: a header that states more is damaged."""

_MAX_KERNEL = 15

_WHOLE_IMAGE_HALO = 32
"""Pixels; about the receptive radius of networks of this size without attention."""


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """One convolution of a network.

    Attributes
    ----------
    inputs, outputs : int
        Channels.
    kernel : int
        Side of its square kernel.
    positions_per_pixel : int
        Positions at which it is computed for each pixel of the input image: 1 at
        input resolution, 4 after a PixelShuffle by 2, and 0 where it is computed
        once for the whole image, as in channel attention.
    trained : bool
        False for a fixed transform, which has no parameters.
    bias : bool
        Whether it has a bias for every output.
    """

    inputs: int
    outputs: int
    kernel: int
    positions_per_pixel: int = 1
    trained: bool = True
    bias: bool = True

    @property
    def parameters(self) -> int:
        """Trained weights and biases."""
        weights = self.kernel**2 * self.inputs * self.outputs
        return weights + self.bias * self.outputs if self.trained else 0

    @property
    def macs(self) -> int:
        """Multiplications with additions for each pixel of the input image."""
        return self.kernel**2 * self.inputs * self.outputs * self.positions_per_pixel


def noise_share_convs(channels: int) -> list[ConvSpec]:
    """Return what adds the share of noise to feature maps (`layers.NoiseShare`)."""
    return [ConvSpec(1, channels, 1, 0, bias=False)]


def channel_attention_convs(channels: int, reduction: int) -> list[ConvSpec]:
    """Return the two convolutions of channel attention. Their work is the same for any image."""
    squeezed = channels // reduction
    return [ConvSpec(channels, squeezed, 1, 0), ConvSpec(squeezed, channels, 1, 0)]


@dataclass(frozen=True, slots=True)
class NetworkComplexity:
    """Size of a network and work for each pixel of the input image.

    Attributes
    ----------
    parameters : int
        Trained weights and biases.
    macs : int
        Multiplications with additions of the convolutions. As is usual,
        interpolation, activations and the product of channel attention do not count.
    """

    parameters: int
    macs: int

    @classmethod
    def from_convolutions(cls, convolutions: Iterable[ConvSpec]) -> "NetworkComplexity":
        """Add up the convolutions."""
        specs = list(convolutions)
        return cls(sum(spec.parameters for spec in specs), sum(spec.macs for spec in specs))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig(ABC):
    """Hyper-parameters that every network has.

    Attributes
    ----------
    network : str
        The family's name in `cxrsr_cli.networks.registry.FAMILIES`.
    scale : int
        2, 4 or 8.
    image_skip : ImageSkip
        What the output is added to.
    residual_scale : float
        Factor on the network's output. With an image skip, a small factor keeps
        early training close to the skip.
    impulse_filter : bool
        Network and image skip see the input without impulse noise.
    noise_share : bool
        The network is told which share of the input's noise its output keeps.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    network: ClassVar[str]

    scale: int
    image_skip: ImageSkip = ImageSkip.BICUBIC
    residual_scale: float = 0.1
    impulse_filter: bool = False
    noise_share: bool = False

    def __post_init__(self) -> None:
        if type(self.scale) is not int or self.scale not in SCALES:
            raise ValueError(f"scale is {self.scale}; it must be one of {SCALES}")
        self._check_number("residual_scale")
        self._check_switches("impulse_filter", "noise_share")

    @abstractmethod
    def build(self) -> "nn.Module":
        """Make the untrained `SuperResolutionNetwork` (`layers.build_network`)."""

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

        So it is with channel attention: it averages whole feature maps, and a
        strip's averages differ from those of the whole image.
        """
        return False

    @property
    def halo(self) -> int:
        """Input pixels of reflection around the image.

        As many as the receptive radius: a convolution sees nothing beyond it. A
        network that sees the whole image sees its reflection too. There the halo
        only softens the border and is limited.
        """
        if self.needs_whole_image:
            return min(self.receptive_radius, _WHOLE_IMAGE_HALO)
        return self.receptive_radius

    @property
    def complexity(self) -> NetworkComplexity:
        """Parameters, and multiplications for each input pixel."""
        return NetworkComplexity.from_convolutions(self.convolutions())

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types that `registry.config_from_dict` reads."""
        plain: dict[str, Any] = {"network": self.network}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, StrEnum):
                value = value.value
            plain[field.name] = list(value) if isinstance(value, tuple) else value
        return plain

    def _check_counts(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            # True is an int as well.
            if type(value) is not int or not 1 <= value <= _MAX_COUNT:
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
    """A network that works at input resolution and upsamples at its end.

    Attributes
    ----------
    channels : int
        Width of every feature map.
    upsampler : Upsampler
        Form of the upsampler.
    stem : Stem
        What the first convolution sees.
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
        """Receptive radius of the body, between the first and the last 3x3 convolution."""

    @abstractmethod
    def body(self) -> list[ConvSpec]:
        """List the body's convolutions."""

    @property
    def receptive_radius(self) -> int:
        """Input pixels on each side that convolutions carry to an output pixel.

        Two 3x3 convolutions stand around the body. An upsampler in stages reaches
        no further than the 5x5 convolution that it is equal to.
        """
        stem = 1 if self.stem is Stem.WHITENED else 0
        return stem + 1 + self.body_radius + 1 + 2

    def convolutions(self) -> list[ConvSpec]:
        """List every convolution."""
        channels = self.channels
        stem = [ConvSpec(1, 9, 3, trained=False)] if self.stem is Stem.WHITENED else []
        shallow = [ConvSpec(9 if stem else 1, channels, 3)]
        shallow += noise_share_convs(channels) if self.noise_share else []
        deep = ConvSpec(channels, channels, 3)
        return [*stem, *shallow, *self.body(), deep, *self._upsampler_convs()]

    def _upsampler_convs(self) -> list[ConvSpec]:
        channels, scale = self.channels, self.scale
        if self.upsampler is Upsampler.CONV_SHUFFLE:
            return [ConvSpec(channels, scale**2, 5)]
        stages = [
            ConvSpec(channels, 4 * channels, 3, positions_per_pixel=4**stage)
            for stage in range(scale.bit_length() - 1)
        ]
        return [*stages, ConvSpec(channels, 1, 3, positions_per_pixel=scale**2)]
