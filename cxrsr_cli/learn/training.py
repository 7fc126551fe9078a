"""The training loop."""

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli import __version__
from cxrsr_cli.errors import ConfigError, InputError, OutputError, TrainingError
from cxrsr_cli.judge.metrics import psnr
from cxrsr_cli.learn.checkpoint import FILE_NAME, Checkpoint
from cxrsr_cli.learn.config import Schedule, TrainConfig
from cxrsr_cli.learn.images import list_images, read_image
from cxrsr_cli.learn.pairs import Batch, Pair, PatchSampler, make_pair
from cxrsr_cli.restore.build import build
from cxrsr_cli.restore.consistency import project
from cxrsr_cli.restore.parts import WhiteningStem
from cxrsr_cli.restore.resample import upsample
from cxrsr_cli.restore.weights import SUFFIX, ModelDescription, load_network, save_network
from cxrsr_cli.write.atomic import replacing

METRICS_NAME = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of the training log.

    Attributes
    ----------
    step : int
        Steps taken.
    loss : float
        L1 in network values, mean since the line before.
    learning_rate : float
        Of the last step.
    seconds : float
        Since this process started its loop.
    psnr, psnr_skip : float or None
        dB on the validation images of the projected output and of the image
        skip, when they were measured at this step. The peak is 1 in network
        values, so only their difference compares across data sets.
    """

    step: int
    loss: float
    learning_rate: float
    seconds: float
    psnr: float | None = None
    psnr_skip: float | None = None


def train(
    config: TrainConfig,
    run_folder: Path,
    *,
    command: str,
    resume: bool = False,
    device: torch.device | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    prepared: Callable[[int, int], None] = lambda _done, _total: None,
) -> Path:
    """Train a network and export its averaged weights.

    Parameters
    ----------
    config : TrainConfig
        What to train.
    run_folder : Path
        Gets ``checkpoint.pt``, ``metrics.jsonl`` and the weights.
    command : str
        Recorded in the weights.
    resume : bool
        Go on from the folder's checkpoint, exactly as if never stopped.
    device : torch.device, optional
        CPU if not given.
    report : callable
        Told of every logged step.
    prepared : callable
        Told ``(done, total)`` while images are read and degraded.

    Returns
    -------
    Path
        The weights file.

    Raises
    ------
    ConfigError
        If the folder cannot be resumed, holds a run and `resume` is false, or
        the weights to start from are of another architecture.
    NothingToDoError
        If a data folder holds no image.
    InputError
        If an image cannot be used.
    TrainingError
        If the loss is no longer a number.
    OutputError
        If the folder cannot be written.
    """
    if not resume and (run_folder / FILE_NAME).exists():
        raise ConfigError(f"{run_folder} holds a training already; resume it or name another")
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {run_folder}: {error.strerror}") from error
    state = _State(config, device or torch.device("cpu"))
    checkpoint = Checkpoint.load(run_folder, config.sha256()) if resume else None
    pairs, validation = _read_pairs(config, prepared)
    if checkpoint:
        state.restore(checkpoint)
        _forget_after(run_folder / METRICS_NAME, state.step)
    elif config.warm_start:
        state.start_from(config.warm_start)
    else:
        state.fit_stem(pairs)
    sampler = PatchSampler(pairs, config.architecture.scale, state.generator)

    started, losses = time.monotonic(), list[float]()
    while state.step < config.total_steps:
        stage = config.stage_at(state.step)
        losses.append(state.update(sampler.sample(stage.batch, stage.patch)))
        last = state.step == config.total_steps
        if last or state.step % config.checkpoint_every == 0:
            state.checkpoint().save(run_folder)
        validated = (last or state.step % config.val_every == 0) and state.validate(validation)
        if validated or state.step % 100 == 0:
            progress = Progress(
                state.step,
                sum(losses) / len(losses),
                learning_rate(config, state.step - 1),
                time.monotonic() - started,
                *(validated or ()),
            )
            losses.clear()
            _append(run_folder / METRICS_NAME, progress)
            report(progress)

    path = run_folder / f"{config.name}-x{config.architecture.scale}{SUFFIX}"
    save_network(state.average, _describe(config, state.step, command), path)
    return path


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of 0-based `step`."""
    rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule is Schedule.STEP:
        return rate * config.decay_factor ** (step // config.decay_steps)
    return rate * (1 + math.cos(math.pi * step / config.total_steps)) / 2


class _State:
    """Network, average, optimiser and step, on their device."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.step = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.network = build(config.architecture).to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.learning_rate, betas=config.betas
        )

    def start_from(self, path: Path) -> None:
        weights = load_network(path)
        if weights.architecture != self.config.architecture:
            raise ConfigError(f"{path} is of another architecture")
        for network in (self.network, self.average):
            network.load_state_dict(weights.state_dict())

    def fit_stem(self, pairs: list[Pair]) -> None:
        for network in (self.network, self.average):
            if isinstance(network.stem, WhiteningStem):
                network.stem.fit(pair.low[None].to(self.device) for pair in pairs)

    def update(self, batch: Batch) -> float:
        """Take one step; return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        low = batch.low.to(self.device, memory_format=torch.channels_last)
        high = batch.high.to(self.device)
        skip = None if batch.skip is None else batch.skip.to(self.device)
        scale = self.config.architecture.scale
        if self.config.noise:
            noise = self._noise(low)
            enlarged = upsample(noise, scale)
            low, high = low + noise, high + enlarged
            skip = None if skip is None else skip + enlarged
        output = self.network(low)
        if skip is not None:
            output = output + skip
        if self.config.projection_steps:
            output = project(
                output,
                low,
                scale,
                minimum=batch.minimum.to(self.device),
                maximum=batch.maximum.to(self.device),
                steps=self.config.projection_steps,
            )
        rim = scale * self.config.rim
        inner = (..., slice(rim, -rim), slice(rim, -rim))
        loss = F.l1_loss(output[inner], high[inner])
        if not loss.isfinite():
            raise TrainingError(
                f"the loss is no longer a number at step {self.step}; lower learning_rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self.step += 1
        with torch.no_grad():
            # Early on the average follows closely, or it would hold the start.
            decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
            for mean, value in zip(
                self.average.parameters(), self.network.parameters(), strict=True
            ):
                mean.lerp_(value, 1 - decay)
        return loss.item()

    def _noise(self, low: torch.Tensor) -> torch.Tensor:
        """Draw noise of another strength for each patch, half of them with next to none."""
        count = len(low)
        strength = torch.rand(count, 1, 1, 1, generator=self.generator).square()
        drawn = torch.randn(low.shape, generator=self.generator)
        return (self.config.noise * strength * drawn).to(self.device)

    @torch.inference_mode()
    def validate(self, pairs: list[Pair]) -> tuple[float, float | None]:
        """Return mean PSNR of the projected output, and of the image skip."""
        scale = self.config.architecture.scale
        scores, skips = [], []
        for pair in pairs:
            low = pair.low[None].to(self.device, memory_format=torch.channels_last)
            high = pair.high[None].to(self.device)
            output = self.average(low)
            if pair.skip is not None:
                skip = pair.skip[None].to(self.device)
                skips.append(psnr(skip, high, peak=1.0, border=scale))
                output += skip
            output = project(output, low, scale, minimum=pair.minimum, maximum=pair.maximum)
            scores.append(psnr(output, high, peak=1.0, border=scale))
        return sum(scores) / len(scores), sum(skips) / len(skips) if skips else None

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            step=self.step,
            config_sha256=self.config.sha256(),
            network=self.network.state_dict(),
            average=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            generator=self.generator.get_state(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        self.step = checkpoint.step
        self.network.load_state_dict(checkpoint.network)
        self.average.load_state_dict(checkpoint.average)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.generator.set_state(checkpoint.generator)


def _read_pairs(
    config: TrainConfig, prepared: Callable[[int, int], None]
) -> tuple[list[Pair], list[Pair]]:
    scale, kind = config.architecture.scale, config.architecture.image_skip
    train_paths, val_paths = list_images(config.data.train), list_images(config.data.val)
    pairs = []
    largest = max(stage.patch for stage in config.stages)
    for path in train_paths + val_paths:
        image = read_image(path, scale)
        if min(image.values.shape[-2:]) < largest * scale:
            raise InputError(f"{path.name} is smaller than a patch of {largest * scale} pixels")
        pairs.append(make_pair(image, scale, kind))
        prepared(len(pairs), len(train_paths) + len(val_paths))
    return pairs[: len(train_paths)], pairs[len(train_paths) :]


def _append(path: Path, progress: Progress) -> None:
    line: dict[str, Any] = {
        name: getattr(progress, name)
        for name in progress.__slots__
        if getattr(progress, name) is not None
    }
    with path.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(line) + "\n")


def _forget_after(path: Path, step: int) -> None:
    """Drop log lines of steps that a resume takes again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _describe(config: TrainConfig, steps: int, command: str) -> ModelDescription:
    return ModelDescription(
        name=config.name,
        architecture=config.architecture,
        data=config.data.description,
        command=command,
        steps=steps,
        config_sha256=config.sha256(),
        software=f"cxrsr {__version__}, PyTorch {torch.__version__}",
    )
