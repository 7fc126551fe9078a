"""Start from the weights of another training."""

from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from cxrsr_cli.errors import ConfigError
from cxrsr_cli.restore.architecture import Architecture
from cxrsr_cli.restore.weights import load_network

_TAIL = "tail."
_MAKE_THE_TAIL = ("scale", "tail", "image_skip", "residual_scale")
"""Fields of an architecture that decide what the tail's weights mean."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a warm start took.

    Attributes
    ----------
    taken, left : tuple of str
        Names of the new network's tensors that were taken, and of those that
        start anew.
    """

    taken: tuple[str, ...]
    left: tuple[str, ...]


def warm_start(network: nn.Module, architecture: Architecture, path: Path) -> Taken:
    """Take from a weights file all that fits by name and shape.

    The tail only where both networks enlarge alike; at another scale it
    starts anew, as RCAN's at x4 and x8 does after x2.

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
        If the weights are of another width or kind of network.
    ModelError
        If the file is no model.
    """
    source = load_network(path)
    one, other = asdict(source.architecture), asdict(architecture)
    if one.get("channels") != other.get("channels"):
        raise ConfigError(
            f"warm_start: {path} is of another width: {one.get('channels')} channels, "
            f"not {other.get('channels')}; no weight would keep its meaning"
        )
    same_tail = all(one.get(field) == other.get(field) for field in _MAKE_THE_TAIL)
    theirs, ours = source.state_dict(), network.state_dict()
    fitting = {
        name: tensor
        for name, tensor in theirs.items()
        if name in ours
        and ours[name].shape == tensor.shape
        and (same_tail or not name.startswith(_TAIL))
    }
    if not fitting or type(source) is not type(network):
        raise ConfigError(f"warm_start: {path} is of another architecture; nothing of it fits")
    network.load_state_dict(ours | fitting)
    return Taken(tuple(fitting), tuple(name for name in ours if name not in fitting))
