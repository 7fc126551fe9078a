"""Train networks in the time that there is, and bring the state back every minute."""

import json
import math
import os
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from torch.profiler import ProfilerActivity, profile

from benchmarks.accelerator_day.results import Record, Results
from benchmarks.loader import Steps
from cxrsr_cli.errors import ConfigError
from cxrsr_cli.inference.device import choose_device
from cxrsr_cli.networks.config import Precision
from cxrsr_cli.networks.model_files import SUFFIX
from cxrsr_cli.training.config import StageConfig, TrainConfig, load_train_config
from cxrsr_cli.training.patch_sampler import default_workers
from cxrsr_cli.training.train import TrainingObserver, train
from cxrsr_cli.training.trainer import CHECKPOINT_NAME
from cxrsr_cli.training.training_data import TrainingData, load_training_data
from cxrsr_cli.training.training_log import LogEntry

STAGE = "train"
_MIN_CHECKPOINTS = 4
"""In a training."""
_VALIDATIONS = 5
"""In a training."""
_USED_SHARE = 0.92
"""Of the remaining time for steps. Checkpoints and variations of the speed need the rest."""
_MIN_STEPS = 20
"""If start-up and measurement have used up the time."""
_STATE_BYTES = 16
"""Of a checkpoint for each parameter: network, average, and the two moments of Adam."""
_SHOWN_OPERATIONS = 8


@dataclass(frozen=True, slots=True)
class Training:
    """A training.

    Attributes
    ----------
    config : Path
        Configuration, as `cxrsr train` takes it.
    share : float
        Share of the time, beside those of the other trainings.
    overrides : tuple of str
        As of `load_train_config`.
    """

    config: Path
    share: float = 1.0
    overrides: tuple[str, ...] = ()


