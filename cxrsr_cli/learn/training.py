"""The training loop."""

import copy
import math
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
from torch import nn

from cxrsr_cli import __version__
from cxrsr_cli.errors import ConfigError, OutputError, TrainingError
from cxrsr_cli.judge.metrics import psnr
from cxrsr_cli.learn.checkpoint import FILE_NAME, Checkpoint
from cxrsr_cli.learn.collection import Inventory, collect
from cxrsr_cli.learn.config import Optimizer, Schedule, TrainConfig
from cxrsr_cli.learn.loading import AHEAD, draw_ahead
from cxrsr_cli.learn.log import Log, Progress
from cxrsr_cli.learn.losses import training_loss
from cxrsr_cli.learn.pairs import Pair
from cxrsr_cli.learn.processes import Processes
from cxrsr_cli.learn.sampling import Batch, PatchSampler
from cxrsr_cli.learn.warm_start import Taken, warm_start
from cxrsr_cli.restore.consistency import DEFAULT_STEPS, project
from cxrsr_cli.restore.network import ResidualInResidual, WhiteningStem
from cxrsr_cli.restore.precision import Precision
from cxrsr_cli.restore.weights import SUFFIX, ModelDescription, save_network

_LOG_EVERY = 100


def train(
    config: TrainConfig,
    run_folder: Path,
    *,
    command: str,
    resume: bool = False,
    device: torch.device | None = None,
    processes: Processes | None = None,
    ahead: int = AHEAD,
    report: Callable[[Progress], None] = lambda _: None,
    stepped: Callable[[int], None] = lambda _: None,
    prepared: Callable[[int, int], None] = lambda _done, _total: None,
    collected: Callable[[Inventory], None] = lambda _: None,
    started_from: Callable[[Taken], None] = lambda _: None,
) -> Path:
    """Train a network and export its averaged weights.

    Parameters
    ----------
    config : TrainConfig
        What to train.
    run_folder : Path
        Gets ``checkpoint.pt``, ``metrics.jsonl``, a plot and the weights.
    command : str
        Recorded in the weights.
    resume : bool
        Go on from the folder's checkpoint, exactly as if never stopped.
    device : torch.device, optional
        CPU if not given.
    processes : Processes, optional
        This process's part in a group that trains one network; each reads all
        images, only the first writes to the folder.
    ahead : int
        Batches drawn ahead (`draw_ahead`); changes nothing of the result.
    report : callable
        Told of every logged step.
    stepped : callable
        Told how many steps are taken, after each.
    prepared : callable
        Told ``(done, total)`` while images are read and degraded.
    collected : callable
        Told what became of the data files.
    started_from : callable
        Told what a warm start took.

    Returns
    -------
    Path
        The weights file.

    Raises
    ------
    ConfigError
        If the folder cannot be resumed, holds a run and `resume` is false, a
        patient is in training and validation, a batch cannot be shared out, or
        the weights to start from do not fit.
    NothingToDoError
        If a data folder holds no image that can be used.
    TrainingError
        If the loss is no longer a number.
    OutputError
        If the folder cannot be written.
    """
    processes = processes or Processes()
    for stage in config.stages:
        processes.share(stage.batch)
    if not resume and (run_folder / FILE_NAME).exists():
        raise ConfigError(f"{run_folder} holds a training already; resume it or name another")
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {run_folder}: {error.strerror}") from error
    state = _State(config, device or torch.device("cpu"), processes)
    checkpoint = Checkpoint.load(run_folder, config.sha256()) if resume else None
    collection = collect(config, prepared)
    collected(collection.inventory)
    if checkpoint:
        state.restore(checkpoint)
    else:
        taken = state.start_from(config.warm_start) if config.warm_start else None
        if taken:
            started_from(taken)
        if taken is None or any(name.startswith("stem.") for name in taken.left):
            state.fit_stem(collection.train)
    sampler = PatchSampler(
        collection.train,
        config.architecture.scale,
        state.generator,
        degradation=config.degradation,
        kind=config.architecture.image_skip,
        noise=config.noise,
        processes=processes,
    )
    _run(state, sampler, collection.val, run_folder, ahead, report, stepped)
    path = run_folder / f"{config.name}-x{config.architecture.scale}{SUFFIX}"
    if processes.first:
        save_network(state.average, _describe(config, state.step, command), path)
    return path


