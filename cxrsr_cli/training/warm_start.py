"""Initialise a network with the weights of another training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cxrsr_cli.errors import ConfigError
from cxrsr_cli.networks.config import NetworkConfig
from cxrsr_cli.networks.model_files import load_network

_UPSAMPLER_PREFIX = "tail."
_UPSAMPLER_FIELDS = ("scale", "upsampler", "image_skip", "residual_scale")
"""Fields of a configuration on which the meaning of the upsampler's weights depends."""

_WIDENING_FIELDS = {*_UPSAMPLER_FIELDS, "channels", "stem", "impulse_filter"}
"""Fields in which a network may differ from the wider one that starts from it."""


@dataclass(frozen=True, slots=True)
class WarmStartReport:
    """The tensors that a warm start copied.

    Attributes
    ----------
    loaded, reinitialised : tuple of str
        Names of the tensors that were copied, and of those that keep their
        random initial values.
    widening : int
        Number of channels that were made from each.
    """

    loaded: tuple[str, ...]
    reinitialised: tuple[str, ...]
    widening: int = 1


def warm_start(network: nn.Module, architecture: NetworkConfig, path: Path) -> WarmStartReport:
    """Copy every tensor of a weights file whose name and shape match.

    The weights of the upsampler are copied only if both networks upscale in the
    same way. At another scale the upsampler keeps its initial values, as in the
    training of RCAN for x4 and x8 from x2. A network whose width is a multiple
    of that of the file computes the same function at the start (`_widened`).

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place.
    architecture : NetworkConfig
        Configuration of `network`.
    path : Path
        Weights of another training.

    Returns
    -------
    WarmStartReport
        The names of the tensors.

    Raises
    ------
    ConfigError
        If the weights belong to another kind of network, or the width of
        `network` is not a multiple of theirs.
    ModelError
        If the file is not a model.
    """
    source = load_network(path)
    old, new = asdict(source.architecture), asdict(architecture)
    widening = _widening(old, new)
    if widening is None:
        raise ConfigError(
            f"init_from: {path} has another width ({old.get('channels')} channels): "
            f"{new.get('channels')} must be a multiple, and the other fields must be equal"
        )
    same_upsampler = all(old.get(field) == new.get(field) for field in _UPSAMPLER_FIELDS)
    initial = network.state_dict()
    generator = torch.Generator().manual_seed(0)
    loaded = {}
    for name, tensor in source.state_dict().items():
        is_upsampler = name.startswith(_UPSAMPLER_PREFIX)
        if name not in initial or (is_upsampler and not same_upsampler):
            continue
        shape = initial[name].shape
        if shape == tensor.shape:
            loaded[name] = tensor
        elif widening > 1:
            loaded[name] = _widened(tensor, shape, widening, old["channels"], generator)
    if not loaded or type(source) is not type(network):
        raise ConfigError(f"init_from: {path} is of another architecture; no tensor fits")
    network.load_state_dict(initial | loaded)
    return WarmStartReport(
        tuple(loaded), tuple(name for name in initial if name not in loaded), widening
    )


def _widening(old: Mapping[str, Any], new: Mapping[str, Any]) -> int | None:
    """Return how many times as wide the new network is; None if it cannot be widened so."""
    narrow, wide = old.get("channels"), new.get("channels")
    if narrow == wide:
        return 1
    if not narrow or not wide or wide % narrow or old.keys() != new.keys():
        return None
    is_equal = all(old[name] == new[name] for name in old.keys() - _WIDENING_FIELDS)
    # Branches with a width of their own are not supported.
    return wide // narrow if is_equal and old.get("branch_channels") is None else None


def _widened(
    tensor: torch.Tensor,
    shape: torch.Size,
    widening: int,
    channels: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Widen a layer so that the network computes the same function.

    Net2WiderNet (Chen et al., ICLR 2016): every channel is copied `widening`
    times, and the layers that read it get random shares of its weight, which add
    up to the weight. With equal shares the copies would get equal gradients and
    stay equal. With the same shares for all readers, Adam would change the
    copies alike.

    Parameters
    ----------
    tensor : torch.Tensor
        ``(out, in, k, k)`` weights or ``(out,)`` biases.
    shape : torch.Size
        Shape of the wide layer.
    widening : int
        Number of copies of a channel.
    channels : int
        Width of the narrow network.
    generator : torch.Generator
        Source of the shares.
    """
    wide = tensor[torch.arange(shape[0]) % len(tensor)]
    if wide.ndim == 1 or shape[1] == tensor.shape[1]:
        return wide
    # A fusion layer has one segment of inputs for each concatenated tensor.
    segments = max(1, tensor.shape[1] // channels)
    parts = wide.reshape(shape[0], segments, 1, -1, *shape[2:])
    shares = 0.5 + torch.rand(
        shape[0], segments, widening, parts.shape[3], 1, 1, generator=generator
    )
    shares /= shares.sum(2, keepdim=True)
    return (parts * shares).flatten(1, 3)
