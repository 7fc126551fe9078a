"""A network compiled for work: sums of convolutions that rows can stream through."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch

IMAGE = 0
"""The value that a program is given; its layers make those from 1 on."""

_BICUBIC_REACH = 2


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution that keeps the size of what it sees.

    Attributes
    ----------
    weight : torch.Tensor
        ``(O, I, k, k)``, k odd.
    bias : torch.Tensor or None
        ``(O,)``.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None

    @property
    def radius(self) -> int:
        """Pixels that it reaches over to each side."""
        return self.weight.shape[-1] // 2

    def to(self, device: torch.device, dtype: torch.dtype) -> "Conv":
        """Return it on a device, in a precision, its channels last."""
        weight = self.weight.to(device, dtype, memory_format=torch.channels_last)
        return Conv(weight, None if self.bias is None else self.bias.to(device, dtype))


@dataclass(frozen=True, slots=True)
class Branch:
    """Something that a layer adds up.

    Attributes
    ----------
    source : int
        A value: `IMAGE`, or that of an earlier layer.
    filter : Filter or None
        What it goes through; None adds it as it is.
    """

    source: int
    conv: Conv | None = None

    @property
    def radius(self) -> int:
        """Pixels of the source needed on each side."""
        return self.conv.radius if self.conv else 0


@dataclass(frozen=True, slots=True)
class Layer:
    """``leaky_relu(sum of terms)``.

    A 1x1 convolution of concatenated maps is a sum of 1x1 convolutions of each,
    so that nothing is ever concatenated.

    Attributes
    ----------
    terms : tuple of Term
        One with a filter stands first.
    slope : float or None
        Of the LeakyReLU; 0 is a ReLU, None is none.
    narrow : bool
        Drop the columns at the sides that nothing later needs. It costs a
        copy, so that not every layer does.
    """

    terms: tuple[Branch, ...]
    slope: float | None = None
    crop_columns: bool = False

    @property
    def channels(self) -> int:
        """Width of what it makes."""
        return next(term.conv.weight.shape[0] for term in self.terms if term.conv)

    @property
    def dtype(self) -> torch.dtype:
        """Arithmetic that it is computed in."""
        return next(term.conv.weight.dtype for term in self.terms if term.conv)


@dataclass(frozen=True)
class ConvProgram:
    """What a network computes, layer by layer, for any number of rows at a time.

    Attributes
    ----------
    layers : tuple of Layer
        Layer number i makes value ``i + 1``; the last makes the output.
    shuffle : int
        Factor of the PixelShuffle at the end.
    enlarge : int
        Factor of the bicubic interpolation before the first layer.
    exact : int
        That many first layers stay in float32, whatever the precision.
    """

    layers: tuple[Layer, ...]
    pixel_shuffle: int
    pre_upscale: int = 1
    float32_layers: int = 0

    @property
    def scale(self) -> int:
        """Factor between image and output."""
        return self.pixel_shuffle * self.pre_upscale

    @cached_property
    def context_rows(self) -> tuple[int, ...]:
        """Pixels of each value on each side that an output pixel depends on.

        Rows and columns further out than that need not be computed.
        """
        reach = [0] * (len(self.layers) + 1)
        for made in range(len(self.layers), 0, -1):
            for term in self.layers[made - 1].terms:
                reach[term.source] = max(reach[term.source], reach[made] + term.radius)
        return tuple(reach)

    @cached_property
    def margins(self) -> tuple[int, ...]:
        """Columns of each value that are computed beyond the image on each side."""
        margins = [self.context_rows[IMAGE]]
        for made, layer in enumerate(self.layers, 1):
            widest = min(margins[term.source] for term in layer.terms)
            margins.append(self.context_rows[made] if layer.crop_columns else widest)
        return tuple(margins)

    @cached_property
    def consumers(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each value, who needs it: pairs of a value and the radius of its term."""
        readers: list[list[tuple[int, int]]] = [[] for _ in self.context_rows]
        for made, layer in enumerate(self.layers, 1):
            for term in layer.terms:
                readers[term.source].append((made, term.radius))
        return tuple(tuple(each) for each in readers)

    @property
    def halo(self) -> int:
        """Pixels of context around the image, in its own pixels."""
        interpolation = _BICUBIC_REACH if self.pre_upscale > 1 else 0
        return -(-self.context_rows[IMAGE] // self.pre_upscale) + interpolation

    def to(self, device: torch.device, dtype: torch.dtype) -> "ConvProgram":
        """Return it on a device and in a precision, but for its `exact` layers."""

        def moved() -> Iterator[Layer]:
            for number, layer in enumerate(self.layers):
                kind = torch.float32 if number < self.float32_layers else dtype
                terms = tuple(
                    replace(term, conv=term.conv and term.conv.to(device, kind))
                    for term in layer.terms
                )
                yield replace(layer, terms=terms)

        return replace(self, layers=tuple(moved()))