def _run(
    state: "_State",
    sampler: PatchSampler,
    validation: list[Pair],
    run_folder: Path,
    ahead: int,
    report: Callable[[Progress], None],
    stepped: Callable[[int], None],
) -> None:
    config, first = state.config, state.processes.first
    log = Log(run_folder, state.step) if first else None
    network = state.processes.wrap(state.network)
    stages = (config.stage_at(step) for step in range(state.step, config.total_steps))
    pin = state.device.type == "cuda"
    started, losses = time.monotonic(), list[float]()
    with closing(draw_ahead(sampler, stages, ahead=ahead, pin=pin)) as batches:
        for drawn in batches:
            losses.append(state.update(network, drawn.batch))
            stepped(state.step)
            last = state.step == config.total_steps
            if first and (last or state.step % config.checkpoint_every == 0):
                state.checkpoint(drawn.generator).save(run_folder)
            validated = (last or state.step % config.val_every == 0) and state.validate(validation)
            if log and (validated or state.step % _LOG_EVERY == 0):
                progress = Progress(
                    state.step,
                    sum(losses) / len(losses),
                    learning_rate(config, state.step - 1),
                    time.monotonic() - started,
                    *(validated or ()),
                )
                losses.clear()
                log.add(progress)
                report(progress)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of 0-based `step`."""
    rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule is Schedule.STEP:
        return rate * config.decay_factor ** (step // config.decay_steps)
    return rate * (1 + math.cos(math.pi * step / config.total_steps)) / 2


class _State:
    """Network, average, optimiser and step, on their device."""

    def __init__(self, config: TrainConfig, device: torch.device, processes: Processes) -> None:
        self.config = config
        self.device = device
        self.processes = processes
        self.step = 0
        self.generator = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.network = ResidualInResidual(config.architecture).to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = _optimizer(self.network, config)

    def start_from(self, path: Path) -> Taken:
        taken = warm_start(self.network, self.config.architecture, path)
        self.average.load_state_dict(self.network.state_dict())
        return taken

    def fit_stem(self, pairs: list[Pair]) -> None:
        for network in (self.network, self.average):
            if isinstance(network.stem, WhiteningStem):
                network.stem.fit(pair.low[None].to(self.device) for pair in pairs)

    def update(self, network: nn.Module, batch: Batch) -> float:
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
            output = project(
                output,
                batch.low,
                scale,
                minimum=batch.minimum,
                maximum=batch.maximum,
                steps=self.config.projection_steps,
            )
        rim = scale * self.config.rim
        inner = (..., slice(rim, -rim), slice(rim, -rim))
        loss = training_loss(
            output[inner], batch.high[inner], self.config.loss, self.config.fft_weight
        )
        # Of all processes, so that none goes on when another must stop.
        whole = self.processes.total(loss.detach()).item() / self.processes.count
        if not math.isfinite(whole):
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
        return whole

    @torch.inference_mode()
    def validate(self, pairs: list[Pair]) -> tuple[float, float | None]:
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
            output = project(
                output,
                low,
                scale,
                minimum=pair.minimum,
                maximum=pair.maximum,
                # The projection would put the damage back.
                steps=0 if self.config.degradation.damages else DEFAULT_STEPS,
            )
            scores += psnr(output, high, peak=1.0, border=scale)
        scores, skips = self.processes.sums([scores, skips], self.device)
        has_skip = pairs[0].skip is not None
        return scores / len(pairs), skips / len(pairs) if has_skip else None

    def checkpoint(self, generator: torch.Tensor) -> Checkpoint:
        return Checkpoint(
            step=self.step,
            config_sha256=self.config.sha256(),
            network=self.network.state_dict(),
            average=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            generator=generator,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        self.step = checkpoint.step
        self.network.load_state_dict(checkpoint.network)
        self.average.load_state_dict(checkpoint.average)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.generator.set_state(checkpoint.generator)


def _optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters, rate = network.parameters(), config.learning_rate
    if config.optimizer is Optimizer.ADAMW:
        return torch.optim.AdamW(parameters, rate, config.betas, weight_decay=config.weight_decay)
    return torch.optim.Adam(parameters, rate, config.betas)


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
