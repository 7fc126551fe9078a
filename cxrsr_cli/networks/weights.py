"""Weights on disk: safetensors with everything about the model in the header.

Reading a header needs no torch, so `info` and `--help` can list models.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cxrsr_cli.errors import ModelError
from cxrsr_cli.networks.config import NetworkConfig
from cxrsr_cli.networks.registry import config_from_dict

if TYPE_CHECKING:
    from cxrsr_cli.networks.layers import SuperResolutionNetwork

FORMAT = "cxrsr-1"
SUFFIX = ".safetensors"

_SWITCH = {"on": True, "off": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
    """What a weights file says of itself.

    Attributes
    ----------
    name : str
        Name without scale: ``rir-s``.
    architecture : Architecture
        The network to build.
    data : str
        What it was trained on.
    command : str
        The command that trained it.
    steps : int
        Optimiser steps taken.
    config_sha256 : str
        Hash of the training configuration.
    software : str
        Versions of this package and of PyTorch.
    consistency : bool
        Whether outputs are projected on their input unless the user wants it
        otherwise. A network that learned to undo damage is not: its
        damage would come back.
    """

    name: str
    architecture: NetworkConfig
    data: str
    command: str
    steps: int
    config_sha256: str
    software: str
    consistency: bool = True

    def to_metadata(self) -> dict[str, str]:
        """Return the header's metadata, text to text as safetensors asks."""
        return {
            "format": FORMAT,
            "name": self.name,
            "architecture": json.dumps(self.architecture.to_dict(), sort_keys=True),
            "data": self.data,
            "command": self.command,
            "steps": str(self.steps),
            "config_sha256": self.config_sha256,
            "software": self.software,
            "consistency": "on" if self.consistency else "off",
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> Self:
        """Read the header's metadata.

        Raises
        ------
        ValueError, KeyError, TypeError
            If something is missing or illegal.
        """
        if metadata["format"] != FORMAT:
            raise ValueError(f"format {metadata['format']}, not {FORMAT}")
        return cls(
            name=metadata["name"],
            architecture=config_from_dict(json.loads(metadata["architecture"])),
            data=metadata["data"],
            command=metadata["command"],
            steps=int(metadata["steps"]),
            config_sha256=metadata["config_sha256"],
            software=metadata["software"],
            consistency=_SWITCH[metadata["consistency"]],
        )


def read_metadata(path: Path) -> ModelMetadata:
    """Read a weights file's header, without torch.

    Raises
    ------
    ModelError
        If the file is not whole or not a model of this project.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as opened:
            metadata = opened.metadata() or {}
        return ModelMetadata.from_metadata(metadata)
    except OSError as error:
        raise ModelError(f"cannot read the weights {path}") from error
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged or not a safetensors file: {error}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"{path} is no cxrsr model: its header has no legal '{FORMAT}' description"
        ) from error


def load_network(path: Path) -> "SuperResolutionNetwork":
    """Build the network of a weights file, in evaluation mode, on the CPU.

    Raises
    ------
    ModelError
        If the file is damaged, or its tensors are not those of its architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from cxrsr_cli.networks.registry import build

    architecture = read_metadata(path).architecture
    try:
        network = build(architecture)
        network.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ModelError(f"{path} does not hold the tensors that its header describes") from error
    if any(not parameter.isfinite().all() for parameter in network.parameters()):
        raise ModelError(f"{path} holds weights that are not finite numbers")
    return network.eval()


def save_network(network: "SuperResolutionNetwork", description: ModelMetadata, path: Path) -> None:
    """Write a weights file, whole or not at all."""
    from safetensors.torch import save_file

    from cxrsr_cli.common.files import atomic_write

    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=description.to_metadata())
