"""What a network is made of, as plain data that needs no torch to read."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar


class ImageSkip(StrEnum):
    """What the network's output is added to."""

    NONE = "none"
    """The paper's form: the network makes the whole image."""
    BICUBIC = "bicubic"
    """Bicubic interpolation: training starts from it instead of from nothing."""
    CONSISTENT = "consistent"
    """Bicubic projected on the images that downsample to the input."""


class Tail(StrEnum):
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


SCALES = (2, 4, 8)

_LARGEST_COUNT = 1024
"""Beyond any network of this kind: a header that claims more is damaged."""

DEFAULT_TILE = 512
"""Side of a tile in low-resolution pixels: its halo costs a third more work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Hyper-parameters of a residual-in-residual network.

    Attributes
    ----------
    scale : int
        2, 4 or 8.
    channels : int
        Width of every feature map. The paper does not state it.
    groups, blocks : int
        Residual groups, and residual blocks in each; 4 and 4 in the paper.
    negative_slope : float
        Slope of LeakyReLU. The paper does not state it.
    image_skip : ImageSkip
        What the output is added to.
    tail : Tail
        Form of the upsampler.
    residual_scale : float
        Factor on the network's output; with an image skip, a small one keeps
        early training close to the skip.
    stem : Stem
        What the shallow convolution sees.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    scale: int
    channels: int = 64
    groups: int = 4
    blocks: int = 4
    negative_slope: float = 0.1
    image_skip: ImageSkip = ImageSkip.CONSISTENT
    tail: Tail = Tail.CONV_SHUFFLE
    residual_scale: float = 0.1
    stem: Stem = Stem.WHITENED

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale is {self.scale}; it must be one of {SCALES}")
        for name in ("channels", "groups", "blocks"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= _LARGEST_COUNT:
                raise ValueError(f"{name} must be a whole number from 1 to {_LARGEST_COUNT}")
        for name in ("negative_slope", "residual_scale"):
            if not isinstance(getattr(self, name), int | float):
                raise ValueError(f"{name} must be a number")

    @property
    def receptive_radius(self) -> int:
        """Input pixels on each side that can influence an output pixel.

        Each residual block reaches 2 further by its 5x5 branch; blocks are
        chained, so they add up. Two 3x3 convolutions stand around the groups.
        A staged tail never reaches further than the 5x5 that it is equal to.
        """
        stem = 1 if self.stem is Stem.WHITENED else 0
        return stem + 1 + 2 * self.groups * self.blocks + 1 + 2
