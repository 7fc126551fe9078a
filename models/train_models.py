"""Train all full-size models within a given time, on a machine of unknown speed.

    python models/train_models.py --data DIR --run-dir runs/models [--minutes 25] [--stop-after 9]

Trains with `cxrsr train`, one after the other: rir-x2; from its weights rir-x4 and rir-x8; and
from rir-x4 rir-sp-64-x4, which is rir-sp with 64 channels. A cosine schedule needs the number of
steps at the start. So each model first trains a few hundred steps in a temporary folder. Their
speed gives the number of steps that fit into its share of the minutes. RUN_DIR/plan.json contains
these decisions. The same command resumes an interrupted run. The exit code is 0 when all models
are trained, 75 when the time is over, and 1 when a training failed. No run on an accelerator has
been made yet. Needs a checkout with its package installed.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from cxrsr_cli.commands.console import install_interrupt_handlers
from cxrsr_cli.common.files import atomic_write
from cxrsr_cli.errors import ConfigError, CxrsrError, ExitCode, TrainingError
from cxrsr_cli.inference.device import choose_device
from cxrsr_cli.networks.config import Precision
from cxrsr_cli.networks.model_files import SUFFIX
from cxrsr_cli.training.config import StageConfig, TrainConfig, load_train_config
from cxrsr_cli.training.trainer import CHECKPOINT_NAME
from cxrsr_cli.training.training_log import METRICS_NAME

ROOT = Path(__file__).resolve().parent.parent
LOG_STEPS = 100
"""Steps between two lines of the log of a training."""
USED_SHARE = 0.95
"""Share of the remaining time for steps. Checkpoints and variations of the speed need the rest."""
VALIDATIONS = 5
"""Number per training. Each takes about a second without a step."""
CHECKPOINT_SECONDS = 15
"""Time between checkpoints, which a stop costs at most."""
MIN_STEPS = 100
"""Steps of a training if start-up and measurement have used up its share of the time."""
STOP_TIMEOUT = 30
"""Seconds that a training has to end before it is killed."""


@dataclass(frozen=True, slots=True)
class Training:
    """The training of a model.

    Attributes
    ----------
    name : str
        Name of the run folder and of the weights in it.
    config : str
        File in ``models``.
    share : float
        Share of the minutes.
    start : str or None
        Training whose weights this one starts from.
    overrides : tuple of str
        Differences to `config`.
    """

    name: str
    config: str
    share: float
    start: str | None = None
    overrides: tuple[str, ...] = ()


# x2 has the largest share: it starts from random weights, and the others start from it. x4 is
# next, because it is used most and rir-sp starts from it. rir-sp has the patches of rir, because
# the 8 patches of 32 pixels of its own configuration, which is for a CPU, would leave a GPU idle.
TRAININGS = (
    Training("rir-x2", "rir-x2.yaml", 0.35),
    Training("rir-x4", "rir-x4.yaml", 0.25, "rir-x2"),
    Training("rir-x8", "rir-x8.yaml", 0.20, "rir-x2"),
    Training(
        "rir-sp-64-x4",
        "rir-sp-x4.yaml",
        0.20,
        "rir-x4",
        (
            "name=rir-sp-64",
            "architecture.channels=64",
            (
                "stages=[{steps: 3, batch_size: 16, patch_size: 48}, "
                "{steps: 1, batch_size: 16, patch_size: 64}]"
            ),
            "ema_decay=0.999",
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Speed:
    """Result of a short training.

    Attributes
    ----------
    rates : tuple of float
        Steps per second in each stage.
    startup : float
        Seconds outside of the loop, mostly for reading the images.
    pause : float
        Seconds for a validation and a checkpoint.
    measuring : float
        Seconds of the short training.
    """

    rates: tuple[float, ...]
    startup: float
    pause: float
    measuring: float

    @classmethod
    def of(cls, log: Sequence[Mapping[str, float]], wall: float) -> "Speed":
        """Read the log of a training of `probe_stages` that took `wall` seconds."""
        seconds = {line["step"]: line["seconds"] for line in log}
        end = max(seconds)
        # A stage chooses kernels in its first hundred steps, and the last hundred steps have the
        # validation.
        starts = range(LOG_STEPS, int(end) - LOG_STEPS, 2 * LOG_STEPS)
        rates = tuple(LOG_STEPS / (seconds[step + LOG_STEPS] - seconds[step]) for step in starts)
        pause = max(0.0, seconds[end] - seconds[end - LOG_STEPS] - LOG_STEPS / rates[-1])
        return cls(rates, wall - seconds[end], pause, wall)


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Length of a training and the measured speed.

    Attributes
    ----------
    steps : int
        Number of steps of all stages.
    overrides : tuple of str
        For `cxrsr train`, the same in every call.
    speed : Speed
        Speed of the machine.
    """

    steps: int
    overrides: tuple[str, ...]
    speed: Speed


