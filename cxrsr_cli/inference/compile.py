"""Compile a trained network to a `ConvProgram`: the same function, with less to do.

Concatenations before a 1x1 convolution become sums, factors go into weights,
and a staged upsampler, which is linear, becomes one 5x5 convolution.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli.networks.conv_program import IMAGE, Branch, Conv, ConvProgram, Layer
from cxrsr_cli.networks.layers import PostUpsampler, SuperResolutionNetwork, WhiteningStem
from cxrsr_cli.networks.rir import ResidualBlock, ResidualGroup
from cxrsr_cli.networks.rivals import EdsrBlock, Srcnn

_TAIL_RADIUS = 2


@torch.no_grad()
def compile_network(network: SuperResolutionNetwork) -> ConvProgram | None:
    """Compile a network.

    Parameters
    ----------
    network : SuperResolver
        Trained, on the CPU.

    Returns
    -------
    Program or None
        In the network's precision; equal to the network wherever that sees no
        zero padding. None for a network that averages the whole image, through
        which rows cannot stream.

    Raises
    ------
    TypeError
        For a network of no known family.
    """
    if network.architecture.needs_whole_image:
        return None
    match network:
        case PostUpsampler():
            return _post_upsampler(network)
        case Srcnn():
            return _srcnn(network)
        case _:
            raise TypeError(f"no way is known to compile a {type(network).__name__}")


class _ProgramBuilder(list[Layer]):
    """Layers so far; adding one returns the value that it makes."""

    def add(self, *terms: Branch, slope: float | None = None, narrow: bool = False) -> int:
        self.append(Layer(terms, slope, narrow))
        return len(self)


def _post_upsampler(network: PostUpsampler) -> ConvProgram:
    layers = _ProgramBuilder()
    seen, exact = IMAGE, 0
    if isinstance(network.stem, WhiteningStem):
        seen, exact = layers.add(Branch(IMAGE, _whitening(network.stem))), 1
    shallow = feature = layers.add(Branch(seen, _filter(network.shallow)))
    for part in network.groups:
        feature = _part(layers, part, feature)
    skip = [Branch(shallow)] if network.long_skip else []
    deep = layers.add(Branch(feature, _filter(network.deep)), *skip)
    scale = network.architecture.scale
    tail = _scaled(fuse_upsampler(network.tail, scale), network.architecture.residual_scale)
    layers.add(Branch(deep, tail), narrow=True)
    return ConvProgram(tuple(layers), pixel_shuffle=scale, float32_layers=exact)


def _part(layers: _ProgramBuilder, part: nn.Module, x: int) -> int:
    match part:
        case ResidualGroup():
            return _group(layers, part, x)
        case EdsrBlock():
            first = layers.add(Branch(x, _filter(part.first)), slope=0.0)
            second = _scaled(_filter(part.second), part.scale)
            return layers.add(Branch(first, second), Branch(x), narrow=True)
        case _:
            raise TypeError(f"no way is known to compile a {type(part).__name__}")


def _group(layers: _ProgramBuilder, group: ResidualGroup, x: int) -> int:
    outputs, feature = [], x
    for block in group.blocks:
        feature = _block(layers, block, feature)
        outputs.append(feature)
    kept = [*outputs, x] if group.dense else [feature]
    return layers.add(*_fused(group.fuse, kept), narrow=True)


def _block(layers: _ProgramBuilder, block: nn.Module, x: int) -> int:
    if not isinstance(block, ResidualBlock):
        raise TypeError(f"no way is known to compile a {type(block).__name__}")
    branches = [
        layers.add(Branch(x, _filter(branch)), slope=block.negative_slope)
        for branch in block.branches
        if isinstance(branch, nn.Conv2d)
    ]
    return layers.add(*_fused(block.fuse, branches), Branch(x))


def _srcnn(network: Srcnn) -> ConvProgram:
    scale = network.architecture.scale
    layers = _ProgramBuilder()
    extracted = layers.add(Branch(IMAGE, _filter(network.extract)), slope=0.0)
    mapped = layers.add(Branch(extracted, _filter(network.map)), slope=0.0)
    last = _scaled(_filter(network.reconstruct), network.architecture.residual_scale)
    layers.add(Branch(mapped, last), narrow=True)
    return ConvProgram(tuple(layers), pixel_shuffle=1, pre_upscale=scale)


def fuse_upsampler(tail: nn.Sequential, scale: int) -> Conv:
    """Return the one 5x5 convolution that, with a PixelShuffle, an upsampler is.

    Parameters
    ----------
    tail : nn.Sequential
        Maps ``(N, C, H, W)`` to ``(N, 1, scale * H, scale * W)`` by convolutions
        and PixelShuffles only, reaching over two input pixels at most (`Upsampler`).
    scale : int
        Whole factor.

    Returns
    -------
    Filter
        C to ``scale**2`` maps. A staged upsampler sees zeros beyond its border at
        every stage, the one convolution at the first: equal two pixels inside.
    """
    first = next(layer for layer in tail if isinstance(layer, nn.Conv2d))
    channels, dtype = first.in_channels, first.weight.dtype
    # The border's zeros are seen two pixels in; the answer to an impulse lies within.
    side, middle = 4 * _TAIL_RADIUS + 1, 2 * _TAIL_RADIUS
    impulses = torch.zeros(channels + 1, channels, side, side, dtype=torch.float64)
    impulses[range(channels), range(channels), middle, middle] = 1
    answers = F.pixel_unshuffle(copy.deepcopy(tail).double()(impulses), scale)
    near = slice(middle - _TAIL_RADIUS, middle + _TAIL_RADIUS + 1)
    bias = answers[-1, :, middle, middle]
    # A convolution as networks have it answers an impulse by its kernel turned about.
    weight = (answers[:-1, :, near, near] - bias.view(1, -1, 1, 1)).flip(-2, -1)
    return Conv(weight.transpose(0, 1).to(dtype), bias.to(dtype))


def _whitening(stem: WhiteningStem) -> Conv:
    weight = stem.filters * stem.gains.view(-1, 1, 1, 1)
    return Conv(weight, -0.5 * weight.sum((1, 2, 3)))


def _filter(convolution: nn.Conv2d) -> Conv:
    return Conv(convolution.weight.detach(), _detached(convolution.bias))


def _scaled(one: Conv, factor: float) -> Conv:
    return Conv(one.weight * factor, None if one.bias is None else one.bias * factor)


def _fused(fuse: nn.Conv2d, sources: Sequence[int]) -> Iterator[Branch]:
    """Cut a 1x1 convolution of concatenated values into one for each."""
    parts = fuse.weight.detach().chunk(len(sources), dim=1)
    for number, (source, part) in enumerate(zip(sources, parts, strict=True)):
        yield Branch(source, Conv(part, None if number else _detached(fuse.bias)))


def _detached(bias: torch.Tensor | None) -> torch.Tensor | None:
    return None if bias is None else bias.detach()
