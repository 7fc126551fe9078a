"""Compile a trained network to a `Program`: the same function, with less to do.

Concatenations before a 1x1 convolution become sums, factors go into weights,
and a staged upsampler, which is linear, becomes one 5x5 convolution.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli.restore.network import ResidualBlock, ResidualGroup
from cxrsr_cli.restore.parts import PostUpsampler, SuperResolver, WhiteningStem
from cxrsr_cli.restore.program import IMAGE, Filter, Layer, Program, Term
from cxrsr_cli.restore.rivals import EdsrBlock, Srcnn

_TAIL_RADIUS = 2


@torch.no_grad()
def lower(network: SuperResolver) -> Program | None:
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
    if network.architecture.whole_image:
        return None
    match network:
        case PostUpsampler():
            return _post_upsampler(network)
        case Srcnn():
            return _srcnn(network)
        case _:
            raise TypeError(f"no way is known to compile a {type(network).__name__}")


class _Layers(list[Layer]):
    """Layers so far; adding one returns the value that it makes."""

    def add(self, *terms: Term, slope: float | None = None, narrow: bool = False) -> int:
        self.append(Layer(terms, slope, narrow))
        return len(self)


def _post_upsampler(network: PostUpsampler) -> Program:
    layers = _Layers()
    seen, exact = IMAGE, 0
    if isinstance(network.stem, WhiteningStem):
        seen, exact = layers.add(Term(IMAGE, _whitening(network.stem))), 1
    shallow = feature = layers.add(Term(seen, _filter(network.shallow)))
    for part in network.groups:
        feature = _part(layers, part, feature)
    skip = [Term(shallow)] if network.long_skip else []
    deep = layers.add(Term(feature, _filter(network.deep)), *skip)
    scale = network.architecture.scale
    tail = _scaled(collapse(network.tail, scale), network.architecture.residual_scale)
    layers.add(Term(deep, tail), narrow=True)
    return Program(tuple(layers), shuffle=scale, exact=exact)


def _part(layers: _Layers, part: nn.Module, x: int) -> int:
    match part:
        case ResidualGroup():
            return _group(layers, part, x)
        case EdsrBlock():
            first = layers.add(Term(x, _filter(part.first)), slope=0.0)
            second = _scaled(_filter(part.second), part.scale)
            return layers.add(Term(first, second), Term(x), narrow=True)
        case _:
            raise TypeError(f"no way is known to compile a {type(part).__name__}")


def _group(layers: _Layers, group: ResidualGroup, x: int) -> int:
    outputs, feature = [], x
    for block in group.blocks:
        feature = _block(layers, block, feature)
        outputs.append(feature)
    kept = [*outputs, x] if group.dense else [feature]
    return layers.add(*_fused(group.fuse, kept), narrow=True)


def _block(layers: _Layers, block: nn.Module, x: int) -> int:
    if not isinstance(block, ResidualBlock):
        raise TypeError(f"no way is known to compile a {type(block).__name__}")
    branches = [
        layers.add(Term(x, _filter(branch)), slope=block.negative_slope)
        for branch in block.branches
        if isinstance(branch, nn.Conv2d)
    ]
    return layers.add(*_fused(block.fuse, branches), Term(x))


def _srcnn(network: Srcnn) -> Program:
    scale = network.architecture.scale
    layers = _Layers()
    extracted = layers.add(Term(IMAGE, _filter(network.extract)), slope=0.0)
    mapped = layers.add(Term(extracted, _filter(network.map)), slope=0.0)
    last = _scaled(_filter(network.reconstruct), network.architecture.residual_scale)
    layers.add(Term(mapped, last), narrow=True)
    return Program(tuple(layers), shuffle=1, enlarge=scale)


def collapse(tail: nn.Sequential, scale: int) -> Filter:
    """Return the one 5x5 convolution that, with a PixelShuffle, an upsampler is.

    Parameters
    ----------
    tail : nn.Sequential
        Maps ``(N, C, H, W)`` to ``(N, 1, scale * H, scale * W)`` by convolutions
        and PixelShuffles only, reaching over two input pixels at most (`Tail`).
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
    return Filter(weight.transpose(0, 1).to(dtype), bias.to(dtype))


def _whitening(stem: WhiteningStem) -> Filter:
    weight = stem.filters * stem.gains.view(-1, 1, 1, 1)
    return Filter(weight, -0.5 * weight.sum((1, 2, 3)))


def _filter(convolution: nn.Conv2d) -> Filter:
    return Filter(convolution.weight.detach(), _detached(convolution.bias))


def _scaled(one: Filter, factor: float) -> Filter:
    return Filter(one.weight * factor, None if one.bias is None else one.bias * factor)


def _fused(fuse: nn.Conv2d, sources: Sequence[int]) -> Iterator[Term]:
    """Cut a 1x1 convolution of concatenated values into one for each."""
    parts = fuse.weight.detach().chunk(len(sources), dim=1)
    for number, (source, part) in enumerate(zip(sources, parts, strict=True)):
        yield Term(source, Filter(part, None if number else _detached(fuse.bias)))


def _detached(bias: torch.Tensor | None) -> torch.Tensor | None:
    return None if bias is None else bias.detach()
