"""What a network costs, counted from its description without building it."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """One convolution of a network, with a bias for every output.

    Attributes
    ----------
    inputs, outputs : int
        Channels.
    kernel : int
        Side of its square kernel.
    places : int
        Positions it is computed at for each pixel of the input image: 1 at
        input resolution, ``4`` after a PixelShuffle by 2, and 0 where it is
        computed once for the whole image, as in channel attention.
    trained : bool
        False for a fixed transform, which has no parameters.
    """

    inputs: int
    outputs: int
    kernel: int
    positions_per_pixel: int = 1
    trained: bool = True

    @property
    def parameters(self) -> int:
        """Trained weights and biases."""
        weights = self.kernel**2 * self.inputs * self.outputs
        return weights + self.outputs if self.trained else 0

    @property
    def macs(self) -> int:
        """Multiplications with additions for each pixel of the input image."""
        return self.kernel**2 * self.inputs * self.outputs * self.positions_per_pixel


@dataclass(frozen=True, slots=True)
class NetworkComplexity:
    """Size of a network and work for each pixel of the input image.

    Attributes
    ----------
    parameters : int
        Trained ones.
    macs : int
        Of its convolutions; interpolation, activations, and what channel
        attention multiplies are not counted, as is usual.
    """

    parameters: int
    macs: int

    @classmethod
    def of(cls, convolutions: Iterable[ConvSpec]) -> "NetworkComplexity":
        """Add up."""
        listed = list(convolutions)
        return cls(sum(one.parameters for one in listed), sum(one.macs for one in listed))


def channel_attention_convs(channels: int, reduction: int) -> list[ConvSpec]:
    """Return the two convolutions of channel attention: no work that grows with the image."""
    squeezed = channels // reduction
    return [ConvSpec(channels, squeezed, 1, 0), ConvSpec(squeezed, channels, 1, 0)]
