"""Start from the weights of another training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cxrsr_cli.errors import ConfigError
from cxrsr_cli.networks.config import NetworkConfig
from cxrsr_cli.networks.model_files import load_network

_TAIL = "tail."
_MAKE_THE_TAIL = ("scale", "upsampler", "image_skip", "residual_scale")
"""Fields of an architecture that decide what the tail's weights mean."""

_MAY_DIFFER = {*_MAKE_THE_TAIL, "channels", "stem", "impulse_filter"}
"""Fields in which a narrower network may differ from what it is widened to."""


@dataclass(frozen=True, slots=True)
class WarmStartReport:
    """What a warm start took.

    Attributes
    ----------
    taken, left : tuple of str
        Names of the new network's tensors that were taken, and of those that
        start anew.
    widening : int
        How many channels were made of each.
    """

    loaded: tuple[str, ...]
    reinitialised: tuple[str, ...]
    widening: int = 1


def warm_start(network: nn.Module, architecture: NetworkConfig, path: Path) -> WarmStartReport:
    """Take from a weights file all that fits by name and shape.

    The tail only where both networks enlarge alike; at another scale it
    starts anew, as RCAN's at x4 and x8 does after x2. A network whose width is
    a multiple of theirs starts as the same function (`_widened`).

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place.
    architecture : Architecture
        Its architecture.
    path : Path
        Weights of another training.

    Returns
    -------
    Taken
        What was taken.

    Raises
    ------
    ConfigError
        If the weights are of another kind of network, or of a width that this
        one's is no multiple of.
    ModelError
        If the file is no model.
    """
    source = load_network(path)
    one, other = asdict(source.architecture), asdict(architecture)
    widening = _widening(one, other)
    if widening is None:
        raise ConfigError(
            f"init_from: {path} is of another width: {one.get('channels')} channels, "
            f"of which {other.get('channels')} are no multiple, or differs in more than that; "
            "no weight would keep its meaning"
        )
    same_tail = all(one.get(field) == other.get(field) for field in _MAKE_THE_TAIL)
    theirs, ours = source.state_dict(), network.state_dict()
    generator = torch.Generator().manual_seed(0)
    fitting = {}
    for name, tensor in theirs.items():
        if name not in ours or (name.startswith(_TAIL) and not same_tail):
            continue
        shape = ours[name].shape
        fits = shape == tensor.shape
        if widening > 1 and not fits:
            fitting[name] = _widened(tensor, shape, widening, one["channels"], generator)
        elif fits:
            fitting[name] = tensor
    if not fitting or type(source) is not type(network):
        raise ConfigError(f"init_from: {path} is of another architecture; nothing of it fits")
    network.load_state_dict(ours | fitting)
    return WarmStartReport(
        tuple(fitting), tuple(name for name in ours if name not in fitting), widening
    )


def _widening(one: Mapping[str, Any], other: Mapping[str, Any]) -> int | None:
    """Return how many times as wide the other is, or None if it is no such network."""
    narrow, wide = one.get("channels"), other.get("channels")
    if narrow == wide:
        return 1
    if not narrow or not wide or wide % narrow or one.keys() != other.keys():
        return None
    alike = all(one[name] == other[name] for name in one.keys() - _MAY_DIFFER)
    # A width of its own would have to be widened as often.
    return wide // narrow if alike and one.get("branch_channels") is None else None


def _widened(
    tensor: torch.Tensor,
    shape: torch.Size,
    widening: int,
    channels: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Widen a layer so that the network computes what it did (Chen et al., ICLR 2016).

    Net2WiderNet: every channel is there `widening` times, and what reads it gets
    random shares of its weight that add up to it. With equal shares the copies
    would stay copies for ever, and Adam would not tell them apart by one share
    for all their readers.

    Parameters
    ----------
    tensor : torch.Tensor
        ``(out, in, k, k)`` weights or ``(out,)`` biases.
    shape : torch.Size
        Of the wide layer.
    widening, channels : int
        How many times as wide; the narrow network's width.
    generator : torch.Generator
        Of the shares.
    """
    wide = tensor[torch.arange(shape[0]) % len(tensor)]
    if wide.ndim == 1 or shape[1] == tensor.shape[1]:
        return wide
    # One segment for each of what a fusion concatenates.
    segments = max(1, tensor.shape[1] // channels)
    parts = wide.reshape(shape[0], segments, 1, -1, *shape[2:])
    shares = 0.5 + torch.rand(
        shape[0], segments, widening, parts.shape[3], 1, 1, generator=generator
    )
    shares /= shares.sum(2, keepdim=True)
    return (parts * shares).flatten(1, 3)
