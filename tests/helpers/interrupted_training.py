"""Trainings that end before their last step."""

from pathlib import Path

import pytest
import torch

from cxrsr_cli.training.config import TrainConfig
from cxrsr_cli.training.train import TrainingObserver, train
from cxrsr_cli.training.trainer import CHECKPOINT_NAME


class _Stop(Exception):  # noqa: N818 - a signal, not an error
    pass


class _StopAfterCheckpoint(TrainingObserver):
    def __init__(self, folder: Path) -> None:
        self.checkpoint = folder / CHECKPOINT_NAME

    def on_step(self, step: int) -> None:
        if self.checkpoint.exists():
            raise _Stop(step)


def train_to_checkpoint(
    config: TrainConfig, folder: Path, device: torch.device | None = None
) -> None:
    """Train until the step after the first checkpoint."""
    observer = _StopAfterCheckpoint(folder)
    with pytest.raises(_Stop):
        train(config, folder, command="none", device=device, observer=observer)
