"""Train all full-size models within a given time, on a machine whose speed is not known yet.

    python -m benchmarks.zoo --data DIR --run-dir runs/zoo [--minutes 25] [--stop-after 9]

One after the other by `cxrsr train`: rir-x2, from its weights rir-x4 and
rir-x8, and from rir-x4's rir-sp-64-x4, which is rir-sp at 64 channels. A cosine needs to know where
it ends, so each first trains a few hundred steps in a scratch folder; from
their speed follow the steps that fit its share of the minutes. What was decided
stands in RUN_DIR/plan.json. The same command again goes on where it was
stopped; it exits with 0 when all is done, with 75 when time was up, with 1 when
a training failed. No accelerator has run it yet. Needs a checkout with its
package installed.
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
from cxrsr_cli.training.checkpoint import FILE_NAME
from cxrsr_cli.training.config import StageConfig, TrainConfig, load_train_config
from cxrsr_cli.training.training_log import METRICS_NAME

ROOT = Path(__file__).resolve().parent.parent
LOGGED = 100
"""Steps between two lines of a training's log."""
USED = 0.95
"""Of the time that is left to a training: checkpoints, and a speed that varies, take the rest."""
VALIDATIONS = 5
"""In a training: enough to see it settle; each is a second or so in which nothing is learned."""
CHECKPOINT_SECONDS = 15
"""Between checkpoints: what a stop costs at most. Writing one takes a fraction of a second."""
FEWEST = 100
"""Steps that are taken even if start-up and measuring have spent the share."""
STOPPING_SECONDS = 30
"""For a training to end when asked, before it is killed."""


@dataclass(frozen=True, slots=True)
class Training:
    """One of the models.

    Attributes
    ----------
    name : str
        Of the run folder, and of the weights in it.
    config : str
        File in ``models``.
    share : float
        Of the minutes.
    start : str or None
        The training whose weights it starts from.
    overrides : tuple of str
        What differs from `config`.
    """

    name: str
    config: str
    share: float
    start: str | None = None
    overrides: tuple[str, ...] = ()


# x2 has the largest share: it alone starts from nothing, and what it learns the others
# begin with. x4 is next, because it is the most used and rir-sp goes on from it. rir-sp has
# the patches of rir: the 8 of 32 that it has for a CPU would leave a GPU idle.
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
    """What a short training measured.

    Attributes
    ----------
    rates : tuple of float
        Steps a second in each stage.
    startup : float
        Seconds outside the loop: reading the images, mostly.
    pause : float
        Seconds for a validation and a checkpoint.
    measuring : float
        Seconds that finding this out took.
    """

    rates: tuple[float, ...]
    startup: float
    pause: float
    measuring: float

    @classmethod
    def of(cls, log: Sequence[Mapping[str, float]], wall: float) -> "Speed":
        """Read the log of a training of `probe_stages` that took `wall` seconds."""
        at = {line["step"]: line["seconds"] for line in log}
        end = max(at)
        # The first hundred of a stage choose kernels; the last hundred hold the validation.
        begun = range(LOGGED, int(end) - LOGGED, 2 * LOGGED)
        rates = tuple(LOGGED / (at[step + LOGGED] - at[step]) for step in begun)
        pause = max(0.0, at[end] - at[end - LOGGED] - LOGGED / rates[-1])
        return cls(rates, wall - at[end], pause, wall)


@dataclass(frozen=True, slots=True)
class Decided:
    """A training's length, and what it follows from.

    Attributes
    ----------
    steps : int
        Of all stages.
    overrides : tuple of str
        For `cxrsr train`, the same in every call.
    speed : Speed
        What they were decided by.
    """

    steps: int
    overrides: tuple[str, ...]
    speed: Speed


@dataclass(frozen=True, slots=True)
class Plan:
    """What a second call must know of the first.

    Attributes
    ----------
    minutes : float
        For all trainings.
    overrides : tuple of str
        Given by the user, for every training.
    trainings : dict
        `Decided` by name, of those that have begun.
    """

    minutes: float
    overrides: tuple[str, ...]
    trainings: dict[str, Decided]


_PLAN = TypeAdapter(Plan)


