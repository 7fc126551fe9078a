"""A network compiled to sums of convolutions, through which rows can stream.

A `ConvProgram` computes the same function as its network with less work:
concatenations before a 1x1 convolution become sums, factors go into weights,
and an upsampler in stages, which is linear, becomes one 5x5 convolution.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

IMAGE = 0
"""Number of the program's input among its values. Its layers make the values from 1 on."""

_BICUBIC_RADIUS = 2
_UPSAMPLER_RADIUS = 2


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution that keeps height and width.

    Attributes
    ----------
    weight : torch.Tensor
        ``(O, I, k, k)``, k odd.
    bias : torch.Tensor or None
        ``(O,)``.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None

    @classmethod
    def from_module(cls, module: nn.Conv2d) -> "Conv":
        """Take a module's weights, without gradients."""
        return cls(module.weight.detach(), None if module.bias is None else module.bias.detach())

    @property
    def radius(self) -> int:
        """Pixels on each side that an output pixel depends on."""
        return self.weight.shape[-1] // 2

    def scaled(self, factor: float) -> "Conv":
        """Return it with its output multiplied by a factor."""
        return Conv(self.weight * factor, None if self.bias is None else self.bias * factor)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Conv":
        """Return it on a device, in a precision, channels last."""
        weight = self.weight.to(device, dtype, memory_format=torch.channels_last)
        return Conv(weight, None if self.bias is None else self.bias.to(device, dtype))


@dataclass(frozen=True, slots=True)
class Branch:
    """One term of the sum that a layer computes.

    Attributes
    ----------
    source : int
        Number of a value: `IMAGE`, or that of an earlier layer.
    conv : Conv or None
        Applied to the value; None adds the value itself.
    """

    source: int
    conv: Conv | None = None

    @property
    def radius(self) -> int:
        """Pixels of the source needed on each side."""
        return self.conv.radius if self.conv else 0


@dataclass(frozen=True, slots=True)
class Layer:
    """``leaky_relu(sum of branches)``.

    A 1x1 convolution of concatenated maps is a sum of 1x1 convolutions of each
    (`split_fusion`), so nothing is concatenated.

    Attributes
    ----------
    branches : tuple of Branch
        The first has a convolution.
    negative_slope : float or None
        Of the LeakyReLU; 0 is a ReLU, None is no activation.
    crop_columns : bool
        Drop the columns at the sides that no later layer needs. This costs a
        copy, so not every layer does it. The last layer of a program always does.
    """

    branches: tuple[Branch, ...]
    negative_slope: float | None = None
    crop_columns: bool = False

    @property
    def channels(self) -> int:
        """Channels of its value."""
        return next(branch.conv.weight.shape[0] for branch in self.branches if branch.conv)

    @property
    def dtype(self) -> torch.dtype:
        """Arithmetic in which it is computed."""
        return next(branch.conv.weight.dtype for branch in self.branches if branch.conv)


