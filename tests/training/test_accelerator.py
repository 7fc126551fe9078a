"""A training on an accelerator, in mixed precision, goes on from a CPU's checkpoint and back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from skimage.io import imsave

from cxrsr_cli.networks.config import Precision
from cxrsr_cli.networks.rir import RirConfig
from cxrsr_cli.training.config import DataConfig, StageConfig, TrainConfig
from cxrsr_cli.training.train import TrainingObserver, train
from cxrsr_cli.training.training_log import LogEntry
from tests.helpers.devices import on_each_device
from tests.helpers.interrupted_training import train_to_checkpoint


class _Losses(TrainingObserver):
    def __init__(self) -> None:
        self.losses = list[float]()

    def on_log(self, entry: LogEntry) -> None:
        self.losses.append(entry.loss)


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        blocks = random.integers(0, 255, (9, 8)).repeat(9, 0).repeat(9, 1).astype(np.uint8)
        imsave(tmp_path / split / "0.png", blocks, check_contrast=False)
    return TrainConfig(
        name="test",
        architecture=RirConfig(scale=2, channels=8, groups=1, blocks=1),
        data=DataConfig(train=tmp_path / "train", val=tmp_path / "val", description="made up"),
        stages=(StageConfig(steps=8, batch_size=2, patch_size=12),),
        warmup_steps=2,
        val_every=4,
        checkpoint_every=4,
    )


def weights(path: Path) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in load_file(path).values()])


@on_each_device
def test_mixed_precision_trains_like_float32(
    device: str, config: TrainConfig, tmp_path: Path
) -> None:
    found = {}
    for precision in (Precision.FP32, Precision.BF16):
        observer = _Losses()
        path = train(
            replace(config, precision=precision),
            tmp_path / precision,
            command="none",
            device=torch.device(device),
            observer=observer,
        )
        found[precision] = (np.array(observer.losses), weights(path))
    (exact_losses, exact), (half_losses, half) = found.values()
    assert np.abs(half_losses / exact_losses - 1).max() < 0.05
    assert (half - exact).norm() / exact.norm() < 0.05
    assert torch.equal(half, exact) == (device == "cpu"), "a CPU always uses float32"


@on_each_device
@pytest.mark.parametrize("starts_on_cpu", [True, False])
def test_a_checkpoint_goes_from_one_device_to_another(
    device: str, starts_on_cpu: bool, config: TrainConfig, tmp_path: Path
) -> None:
    here, there = torch.device("cpu"), torch.device(device)
    first, second = (here, there) if starts_on_cpu else (there, here)
    whole = train(config, tmp_path / "whole", command="none", device=here)
    train_to_checkpoint(config, tmp_path / "parts", first)
    parts = train(config, tmp_path / "parts", command="none", device=second, resume=True)
    expected, found = weights(whole), weights(parts)
    # Eight steps change the weights by some hundredths. A GPU rounds to TF32.
    tolerance = 0 if device == "cpu" else 0.01
    assert (found - expected).norm() / expected.norm() <= tolerance