def main() -> None:
    """Train what is not trained yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [training.name for training in TRAININGS]
    parser.add_argument("--data", type=Path, required=True, help="folder with train and val")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/zoo"))
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
        sys.exit(run.all([training for training in TRAININGS if training.name in arguments.only]))
    except CxrsrError as error:
        sys.exit(f"zoo: {error}")
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


def probe_stages(stages: Sequence[StageConfig]) -> str:
    """Return the stages that `Speed.from_network` can read, as an override."""
    steps = [2 * LOGGED for _ in stages]
    steps[-1] += LOGGED
    return stages_override(stages, steps)


def stages_override(stages: Sequence[StageConfig], steps: Sequence[int]) -> str:
    """Return `stages` with other numbers of steps, as an override."""
    plain = [
        {"steps": count, "batch": stage.batch_size, "patch": stage.patch_size}
        for stage, count in zip(stages, steps, strict=True)
    ]
    return "stages=" + yaml.safe_dump(plain, default_flow_style=True, width=math.inf).strip()


def decide(config: TrainConfig, seconds: float, speed: Speed) -> Decided:
    """Choose the steps that fill the time.

    Parameters
    ----------
    config : TrainConfig
        The long recipe; its stages keep their proportions.
    seconds : float
        For this training, measuring included.
    speed : Speed
        Of the machine.

    Returns
    -------
    Decided
        At least `FEWEST` steps.
    """
    shares = [stage.steps / config.total_steps for stage in config.stages]
    each = sum(share / rate for share, rate in zip(shares, speed.rates, strict=True))
    left = USED * (seconds - speed.measuring - speed.startup) - VALIDATIONS * speed.pause
    total = max(FEWEST, int(left / each))
    steps = [max(1, round(total * share)) for share in shares]
    overrides = (
        stages_override(config.stages, steps),
        f"warmup_steps={min(config.warmup_steps, total // 20)}",
        f"val_every={math.ceil(sum(steps) / VALIDATIONS)}",
        f"checkpoint_every={max(1, int(CHECKPOINT_SECONDS * min(speed.rates)))}",
    )
    return Decided(sum(steps), overrides, speed)


class Run:
    """One call: what was asked for, and the plan so far.

    Parameters
    ----------
    arguments : argparse.Namespace
        Of the command line.

    Raises
    ------
    ConfigError
        If the folder's plan was made for something else.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._deadline = time.monotonic() + 60 * arguments.stop_after
        # The trainings run in this folder and name all by its path from there: what their
        # hashes and headers hold then stays the same wherever the folder is copied.
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
        given = Plan(arguments.minutes, tuple(arguments.overrides), {})
        self._plan = given
        if self._plan_path.exists():
            self._plan = _PLAN.validate_json(self._plan_path.read_bytes())
        if (self._plan.minutes, self._plan.overrides) != (given.minutes, given.overrides):
            raise ConfigError(
                f"{self._plan_path} was made with --minutes {self._plan.minutes:g} and "
                f"--set {list(self._plan.overrides)}; say the same, or name another run folder"
            )

    def all(self, trainings: Sequence[Training]) -> int:
        """Train what is not trained yet; return the exit code."""
        failed = list[str]()
        for training in trainings:
            if self._weights(training.name).exists():
                continue
            try:
                self._one(training)
            except TrainingError as error:
                print(f"zoo: {training.name} failed: {error}", file=sys.stderr, flush=True)
                failed.append(training.name)
            except subprocess.TimeoutExpired:
                print("zoo: time is up; the same command goes on", file=sys.stderr)
                return os.EX_TEMPFAIL
        for training in trainings:
            print(f"{training.name}: {'failed' if training.name in failed else 'done'}")
        return int(bool(failed))

    def _one(self, training: Training) -> None:
        if training.start and not self._weights(training.start).exists():
            raise TrainingError(f"it starts from {training.start}, which is not trained")
        decided = self._plan.trainings.get(training.name) or self._decide(training)
        # The user's own come last, but their stages are in what was decided.
        own = [each for each in self._plan.overrides if not each.startswith("stages=")]
        start = training.start and self._weights(training.start).relative_to(self._folder)
        overrides = [*training.overrides, *decided.overrides, *own]
        overrides += [f"init_from={start}"] if start else []
        resume = (self._folder / training.name / FILE_NAME).exists()
        self._train(training, training.name, overrides, resume=resume)

    def _decide(self, training: Training) -> Decided:
        precision = Precision.BF16 if choose_device(self._device).type == "cuda" else Precision.FP32
        overrides = [f"precision={precision}", *self._plan.overrides]
        path = ROOT / "models" / training.config
        config = load_train_config(path, [*training.overrides, *overrides])
        with tempfile.TemporaryDirectory() as scratch:
            # The longest interval: a validation and a checkpoint only at the end.
            probe = [probe_stages(config.stages), "init_from=null"]
            probe += [f"{key}={sys.maxsize}" for key in ("val_every", "checkpoint_every")]
            started = time.monotonic()
            self._train(training, scratch, [*training.overrides, *overrides, *probe])
            wall = time.monotonic() - started
            log = (Path(scratch) / METRICS_NAME).read_text(encoding="utf-8").splitlines()
        speed = Speed.of([json.loads(line) for line in log], wall)
        decided = decide(config, 60 * self._plan.minutes * training.share, speed)
        rates = ", ".join(f"{rate:.1f}" for rate in speed.rates)
        print(
            f"{training.name}: {decided.steps} steps, at {rates} steps/s after {speed.startup:.0f} "
            f"s of start-up, with {speed.pause:.1f} s for a validation",
            flush=True,
        )
        decided = Decided(decided.steps, (overrides[0], *decided.overrides), speed)
        self._plan.trainings[training.name] = decided
        with atomic_write(self._plan_path) as temporary:
            temporary.write_bytes(_PLAN.dump_json(self._plan, indent=2))
        return decided

    def _train(
        self, training: Training, folder: str, overrides: Sequence[str], *, resume: bool = False
    ) -> None:
        config = os.path.relpath(ROOT / "models" / training.config, self._folder)
        places = [f"data.{split}={self._data / split}" for split in ("train", "val")]
        settings = [part for each in [*overrides, *places] for part in ("--set", each)]
        command = [sys.executable, "-m", "cxrsr_cli", "train", config, "--run-dir", folder]
        command += ["--device", self._device, "--no-progress", *["--resume"][: int(resume)]]
        with subprocess.Popen(
            [*command, *settings], cwd=self._folder, env=self._environment
        ) as process:
            try:
                code = process.wait(max(0.0, self._deadline - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                # It goes on from its last checkpoint; left alone it would hold the GPU.
                process.terminate()
                try:
                    process.wait(STOPPING_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise
        if code:
            raise TrainingError(f"cxrsr train ended with {code}")

    def _weights(self, name: str) -> Path:
        return self._folder / name / f"{name}{SUFFIX}"


if __name__ == "__main__":
    main()
