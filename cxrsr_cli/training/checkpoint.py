"""The whole state of a training, whole on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cxrsr_cli.common.files import atomic_write
from cxrsr_cli.errors import ConfigError

FILE_NAME = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What an exact resume needs.

    Attributes
    ----------
    step : int
        Steps taken.
    config_sha256 : str
        Of the configuration; another one cannot resume.
    network, average, optimizer : dict
        State dicts of the network, its moving average and Adam.
    generator : torch.Tensor
        State of the sampler's random generator.
    """

    step: int
    config_sha256: str
    network: dict[str, Any]
    ema_network: dict[str, Any]
    optimizer: dict[str, Any]
    generator: torch.Tensor

    def save(self, folder: Path) -> None:
        """Write to `folder`, replacing an earlier checkpoint atomically."""
        with atomic_write(folder / FILE_NAME) as temporary:
            torch.save({name: getattr(self, name) for name in self.__slots__}, temporary)

    @classmethod
    def load(cls, folder: Path, config_sha256: str) -> "Checkpoint":
        """Read the checkpoint of `folder`.

        Raises
        ------
        ConfigError
            If there is none, or it belongs to another configuration.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise ConfigError(f"{folder} holds no {FILE_NAME} to resume from")
        checkpoint = cls(**torch.load(path, weights_only=True, map_location="cpu"))
        if checkpoint.config_sha256 != config_sha256:
            raise ConfigError(
                f"{path} was made by another configuration; "
                "resume with the one it was started with, or start a new run folder"
            )
        return checkpoint
