"""The state of a training: steps, learning rate, losses, validation and checkpoints."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cxrsr_cli.common.files import atomic_write
from cxrsr_cli.errors import ConfigError, TrainingError
from cxrsr_cli.inference.agreement import SIGMAS, enforce_agreement
from cxrsr_cli.metrics.psnr_ssim import psnr
from cxrsr_cli.networks.config import Agreement, Precision
from cxrsr_cli.networks.layers import WhiteningStem, build_network
from cxrsr_cli.networks.resampling import upsample
from cxrsr_cli.training.config import LOSS_BORDER, Loss, Optimizer, Schedule, TrainConfig
from cxrsr_cli.training.distributed import ProcessGroup
from cxrsr_cli.training.patch_sampler import PatchBatch
from cxrsr_cli.training.training_data import TrainingPair
from cxrsr_cli.training.warm_start import WarmStartReport, warm_start

CHECKPOINT_NAME = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a training on disk; a resume from it is exact.

    Attributes
    ----------
    step : int
        Number of optimiser steps taken.
    config_sha256 : str
        Hash of the configuration. A training with another one cannot resume.
    network, ema_network, optimizer : dict
        State dicts of the network, its moving average and the optimiser.
    generator : torch.Tensor
        State of the random generator of the sampler.
    """

    step: int
    config_sha256: str
    network: dict[str, Any]
    ema_network: dict[str, Any]
    optimizer: dict[str, Any]
    generator: torch.Tensor

    def save(self, folder: Path) -> None:
        """Write to `folder` and replace an earlier checkpoint atomically."""
        with atomic_write(folder / CHECKPOINT_NAME) as temporary:
            torch.save({name: getattr(self, name) for name in self.__slots__}, temporary)

    @classmethod
    def load(cls, folder: Path, config_sha256: str) -> "Checkpoint":
        """Read the checkpoint of `folder`.

        Raises
        ------
        ConfigError
            If there is none, or it was made with another configuration.
        TrainingError
            If it is damaged.
        """
        path = folder / CHECKPOINT_NAME
        if not path.is_file():
            raise ConfigError(f"{folder} has no {CHECKPOINT_NAME} to resume from")
        try:
            checkpoint = cls(**torch.load(path, weights_only=True, map_location="cpu"))
        # Damaged or not ours: PyTorch raises anything.
        except Exception as error:
            raise TrainingError(
                f"{path} is damaged ({type(error).__name__}); start in a new run folder"
            ) from error
        if checkpoint.config_sha256 != config_sha256:
            raise ConfigError(
                f"{path} was made with another configuration; "
                "resume with that configuration, or start in a new run folder"
            )
        return checkpoint


