"""The training loop."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from cxrsr_cli import __version__
from cxrsr_cli.errors import ConfigError, OutputError
from cxrsr_cli.learn.checkpoint import FILE_NAME, Checkpoint
from cxrsr_cli.learn.collection import Inventory, collect
from cxrsr_cli.learn.config import TrainConfig
from cxrsr_cli.learn.loading import AHEAD, AHEAD_OF_GPU, draw_ahead
from cxrsr_cli.learn.log import Log, Progress
from cxrsr_cli.learn.pairs import Pair
from cxrsr_cli.learn.processes import Processes
from cxrsr_cli.learn.sampling import PatchSampler
from cxrsr_cli.learn.state import TrainingState, learning_rate
from cxrsr_cli.learn.warm_start import Taken
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
    ahead: int | None = None,
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
    ahead : int, optional
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
    state = TrainingState(config, device or torch.device("cpu"), processes)
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
        impulse_filter=config.architecture.impulse_filter,
        noise=config.noise,
        processes=processes,
    )
    _run(state, sampler, collection.val, run_folder, ahead, report, stepped)
    path = run_folder / f"{config.name}-x{config.architecture.scale}{SUFFIX}"
    if processes.first:
        save_network(state.average, _describe(config, state.step, command), path)
    return path


def _run(
    state: TrainingState,
    sampler: PatchSampler,
    validation: list[Pair],
    run_folder: Path,
    ahead: int | None,
    report: Callable[[Progress], None],
    stepped: Callable[[int], None],
) -> None:
    config, first = state.config, state.processes.first
    log = Log(run_folder, state.step) if first else None
    network = state.processes.wrap(state.network)
    stages = (config.stage_at(step) for step in range(state.step, config.total_steps))
    pin = state.device.type == "cuda"
    if ahead is None:
        ahead = AHEAD_OF_GPU if pin else AHEAD
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


def _describe(config: TrainConfig, steps: int, command: str) -> ModelDescription:
    return ModelDescription(
        name=config.name,
        architecture=config.architecture,
        data=config.data.description,
        command=command,
        steps=steps,
        config_sha256=config.sha256(),
        software=f"cxrsr {__version__}, PyTorch {torch.__version__}",
        projected=config.projected,
    )