@dataclass(frozen=True)
class ConvProgram:
    """The function of a network, layer by layer, for any number of rows at a time.

    Attributes
    ----------
    layers : tuple of Layer
        Layer number i makes value ``i + 1``. The last makes the output.
    pixel_shuffle : int
        Factor of the PixelShuffle at the end.
    pre_upscale : int
        Factor of the bicubic interpolation before the first layer.
    float32_layers : int
        This many first layers stay in float32, whatever the precision.
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
        """For each value, the pixels on each side that an output pixel depends on.

        Rows and columns further out need not be computed.
        """
        context = [0] * (len(self.layers) + 1)
        for made in range(len(self.layers), 0, -1):
            for branch in self.layers[made - 1].branches:
                needed = context[made] + branch.radius
                context[branch.source] = max(context[branch.source], needed)
        return tuple(context)

    @cached_property
    def margins(self) -> tuple[int, ...]:
        """For each value, the columns that are computed beyond the image on each side."""
        margins = [self.context_rows[IMAGE]]
        for made, layer in enumerate(self.layers, 1):
            widest = min(margins[branch.source] for branch in layer.branches)
            crop = layer.crop_columns or made == len(self.layers)
            margins.append(self.context_rows[made] if crop else widest)
        return tuple(margins)

    @cached_property
    def consumers(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each value, the values made from it: pairs of a number and a branch's radius."""
        consumers: list[list[tuple[int, int]]] = [[] for _ in self.context_rows]
        for made, layer in enumerate(self.layers, 1):
            for branch in layer.branches:
                consumers[branch.source].append((made, branch.radius))
        return tuple(tuple(pairs) for pairs in consumers)

    @property
    def halo(self) -> int:
        """Pixels of context around the image, at input resolution."""
        interpolation = _BICUBIC_RADIUS if self.pre_upscale > 1 else 0
        return -(-self.context_rows[IMAGE] // self.pre_upscale) + interpolation

    def to(self, device: torch.device, dtype: torch.dtype) -> "ConvProgram":
        """Return it on a device and, but for `float32_layers`, in a precision."""

        def moved() -> Iterator[Layer]:
            for number, layer in enumerate(self.layers):
                kind = torch.float32 if number < self.float32_layers else dtype
                branches = tuple(
                    replace(branch, conv=branch.conv and branch.conv.to(device, kind))
                    for branch in layer.branches
                )
                yield replace(layer, branches=branches)

        return replace(self, layers=tuple(moved()))


class LayerList(list[Layer]):
    """The layers of a program so far."""

    def add(
        self, *branches: Branch, negative_slope: float | None = None, crop_columns: bool = False
    ) -> int:
        """Add a layer, and return the number of its value."""
        self.append(Layer(branches, negative_slope, crop_columns))
        return len(self)


def split_fusion(fusion: nn.Conv2d, sources: Sequence[int]) -> Iterator[Branch]:
    """Split a 1x1 convolution of concatenated values into one branch a value."""
    whole = Conv.from_module(fusion)
    parts = whole.weight.chunk(len(sources), dim=1)
    for number, (source, part) in enumerate(zip(sources, parts, strict=True)):
        yield Branch(source, Conv(part, None if number else whole.bias))


def fuse_upsampler(upsampler: nn.Sequential, scale: int) -> Conv:
    """Return the 5x5 convolution that, followed by a PixelShuffle, equals an upsampler.

    Parameters
    ----------
    upsampler : nn.Sequential
        Maps ``(N, C, H, W)`` to ``(N, 1, scale * H, scale * W)`` by convolutions
        and PixelShuffles only, with a radius of at most two input pixels (`Upsampler`).
    scale : int
        Whole factor.

    Returns
    -------
    Conv
        From C to ``scale**2`` channels. At the border of the image, the stages pad
        with zeros at every resolution, the one convolution at the first. The two
        are equal from the third pixel on.
    """
    first = next(layer for layer in upsampler if isinstance(layer, nn.Conv2d))
    channels, dtype = first.in_channels, first.weight.dtype
    # Large enough that the zeros beyond the border do not reach the response.
    side, middle = 4 * _UPSAMPLER_RADIUS + 1, 2 * _UPSAMPLER_RADIUS
    impulses = torch.zeros(channels + 1, channels, side, side, dtype=torch.float64)
    impulses[range(channels), range(channels), middle, middle] = 1
    responses = F.pixel_unshuffle(copy.deepcopy(upsampler).double()(impulses), scale)
    near = slice(middle - _UPSAMPLER_RADIUS, middle + _UPSAMPLER_RADIUS + 1)
    bias = responses[-1, :, middle, middle]
    # PyTorch's convolution is a correlation: its impulse response is the flipped kernel.
    weight = (responses[:-1, :, near, near] - bias.view(1, -1, 1, 1)).flip(-2, -1)
    return Conv(weight.transpose(0, 1).to(dtype), bias.to(dtype))