@dataclass(frozen=True, slots=True)
class Plan:
    """The contents of plan.json, which later calls need.

    Attributes
    ----------
    minutes : float
        Time for all trainings.
    overrides : tuple of str
        The user's, for every training.
    trainings : dict
        `TrainingPlan` by name, of the trainings that have begun.
    """

    minutes: float
    overrides: tuple[str, ...]
    trainings: dict[str, TrainingPlan]


_PLAN = TypeAdapter(Plan)


def main() -> None:
    """Train the models that are not trained yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [training.name for training in TRAININGS]
    parser.add_argument("--data", type=Path, required=True, help="folder with train and val")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/models"))
    parser.add_argument("--minutes", type=float, default=25, help="for all trainings together")
    parser.add_argument("--stop-after", type=float, default=math.inf, metavar="MINUTES")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="in this call")
    parser.add_argument("--threads", type=int, help="of a CPU, for each training")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    install_interrupt_handlers()
    try:
        run = Run(arguments)
        sys.exit(
            run.train_all([training for training in TRAININGS if training.name in arguments.only])
        )
    except CxrsrError as error:
        sys.exit(f"train_models: {error}")
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


def probe_stages(stages: Sequence[StageConfig]) -> str:
    """Return the stages of the short training that `Speed.of` reads, as an override."""
    steps = [2 * LOG_STEPS for _ in stages]
    steps[-1] += LOG_STEPS
    return stages_override(stages, steps)


def stages_override(stages: Sequence[StageConfig], steps: Sequence[int]) -> str:
    """Return `stages` with other numbers of steps as an override."""
    plain = [
        {"steps": count, "batch_size": stage.batch_size, "patch_size": stage.patch_size}
        for stage, count in zip(stages, steps, strict=True)
    ]
    return "stages=" + yaml.safe_dump(plain, default_flow_style=True, width=math.inf).strip()


def plan_training(config: TrainConfig, seconds: float, speed: Speed) -> TrainingPlan:
    """Choose the number of steps that fits into the time.

    Parameters
    ----------
    config : TrainConfig
        The full configuration. The proportions of its stages are kept.
    seconds : float
        Time for this training with the measurement.
    speed : Speed
        Speed of the machine.

    Returns
    -------
    TrainingPlan
        With at least `MIN_STEPS` steps.
    """
    shares = [stage.steps / config.total_steps for stage in config.stages]
    seconds_per_step = sum(share / rate for share, rate in zip(shares, speed.rates, strict=True))
    remaining = USED_SHARE * (seconds - speed.measuring - speed.startup) - VALIDATIONS * speed.pause
    total = max(MIN_STEPS, int(remaining / seconds_per_step))
    steps = [max(1, round(total * share)) for share in shares]
    overrides = (
        stages_override(config.stages, steps),
        f"warmup_steps={min(config.warmup_steps, total // 20)}",
        f"val_every={math.ceil(sum(steps) / VALIDATIONS)}",
        f"checkpoint_every={max(1, int(CHECKPOINT_SECONDS * min(speed.rates)))}",
    )
    return TrainingPlan(sum(steps), overrides, speed)


class Run:
    """One call of the script, with the plan.

    Parameters
    ----------
    arguments : argparse.Namespace
        Those of the command line.

    Raises
    ------
    ConfigError
        If the plan in the folder was made with other arguments.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._deadline = time.monotonic() + 60 * arguments.stop_after
        # The trainings run in this folder with relative paths, so that hashes and headers stay the
        # same when the folder is copied.
        self._folder: Path = arguments.run_dir.resolve()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._data = Path(os.path.relpath(arguments.data.absolute(), self._folder))
        self._device = arguments.device
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.getenv("PYTHONPATH")]))
        }
        if arguments.threads:
            self._environment["OMP_NUM_THREADS"] = str(arguments.threads)
        self._plan_path = self._folder / "plan.json"
        requested = Plan(arguments.minutes, tuple(arguments.overrides), {})
        self._plan = requested
        if self._plan_path.exists():
            self._plan = _PLAN.validate_json(self._plan_path.read_bytes())
        if (self._plan.minutes, self._plan.overrides) != (requested.minutes, requested.overrides):
            raise ConfigError(
                f"{self._plan_path} was made with --minutes {self._plan.minutes:g} and "
                f"--set {list(self._plan.overrides)}; use the same, or another run folder"
            )

    def train_all(self, trainings: Sequence[Training]) -> int:
        """Train the models that are not trained yet; return the exit code."""
        failed = list[str]()
        for training in trainings:
            if self._weights(training.name).exists():
                continue
            try:
                self._train_model(training)
            except TrainingError as error:
                print(f"train_models: {training.name} failed: {error}", file=sys.stderr, flush=True)
                failed.append(training.name)
            except subprocess.TimeoutExpired:
                print("train_models: the time is over; the same command resumes", file=sys.stderr)
                return os.EX_TEMPFAIL
        for training in trainings:
            print(f"{training.name}: {'failed' if training.name in failed else 'done'}")
        return int(bool(failed))

    def _train_model(self, training: Training) -> None:
        if training.start and not self._weights(training.start).exists():
            raise TrainingError(f"it starts from {training.start}, which is not trained")
        plan = self._plan.trainings.get(training.name) or self._make_plan(training)
        # The user's overrides are the last, but their stages are part of the plan.
        user = [each for each in self._plan.overrides if not each.startswith("stages=")]
        start = training.start and self._weights(training.start).relative_to(self._folder)
        overrides = [*training.overrides, *plan.overrides, *user]
        overrides += [f"init_from={start}"] if start else []
        resume = (self._folder / training.name / CHECKPOINT_NAME).exists()
        self._train(training, training.name, overrides, resume=resume)

    def _make_plan(self, training: Training) -> TrainingPlan:
        precision = Precision.BF16 if choose_device(self._device).type == "cuda" else Precision.FP32
        overrides = [f"precision={precision}", *self._plan.overrides]
        path = ROOT / "models" / training.config
        config = load_train_config(path, [*training.overrides, *overrides])
        with tempfile.TemporaryDirectory() as temporary:
            # With the longest interval, the only validation and checkpoint are at the end.
            probe = [probe_stages(config.stages), "init_from=null"]
            probe += [f"{key}={sys.maxsize}" for key in ("val_every", "checkpoint_every")]
            started = time.monotonic()
            self._train(training, temporary, [*training.overrides, *overrides, *probe])
            wall = time.monotonic() - started
            log = (Path(temporary) / METRICS_NAME).read_text(encoding="utf-8").splitlines()
        speed = Speed.of([json.loads(line) for line in log], wall)
        plan = plan_training(config, 60 * self._plan.minutes * training.share, speed)
        rates = ", ".join(f"{rate:.1f}" for rate in speed.rates)
        print(
            f"{training.name}: {plan.steps} steps, {rates} steps/s, {speed.startup:.0f} s "
            f"start-up, {speed.pause:.1f} s for a validation",
            flush=True,
        )
        plan = TrainingPlan(plan.steps, (overrides[0], *plan.overrides), speed)
        self._plan.trainings[training.name] = plan
        with atomic_write(self._plan_path) as temporary:
            temporary.write_bytes(_PLAN.dump_json(self._plan, indent=2))
        return plan

    def _train(
        self, training: Training, folder: str, overrides: Sequence[str], *, resume: bool = False
    ) -> None:
        config = os.path.relpath(ROOT / "models" / training.config, self._folder)
        data = [f"data.{split}={self._data / split}" for split in ("train", "val")]
        options = [part for each in [*overrides, *data] for part in ("--set", each)]
        command = [sys.executable, "-m", "cxrsr_cli", "train", config, "--run-dir", folder]
        command += ["--device", self._device, "--no-progress", *["--resume"][: int(resume)]]
        with subprocess.Popen(
            [*command, *options], cwd=self._folder, env=self._environment
        ) as process:
            try:
                code = process.wait(max(0.0, self._deadline - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                # The next call resumes from the checkpoint. The training would keep the GPU.
                process.terminate()
                try:
                    process.wait(STOP_TIMEOUT)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise
        if code:
            raise TrainingError(f"cxrsr train ended with exit code {code}")

    def _weights(self, name: str) -> Path:
        return self._folder / name / f"{name}{SUFFIX}"


if __name__ == "__main__":
    main()