_MIN_RELATIVE_ERROR = 1e-4
"""Of bicubic interpolation in network values: a flat patch must not decide a step."""


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of 0-based `step`."""
    rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule is Schedule.STEP:
        return rate * config.decay_factor ** (step // config.decay_steps)
    return rate * (1 + math.cos(math.pi * step / config.total_steps)) / 2


class Trainer:
    """Network, moving average, optimiser and step, on one device.

    Parameters
    ----------
    config : TrainConfig
        The configuration.
    device : torch.device
        Device of all tensors.
    process_group : ProcessGroup
        The processes that train the network together.
    """

    def __init__(
        self, config: TrainConfig, device: torch.device, process_group: ProcessGroup
    ) -> None:
        self.config = config
        self.device = device
        self.process_group = process_group
        self.step = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.network = build_network(config.architecture).to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema_network = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = _optimizer(self.network, config)

    def load_pretrained(self, path: Path) -> WarmStartReport:
        """Copy the tensors of a weights file that fit (`init_from`)."""
        report = warm_start(self.network, self.config.architecture, path)
        self.ema_network.load_state_dict(self.network.state_dict())
        return report

    def fit_stem(self, pairs: list[TrainingPair]) -> None:
        """Scale a whitening stem to the inputs of the pairs."""
        for network in (self.network, self.ema_network):
            if isinstance(network.stem, WhiteningStem):
                network.stem.fit(pair.low[None].to(self.device) for pair in pairs)

    def train_step(self, network: nn.Module, batch: PatchBatch) -> float:
        """Take a step with this process's share of a batch; return the loss of the whole batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        batch = batch.to(self.device)
        scale = self.config.architecture.scale
        bf16 = self.config.precision is Precision.BF16 and self.device.type != "cpu"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            residual = network(
                batch.low.contiguous(memory_format=torch.channels_last), batch.noise_share
            )
        output = self._output(residual, batch)
        border = scale * LOSS_BORDER
        inner = (..., slice(border, -border), slice(border, -border))
        loss = training_loss(
            output[inner],
            batch.high[inner],
            self.config.loss,
            self.config.fft_loss_weight,
            bicubic=lambda: upsample(batch.low, scale)[inner],
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        # The mean over all processes, so that all of them stop at the same step. A GPU computes
        # the gradients while this waits.
        mean_loss = self.process_group.all_reduce_sum(loss.detach()).item()
        mean_loss /= self.process_group.world_size
        if not math.isfinite(mean_loss):
            raise TrainingError(
                f"the loss is not finite at step {self.step}; use a smaller learning_rate"
            )
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.step += 1
        with torch.no_grad():
            # A small decay at first, so that the average forgets the initial weights.
            decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
            average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            average(list(self.ema_network.parameters()), list(self.network.parameters()), 0)
        return mean_loss

    def _output(self, residual: torch.Tensor, batch: PatchBatch) -> torch.Tensor:
        """Make the output, in agreement with the input as the configuration says."""
        output = residual.float()
        if batch.skip is not None:
            output = output + batch.skip
        if self.config.agreement is Agreement.NONE:
            return output
        return enforce_agreement(
            output,
            batch.low,
            self.config.architecture.scale,
            bound=SIGMAS * batch.sigma if self.config.agreement is Agreement.NOISE else 0.0,
            minimum=batch.minimum,
            maximum=batch.maximum,
        )

    @torch.inference_mode()
    def validate(self, pairs: list[TrainingPair]) -> tuple[float, float | None]:
        """Return the mean PSNR in dB of the output and of the image skip."""
        scale = self.config.architecture.scale
        scores, skips = 0.0, 0.0
        for pair in pairs[self.process_group.rank :: self.process_group.world_size]:
            batch = PatchBatch.of([pair]).to(self.device)
            if batch.skip is not None:
                skips += psnr(batch.skip, batch.high, peak=1.0, border=scale)
            low = batch.low.contiguous(memory_format=torch.channels_last)
            output = self._output(self.ema_network(low, batch.noise_share), batch)
            output = output.clamp(pair.minimum, pair.maximum)
            scores += psnr(output, batch.high, peak=1.0, border=scale)
        scores, skips = self.process_group.all_reduce_values([scores, skips], self.device)
        has_skip = pairs[0].skip is not None
        return scores / len(pairs), skips / len(pairs) if has_skip else None

    def checkpoint(self, generator: torch.Tensor) -> Checkpoint:
        """Return the state, with that of the sampler's generator."""
        return Checkpoint(
            step=self.step,
            config_sha256=self.config.sha256(),
            network=self.network.state_dict(),
            ema_network=self.ema_network.state_dict(),
            optimizer=self.optimizer.state_dict(),
            generator=generator,
        )

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Restore the state of a checkpoint."""
        self.step = checkpoint.step
        self.network.load_state_dict(checkpoint.network)
        self.ema_network.load_state_dict(checkpoint.ema_network)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.generator.set_state(checkpoint.generator)


def _optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters, rate = network.parameters(), config.learning_rate
    if config.optimizer is Optimizer.ADAMW:
        return torch.optim.AdamW(
            parameters, rate, config.adam_betas, weight_decay=config.weight_decay
        )
    return torch.optim.Adam(parameters, rate, config.adam_betas)


def training_loss(
    output: torch.Tensor,
    target: torch.Tensor,
    loss: Loss,
    fft_loss_weight: float,
    *,
    bicubic: Callable[[], torch.Tensor],
) -> torch.Tensor:
    """Compute the loss of an output.

    Parameters
    ----------
    output, target : torch.Tensor
        ``(N, 1, H, W)``, network values; the loss is computed in float32.
    loss : Loss
        Loss of the pixels.
    fft_loss_weight : float
        Weight of the mean absolute difference of the real and imaginary parts
        of their unnormalised Fourier transforms; 0 for none. SAFMN (Sun et al.,
        ICCV 2023) uses 0.05.
    bicubic : callable
        Makes the bicubic interpolation of the input, which `Loss.RELATIVE_L1` compares with.

    Returns
    -------
    torch.Tensor
        ``()``, float32.
    """
    difference = output.float() - target.float()
    match loss:
        case Loss.L1:
            total = difference.abs().mean()
        case Loss.MSE:
            total = difference.square().mean()
        case Loss.RELATIVE_L1:
            reference = (bicubic() - target).abs().mean((1, 2, 3)).clamp(min=_MIN_RELATIVE_ERROR)
            total = (difference.abs().mean((1, 2, 3)) / reference).mean()
        case Loss.RELATIVE_MSE:
            reference = (bicubic() - target).square().mean((1, 2, 3))
            reference = reference.clamp(min=_MIN_RELATIVE_ERROR**2)
            total = (difference.square().mean((1, 2, 3)) / reference).mean()
    if fft_loss_weight:
        # The transform is linear, so that of the difference is enough.
        transform = torch.view_as_real(torch.fft.rfft2(difference))
        total = total + fft_loss_weight * transform.abs().mean()
    return total
