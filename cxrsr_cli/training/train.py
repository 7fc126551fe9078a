"""The training loop."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from cxrsr_cli import __version__
from cxrsr_cli.errors import ConfigError, OutputError
from cxrsr_cli.networks.model_files import SUFFIX, ModelMetadata, save_network
from cxrsr_cli.training.checkpoint import FILE_NAME, Checkpoint
from cxrsr_cli.training.config import TrainConfig
from cxrsr_cli.training.distributed import ProcessGroup
from cxrsr_cli.training.patch_sampler import PatchSampler
from cxrsr_cli.training.prefetch import AHEAD, AHEAD_OF_GPU, prefetch_batches
from cxrsr_cli.training.trainer import Trainer, learning_rate
from cxrsr_cli.training.training_data import DataSummary, load_training_data
from cxrsr_cli.training.training_log import LogEntry, TrainingLog
from cxrsr_cli.training.training_pairs import TrainingPair
from cxrsr_cli.training.warm_start import WarmStartReport

_LOG_EVERY = 100


def train(
    config: TrainConfig,
    run_folder: Path,
    *,
    command: str,
    resume: bool = False,
    device: torch.device | None = None,
    processes: ProcessGroup | None = None,
    ahead: int | None = None,
    report: Callable[[LogEntry], None] = lambda _: None,
    stepped: Callable[[int], None] = lambda _: None,
    prepared: Callable[[int, int], None] = lambda _done, _total: None,
    collected: Callable[[DataSummary], None] = lambda _: None,
    started_from: Callable[[WarmStartReport], None] = lambda _: None,
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
        Batches drawn ahead (`prefetch_batches`); changes nothing of the result.
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
    processes = processes or ProcessGroup()
    for stage in config.stages:
        processes.shard(stage.batch_size)
    if not resume and (run_folder / FILE_NAME).exists():
        raise ConfigError(f"{run_folder} holds a training already; resume it or name another")
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {run_folder}: {error.strerror}") from error
    state = Trainer(config, device or torch.device("cpu"), processes)
    checkpoint = Checkpoint.load(run_folder, config.sha256()) if resume else None
    collection = load_training_data(config, prepared)
    collected(collection.inventory)
    if checkpoint:
        state.load_checkpoint(checkpoint)
    else:
        taken = state.load_pretrained(config.init_from) if config.init_from else None
        if taken:
            started_from(taken)
        if taken is None or any(name.startswith("stem.") for name in taken.reinitialised):
            state.fit_stem(collection.train)
    sampler = PatchSampler(
        collection.train,
        config.architecture.scale,
        state.generator,
        degradation=config.degradation,
        kind=config.architecture.image_skip,
        impulse_filter=config.architecture.impulse_filter,
        noise=config.preserved_noise,
        processes=processes,
    )
    _run(state, sampler, collection.val, run_folder, ahead, report, stepped)
    path = run_folder / f"{config.name}-x{config.architecture.scale}{SUFFIX}"
    if processes.is_main:
        save_network(state.average, _describe(config, state.step, command), path)
    return path


def _run(
    state: Trainer,
    sampler: PatchSampler,
    validation: list[TrainingPair],
    run_folder: Path,
    ahead: int | None,
    report: Callable[[LogEntry], None],
    stepped: Callable[[int], None],
) -> None:
    config, first = state.config, state.processes.is_main
    log = TrainingLog(run_folder, state.step) if first else None
    network = state.processes.wrap(state.network)
    stages = (config.stage_at(step) for step in range(state.step, config.total_steps))
    pin = state.device.type == "cuda"
    if ahead is None:
        ahead = AHEAD_OF_GPU if pin else AHEAD
    started, losses = time.monotonic(), list[float]()
    with closing(prefetch_batches(sampler, stages, ahead=ahead, pin=pin)) as batches:
        for drawn in batches:
            losses.append(state.train_step(network, drawn.batch))
            stepped(state.step)
            last = state.step == config.total_steps
            if first and (last or state.step % config.checkpoint_every == 0):
                state.checkpoint(drawn.generator).save(run_folder)
            validated = (last or state.step % config.val_every == 0) and state.validate(validation)
            if log and (validated or state.step % _LOG_EVERY == 0):
                progress = LogEntry(
                    state.step,
                    sum(losses) / len(losses),
                    learning_rate(config, state.step - 1),
                    time.monotonic() - started,
                    *(validated or ()),
                )
                losses.clear()
                log.add(progress)
                report(progress)


def _describe(config: TrainConfig, steps: int, command: str) -> ModelMetadata:
    return ModelMetadata(
        name=config.name,
        architecture=config.architecture.to_dict(),
        complexity=config.architecture.complexity,
        data=config.data.description,
        command=command,
        steps=steps,
        config_sha256=config.sha256(),
        software=f"cxrsr {__version__}, PyTorch {torch.__version__}",
        consistency=config.consistency,
    )
