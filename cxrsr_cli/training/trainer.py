"""All that changes while a network learns, and one step of it."""

import copy
import math
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli.errors import TrainingError
from cxrsr_cli.inference.data_consistency import DEFAULT_STEPS, project_iteratively
from cxrsr_cli.metrics.psnr_ssim import psnr
from cxrsr_cli.networks.config import Precision
from cxrsr_cli.networks.layers import WhiteningStem
from cxrsr_cli.training.checkpoint import Checkpoint
from cxrsr_cli.training.config import Loss, Optimizer, Schedule, TrainConfig
from cxrsr_cli.training.distributed import ProcessGroup
from cxrsr_cli.training.patch_sampler import PatchBatch
from cxrsr_cli.training.training_pairs import TrainingPair
from cxrsr_cli.training.warm_start import WarmStartReport, warm_start


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of 0-based `step`."""
    rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule is Schedule.STEP:
        return rate * config.decay_factor ** (step // config.decay_steps)
    return rate * (1 + math.cos(math.pi * step / config.total_steps)) / 2


class Trainer:
    """Network, average, optimiser and step, on their device.

    Parameters
    ----------
    config : TrainConfig
        What is trained.
    device : torch.device
        Where.
    processes : Processes
        This process's part of it.
    """

    def __init__(self, config: TrainConfig, device: torch.device, processes: ProcessGroup) -> None:
        self.config = config
        self.device = device
        self.processes = processes
        self.step = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.network = config.architecture.build().to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = _optimizer(self.network, config)

    def load_pretrained(self, path: Path) -> WarmStartReport:
        """Take what fits from a weights file (`init_from`)."""
        taken = warm_start(self.network, self.config.architecture, path)
        self.average.load_state_dict(self.network.state_dict())
        return taken

    def fit_stem(self, pairs: list[TrainingPair]) -> None:
        """Scale a whitening stem to the inputs of a training."""
        for network in (self.network, self.average):
            if isinstance(network.stem, WhiteningStem):
                network.stem.fit(pair.low[None].to(self.device) for pair in pairs)

    def train_step(self, network: nn.Module, batch: PatchBatch) -> float:
        """Take one step with this process's share of a batch; return the loss of all of it."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        batch = batch.to(self.device)
        scale = self.config.architecture.scale
        half = self.config.precision is Precision.BF16 and self.device.type != "cpu"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            output = network(batch.low.contiguous(memory_format=torch.channels_last))
        output = output.float()
        if batch.skip is not None:
            output = output + batch.skip
        if self.config.projection_steps:
            output = project_iteratively(
                output,
                batch.low,
                scale,
                minimum=batch.minimum,
                maximum=batch.maximum,
                steps=self.config.projection_steps,
            )
        rim = scale * self.config.loss_border
        inner = (..., slice(rim, -rim), slice(rim, -rim))
        loss = training_loss(
            output[inner], batch.high[inner], self.config.loss, self.config.fft_loss_weight
        )
        # Of all processes, so that none goes on when another must stop.
        whole = self.processes.all_reduce_sum(loss.detach()).item() / self.processes.count
        if not math.isfinite(whole):
            raise TrainingError(
                f"the loss is no longer a number at step {self.step}; lower learning_rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.step += 1
        with torch.no_grad():
            # Early on the average follows closely, or it would hold the start.
            decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
            for mean, value in zip(
                self.average.parameters(), self.network.parameters(), strict=True
            ):
                mean.lerp_(value, 1 - decay)
        return whole

    @torch.inference_mode()
    def validate(self, pairs: list[TrainingPair]) -> tuple[float, float | None]:
        """Return mean PSNR of the projected output, and of the image skip."""
        scale = self.config.architecture.scale
        scores, skips = 0.0, 0.0
        for pair in pairs[self.processes.rank :: self.processes.count]:
            low = pair.low[None].to(self.device, memory_format=torch.channels_last)
            high = pair.high[None].to(self.device)
            output = self.average(low)
            if pair.skip is not None:
                skip = pair.skip[None].to(self.device)
                skips += psnr(skip, high, peak=1.0, border=scale)
                output += skip
            output = project_iteratively(
                output,
                low,
                scale,
                minimum=pair.minimum,
                maximum=pair.maximum,
                steps=DEFAULT_STEPS if self.config.consistency else 0,
            )
            scores += psnr(output, high, peak=1.0, border=scale)
        scores, skips = self.processes.all_reduce_values([scores, skips], self.device)
        has_skip = pairs[0].skip is not None
        return scores / len(pairs), skips / len(pairs) if has_skip else None

    def checkpoint(self, generator: torch.Tensor) -> Checkpoint:
        """Return all of it, with the state of the sampler's generator."""
        return Checkpoint(
            step=self.step,
            config_sha256=self.config.sha256(),
            network=self.network.state_dict(),
            ema_network=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            generator=generator,
        )

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint."""
        self.step = checkpoint.step
        self.network.load_state_dict(checkpoint.network)
        self.average.load_state_dict(checkpoint.ema_network)
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
    output: torch.Tensor, target: torch.Tensor, loss: Loss, fft_loss_weight: float
) -> torch.Tensor:
    """Compare output and target.

    Parameters
    ----------
    output, target : torch.Tensor
        ``(N, 1, H, W)``, network values; compared in float32.
    loss : Loss
        Over pixels.
    fft_loss_weight : float
        Weight of the mean absolute difference of the real and imaginary parts
        of their unnormalised Fourier transforms, as in SAFMN (Sun et al.,
        ICCV 2023), whose weight is 0.05; 0 for none.

    Returns
    -------
    torch.Tensor
        ``()``, float32.
    """
    difference = output.float() - target.float()
    pixels = F.l1_loss if loss is Loss.L1 else F.mse_loss
    total = pixels(difference, torch.zeros_like(difference))
    if fft_loss_weight:
        # The transform is linear: that of the difference is the difference of both.
        total = (
            total + fft_loss_weight * torch.view_as_real(torch.fft.rfft2(difference)).abs().mean()
        )
    return total
