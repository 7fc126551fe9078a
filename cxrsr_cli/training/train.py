"""The training loop."""

import time
from contextlib import closing
from pathlib import Path

import torch

from cxrsr_cli import __version__
from cxrsr_cli.errors import ConfigError, OutputError
from cxrsr_cli.networks.model_files import SUFFIX, ModelMetadata, save_network
from cxrsr_cli.training.config import TrainConfig
from cxrsr_cli.training.distributed import ProcessGroup
from cxrsr_cli.training.patch_sampler import (
    PatchSampler,
    default_workers,
    load_batches,
)
from cxrsr_cli.training.trainer import CHECKPOINT_NAME, Checkpoint, Trainer, learning_rate
from cxrsr_cli.training.training_data import (
    DataSummary,
    TrainingData,
    TrainingPair,
    load_training_data,
)
from cxrsr_cli.training.training_log import LogEntry, TrainingLog
from cxrsr_cli.training.warm_start import WarmStartReport

_LOG_EVERY_STEPS = 100


class TrainingObserver:
    """Receives the events of a training. Override the methods of interest."""

    def on_image(self, done: int, total: int) -> None:
        """Receive the number of image files read so far."""

    def on_data(self, summary: DataSummary) -> None:
        """Receive the summary when all images are read."""

    def on_warm_start(self, report: WarmStartReport) -> None:
        """Receive the names of the tensors copied from another training."""

    def on_step(self, step: int) -> None:
        """Receive the number of optimiser steps after each step."""

    def on_log(self, entry: LogEntry) -> None:
        """Receive a line after it is written to the log."""


def train(
    config: TrainConfig,
    run_folder: Path,
    *,
    command: str,
    resume: bool = False,
    device: torch.device | None = None,
    process_group: ProcessGroup | None = None,
    workers: int | None = None,
    data: TrainingData | None = None,
    observer: TrainingObserver | None = None,
) -> Path:
    """Train a network and export its averaged weights.

    Parameters
    ----------
    config : TrainConfig
        The configuration.
    run_folder : Path
        Gets ``checkpoint.pt``, ``metrics.jsonl``, a plot and the weights.
    command : str
        Written to the header of the weights.
    resume : bool
        Whether to resume from the checkpoint in the folder. The result is the
        same as without the interruption.
    device : torch.device, optional
        The CPU if not given.
    process_group : ProcessGroup, optional
        The processes that train one network together. Each reads all images,
        only the first writes to the folder.
    workers : int, optional
        Processes that make batches ahead (`load_batches`), which do not change the result.
        By default there are some for a GPU, and none for a CPU.
    data : TrainingData, optional
        The images of the configuration, if they have been read already.
    observer : TrainingObserver, optional
        Receives the events.

    Returns
    -------
    Path
        The weights file.

    Raises
    ------
    ConfigError
        If the folder cannot be resumed, has a training and `resume` is false, a
        patient is in training and validation, a batch is not a multiple of the
        number of processes, or the weights of `init_from` do not fit.
    NoInputError
        If training or validation has no usable image.
    TrainingError
        If the loss is not finite.
    OutputError
        If the folder cannot be written.
    """
    process_group, observer = process_group or ProcessGroup(), observer or TrainingObserver()
    for stage in config.stages:
        process_group.shard(stage.batch_size)
    if not resume and (run_folder / CHECKPOINT_NAME).exists():
        raise ConfigError(f"{run_folder} already has a training; resume it or use another folder")
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {run_folder}: {error.strerror}") from error
    trainer = Trainer(config, device or torch.device("cpu"), process_group)
    checkpoint = Checkpoint.load(run_folder, config.sha256()) if resume else None
    data = data or load_training_data(config, observer.on_image)
    observer.on_data(data.summary)
    if checkpoint:
        trainer.load_checkpoint(checkpoint)
    else:
        report = trainer.load_pretrained(config.init_from) if config.init_from else None
        if report:
            observer.on_warm_start(report)
        if report is None or any(name.startswith("stem.") for name in report.reinitialised):
            trainer.fit_stem(data.train)
    sampler = PatchSampler.from_config(
        config, data.train, trainer.generator, process_group, weights=data.weights
    )
    _run_steps(trainer, sampler, data.val, run_folder, workers, observer)
    path = run_folder / f"{config.name}-x{config.architecture.scale}{SUFFIX}"
    if process_group.is_main:
        save_network(trainer.ema_network, _metadata(config, trainer.step, command), path)
    return path


def _run_steps(
    trainer: Trainer,
    sampler: PatchSampler,
    val: list[TrainingPair],
    run_folder: Path,
    workers: int | None,
    observer: TrainingObserver,
) -> None:
    config, is_main = trainer.config, trainer.process_group.is_main
    log = TrainingLog(run_folder, trainer.step) if is_main else None
    network = trainer.process_group.wrap(trainer.network)
    stages = (config.stage_at(step) for step in range(trainer.step, config.total_steps))
    is_gpu = trainer.device.type == "cuda"
    if workers is None:
        workers = default_workers(trainer.device)
    started, losses = time.monotonic(), list[float]()
    with closing(load_batches(sampler, stages, workers=workers, pin_memory=is_gpu)) as batches:
        for loaded in batches:
            losses.append(trainer.train_step(network, loaded.batch))
            observer.on_step(trainer.step)
            is_last = trainer.step == config.total_steps
            validates = is_last or trainer.step % config.val_every == 0
            scores = trainer.validate(val) if validates else ()
            if log and (validates or trainer.step % _LOG_EVERY_STEPS == 0):
                entry = LogEntry(
                    trainer.step,
                    sum(losses) / len(losses),
                    learning_rate(config, trainer.step - 1),
                    time.monotonic() - started,
                    *scores,
                )
                losses.clear()
                log.add(entry)
                observer.on_log(entry)
            # After the log: a resume drops the log's lines that came after its checkpoint.
            if is_main and (is_last or trainer.step % config.checkpoint_every == 0):
                trainer.checkpoint(loaded.generator).save(run_folder)


def _metadata(config: TrainConfig, steps: int, command: str) -> ModelMetadata:
    return ModelMetadata(
        name=config.name,
        architecture=config.architecture.to_dict(),
        complexity=config.architecture.complexity,
        data=config.data.description,
        command=command,
        steps=steps,
        config_sha256=config.sha256(),
        software=f"cxrsr {__version__}, PyTorch {torch.__version__}",
        agreement=config.agreement,
    )