# The second has the batches of the first: those of its own configuration are for a CPU. It starts
# from random weights, because the weights that it usually starts from do not travel.
DEFAULT = (
    Training(Path("models/rir-x4.yaml"), 3.0),
    Training(
        Path("models/rir-s-x4.yaml"),
        1.0,
        ("init_from=null", "stages=[{steps: 1, batch_size: 16, patch_size: 48}]"),
    ),
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """Seconds on this machine, before a training.

    Attributes
    ----------
    at_hand, ahead : tuple of float
        Of a step in each stage: with a batch that is at hand, and with batches that the loader
        makes ahead.
    validation : float
        Of a validation.
    workers : int
        Number of processes of the loader with which the steps were fastest.
    """

    at_hand: tuple[float, ...]
    ahead: tuple[float, ...]
    validation: float
    workers: int


class _TimeIsOver(Exception):  # noqa: N818 - a signal, not an error
    """Ends a training at its deadline."""


def train_all(
    results: Results,
    previous: Results,
    trainings: Sequence[Training],
    data: Path | None,
    device: str,
    deadline: float,
    *,
    overrides: Sequence[str] = (),
    total_seconds: float | None = None,
    checkpoint_seconds: float = 60.0,
    steps_to_measure: int = 20,
) -> bool:
    """Train one network after the other.

    Parameters
    ----------
    results : Results
        Gets plan, log, checkpoints and weights.
    previous : Results
        Results from which trainings are resumed; may be the same folder.
    trainings : sequence of Training
        In this order.
    data : Path or None
        Folder with ``train`` and ``val``; None for the images of the configurations.
    device : str
        As `choose_device` takes it.
    deadline : float
        Time of `time.monotonic` at which the trainings end.
    overrides : sequence of str
        For every training.
    total_seconds : float, optional
        Length of all trainings that begin now, if later runs will resume them. By default they
        are planned to end before the deadline.
    checkpoint_seconds : float
        Between two checkpoints: what an end at any second costs at most.
    steps_to_measure : int
        Steps of each measurement.

    Returns
    -------
    bool
        Whether all trainings are complete.

    Raises
    ------
    ConfigError
        If a configuration is invalid, or the results would be too many files.
    """
    every = [_Job.of(training, overrides, data, device) for training in trainings]
    jobs = [job for job in every if not previous.records(STAGE, name=job.name, event="complete")]
    results.check_room(
        [_STATE_BYTES * job.config().architecture.complexity.parameters for job in jobs]
    )
    # The patches of a stage have one size, so trying the kernels once is worth it.
    torch.backends.cudnn.benchmark = True
    complete = True
    for number, job in enumerate(jobs):
        share = job.training.share / sum(other.training.share for other in jobs[number:])
        seconds = share * (deadline - time.monotonic())
        planned = None
        if total_seconds is not None:
            planned = total_seconds * job.training.share / sum(each.share for each in trainings)
        try:
            job.run(
                results,
                previous,
                time.monotonic() + seconds,
                planned,
                checkpoint_seconds,
                steps_to_measure,
            )
        except _TimeIsOver:
            results.add(STAGE, name=job.name, event="time is over")
            complete = False
        # A fault of one training must not cost the next one its time.
        except Exception as error:
            text = f"{type(error).__name__}: {error}"[:1000]
            results.add(STAGE, name=job.name, event="failed", error=text)
            complete = False
    return complete


@dataclass(frozen=True, slots=True)
class _Job:
    """A training on its device, with the overrides of all kinds."""

    training: Training
    name: str
    overrides: tuple[str, ...]
    device: torch.device

    @classmethod
    def of(
        cls, training: Training, overrides: Sequence[str], data: Path | None, device_name: str
    ) -> "_Job":
        device = choose_device(device_name)
        own = [f"precision={Precision.BF16}"] if device.type == "cuda" else []
        own += [*training.overrides, *overrides]
        config = load_train_config(training.config, own)
        if data:
            own += data_overrides(config, data)
            config = load_train_config(training.config, own)
        if config.init_from and not config.init_from.is_file():
            raise ConfigError(
                f"{training.config}: init_from: there is no file {config.init_from}; "
                "bring it along, or add init_from=null"
            )
        return cls(training, f"{config.name}-x{config.architecture.scale}", tuple(own), device)

    def config(self, plan: Sequence[str] = ()) -> TrainConfig:
        return load_train_config(self.training.config, [*self.overrides, *plan])

    def run(
        self,
        results: Results,
        previous: Results,
        deadline: float,
        planned_seconds: float | None,
        checkpoint_seconds: float,
        steps_to_measure: int,
    ) -> None:
        """Measure, plan and train, or resume."""
        config = self.config()
        data = load_training_data(config)
        results.add(
            STAGE, name=self.name, event="data", train=data.summary.train, val=data.summary.val
        )
        plans = previous.records(STAGE, name=self.name, event="plan")
        if plans:
            plan = tuple(plans[-1]["overrides"])
            workers = plans[-1]["workers"]
        else:
            measured = self._measure(results, config, data, steps_to_measure)
            workers = measured.workers
            left = deadline - time.monotonic()
            plan = plan_overrides(
                config, max(left, planned_seconds or 0.0), measured, checkpoint_seconds
            )
        if not plans or previous.folder != results.folder:
            results.add(STAGE, name=self.name, event="plan", overrides=list(plan), workers=workers)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / CHECKPOINT_NAME
            resume = previous.restore(f"{self.name}.checkpoint", checkpoint)
            observer = _Observer(results, self.name, checkpoint, deadline)
            if previous.folder == results.folder:
                observer.published = observer.changed()  # the restored one is there already
            weights = train(
                self.config(plan),
                Path(folder),
                command=self._command(plan),
                resume=resume,
                device=self.device,
                workers=workers,
                data=data,
                observer=observer,
            )
            name = f"{self.name}{SUFFIX}"
            results.publish(STAGE, name, weights, name=self.name, event="complete")
            results.remove(f"{self.name}.checkpoint")

    def _command(self, plan: Sequence[str]) -> str:
        """Return the command that trains the same, without the places of the images."""
        words = ["cxrsr", "train", str(self.training.config), "--run-dir", f"runs/{self.name}"]
        for override in (*self.overrides, *plan):
            if not override.startswith("data."):
                words += ["--set", override]
        return shlex.join(words)

    def _measure(
        self, results: Results, config: TrainConfig, data: TrainingData, count: int
    ) -> Measurement:
        """Time the steps of every stage, and find out what the device waits for."""
        at_hand, ahead, validation, workers = list[float](), list[float](), 0.0, 0
        for stage in config.stages:
            steps = Steps.prepare(replace(config, stages=(stage,)), data.train, self.device)
            steps.take(count, None)  # chooses kernels
            at_hand.append(steps.take(count, None) / count)
            if not ahead:
                choices = {default_workers(self.device), os.cpu_count() or 1}
                taken = {each: steps.take(count, each) / count for each in sorted(choices)}
                workers = min(taken, key=taken.__getitem__)
                ahead.append(taken[workers])
                started = time.monotonic()
                steps.trainer.validate(data.val)
                validation = time.monotonic() - started
                try:
                    found = _profile(steps, taken[workers])
                except Exception as error:  # the training does not need it
                    found = {"busy_share": None, "error": f"{type(error).__name__}: {error}"[:500]}
                results.add(STAGE, name=self.name, event="profile", **found)
            else:
                ahead.append(steps.take(count, workers) / count)
        results.add(
            STAGE,
            name=self.name,
            event="measured",
            at_hand=at_hand,
            ahead=ahead,
            validation=validation,
            workers=workers,
            batches=[[stage.batch_size, stage.patch_size] for stage in config.stages],
        )
        return Measurement(tuple(at_hand), tuple(ahead), validation, workers)


def data_overrides(config: TrainConfig, data: Path) -> list[str]:
    """Replace the images of a configuration by those of the shard."""
    # The shard has Patient IDs instead of the names that the expression is for.
    overrides = ["data.patient_id_regex=null"]
    for split in ("train", "val"):
        own, folder = getattr(config.data, split), data / split
        if not isinstance(own, tuple):
            overrides.append(f"data.{split}={json.dumps(str(folder))}")
            continue
        sources = sorted(path for path in folder.iterdir() if path.is_dir())
        overrides.append(f"data.{split}={json.dumps([str(path) for path in sources])}")
        if split == "train" and len(sources) != len(own):
            # The shard was packed for another configuration.
            overrides.append("data.weights=null")
    return overrides


def _profile(steps: Steps, step_seconds: float, count: int = 10) -> Record:
    """Return the share of the time in which the device computes, and its longest operations.

    `step_seconds` were measured without the profiler, which makes the steps longer.
    """
    is_cuda = steps.trainer.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profile(activities=activities) as found:
        steps.take(count, None)
    kind, wanted = ("self_device_time_total", "CUDA") if is_cuda else ("self_cpu_time_total", "CPU")
    # The time of a kernel also stands at the operation and the annotation that it is part of.
    events = [
        event
        for event in found.key_averages()
        if event.device_type.name == wanted and not event.is_user_annotation
    ]
    events.sort(key=lambda event: -getattr(event, kind))
    longest = {
        event.key[:80]: round(getattr(event, kind) / 1e6 / count, 6)
        for event in events[:_SHOWN_OPERATIONS]
    }
    busy = sum(getattr(event, kind) for event in events) / 1e6 / count / step_seconds
    return {"busy_share": busy if is_cuda else None, "seconds_per_step": longest}


def plan_overrides(
    config: TrainConfig, seconds: float, measured: Measurement, checkpoint_seconds: float
) -> tuple[str, ...]:
    """Choose the steps that fit into the time, because a cosine schedule must know them.

    Parameters
    ----------
    config : TrainConfig
        The proportions of its stages are kept.
    seconds : float
        For steps, validations and checkpoints.
    measured : Measurement
        The speed.
    checkpoint_seconds : float
        Largest time between two checkpoints.

    Returns
    -------
    tuple of str
        For `load_train_config`.
    """
    shares = [stage.steps / config.total_steps for stage in config.stages]
    per_step = sum(share * each for share, each in zip(shares, measured.ahead, strict=True))
    usable = _USED_SHARE * seconds - _VALIDATIONS * measured.validation
    total = max(_MIN_STEPS, int(usable / per_step))
    steps = [max(1, round(total * share)) for share in shares]
    between = min(checkpoint_seconds / max(measured.ahead), total / _MIN_CHECKPOINTS)
    return (
        stages_override(config.stages, steps),
        f"warmup_steps={min(config.warmup_steps, total // 20)}",
        f"val_every={math.ceil(sum(steps) / _VALIDATIONS)}",
        f"checkpoint_every={max(1, int(between))}",
    )


def stages_override(stages: Sequence[StageConfig], steps: Sequence[int]) -> str:
    """Return `stages` with other numbers of steps as an override."""
    plain = [
        {"steps": count, "batch_size": stage.batch_size, "patch_size": stage.patch_size}
        for stage, count in zip(stages, steps, strict=True)
    ]
    return "stages=" + yaml.safe_dump(plain, default_flow_style=True, width=math.inf).strip()


class _Observer(TrainingObserver):
    """Publishes each new checkpoint and the log, and ends the training at its deadline."""

    def __init__(self, results: Results, name: str, checkpoint: Path, deadline: float) -> None:
        self.results = results
        self.name = name
        self.checkpoint = checkpoint
        self.deadline = deadline
        self.published = 0

    def on_step(self, step: int) -> None:
        # The checkpoint of a step is written after this call, so this is that of a step before.
        changed = self.changed()
        if changed != self.published:
            self.results.publish(
                STAGE, f"{self.name}.checkpoint", self.checkpoint, name=self.name, seen_at=step
            )
            self.published = changed
        if time.monotonic() > self.deadline:
            raise _TimeIsOver

    def on_log(self, entry: LogEntry) -> None:
        self.results.add(STAGE, name=self.name, event="log", **entry.as_dict())

    def changed(self) -> int:
        """Return the time of the checkpoint's last change; 0 if there is none."""
        return self.checkpoint.stat().st_mtime_ns if self.checkpoint.exists() else 0


def report(records: list[Record]) -> str:
    """Say how far each training came, and whether the device had to wait for the loader."""
    names = list(dict.fromkeys(each["name"] for each in records if "name" in each))
    return "\n".join(line for name in names for line in _report_training(name, records))


def _report_training(name: str, records: list[Record]) -> Iterator[str]:
    def last(event: str) -> Record | None:
        found = [each for each in records if each["name"] == name and each.get("event") == event]
        return found[-1] if found else None

    if measured := last("measured"):
        for hand, ahead, batch in zip(
            measured["at_hand"], measured["ahead"], measured["batches"], strict=True
        ):
            yield (
                f"{name}: {batch[0]} patches of {batch[1]}: {1 / ahead:.2f} steps/s, "
                f"{1 / hand:.2f} with a batch at hand ({100 * hand / ahead:.0f} %), "
                f"{measured['workers']} processes of the loader"
            )
    if (profiled := last("profile")) and profiled["busy_share"] is not None:
        yield f"{name}: the device computes {100 * profiled['busy_share']:.0f} % of the time"
    scored = [each for each in records if each["name"] == name and "psnr" in each]
    if scored:
        skip = scored[-1].get("psnr_skip")
        over = f", {scored[-1]['psnr'] - skip:+.3f} dB over the image skip" if skip else ""
        yield f"{name}: step {scored[-1]['step']}: {scored[-1]['psnr']:.3f} dB{over}"
    for event in ("complete", "time is over", "failed"):
        if found := last(event):
            yield f"{name}: {event}{': ' + found['error'] if 'error' in found else ''}"
