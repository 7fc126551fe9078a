"""Run what is to be done when an accelerator is at hand for some minutes.

    python -m benchmarks.accelerator_day pack CONFIG        here: fill the bundle
    python -m benchmarks.accelerator_day day --minutes 15   there: all stages
    python -m benchmarks.accelerator_day setup|check|speed|train   one of them
    python -m benchmarks.accelerator_day collect RESULTS    here: report, and whole files

docs/accelerator.md has all of it. A stage ends at its time limit: it starts nothing more, and after
ten seconds its process ends. The exit code is 0 when a stage is done, 75 when its time is over, and
1 when something failed. No run on an accelerator has been made yet.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks.accelerator_day import bundle as bundles
from benchmarks.accelerator_day.results import Results
from cxrsr_cli.common.byte_size import parse_byte_size
from cxrsr_cli.errors import CxrsrError

STAGE_MINUTES = {"setup": 2.0, "check": 2.0, "speed": 2.0}
"""Time limits. What the first stages leave, the training gets. The setup takes less than a minute,
but a first import of torch may be slow, and nothing runs without the setup."""
_GRACE_SECONDS = 10.0
_RESERVE_MINUTES = 0.5
"""Of a day, for starting the stages and ending the last one."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.command(given))
    except CxrsrError as error:
        print(f"accelerator_day: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator_day")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    packing = commands.add_parser("pack", help="fill the bundle with wheels and training images")
    packing.set_defaults(command=_pack)
    packing.add_argument("config", type=Path, metavar="CONFIG", help="names the images")
    packing.add_argument("--bundle", type=Path, default=Path("accelerator-bundle"))
    packing.add_argument("--max-bytes", type=parse_byte_size, default="64MiB", metavar="SIZE")
    packing.add_argument("--side", type=int, default=512, help="of a crop in pixels")
    packing.add_argument("--set", dest="overrides", action="append", default=[])
    packing.add_argument("--no-wheels", action="store_true")
    packing.add_argument("--present", type=Path, help="list of packages that the machine has")
    packing.add_argument("--without", action="append", default=[], help="a package to leave out")
    packing.add_argument("--python", default="3.12", help="version on the machine")
    packing.add_argument("--architecture", default="x86_64", help="of the machine")

    for name in (*STAGE_MINUTES, "train", "day"):
        stage = commands.add_parser(name, help=_HELP[name])
        stage.set_defaults(command=_day if name == "day" else _stage, stage=name)
        stage.add_argument("--minutes", type=float, default=STAGE_MINUTES.get(name, 15.0))
        stage.add_argument("--bundle", type=Path, default=Path("accelerator-bundle"))
        stage.add_argument("--results", type=Path, default=Path("accelerator-results"))
        stage.add_argument("--device", default="cuda")
        stage.add_argument("--max-files", type=int, default=8, help="of the results")
        stage.add_argument("--max-file-size", type=parse_byte_size, default="16MiB")
        stage.add_argument("--miniature", action="store_true", help="rehearse with tiny work")
        if name in ("check", "day"):
            stage.add_argument("--tests", default="", help="only these, an expression of pytest -k")
        if name in ("train", "day"):
            stage.add_argument("--config", type=Path, action="append", default=[])
            stage.add_argument("--set", dest="overrides", action="append", default=[])
            stage.add_argument("--previous", type=Path, help="results to resume from")
            stage.add_argument("--total-minutes", type=float, help="of trainings of several days")
            stage.add_argument("--checkpoint-seconds", type=float, default=60.0)
            stage.add_argument("--own-data", action="store_true", help="images of the CONFIG")

    collecting = commands.add_parser("collect", help="report results, and join their files")
    collecting.set_defaults(command=_collect)
    collecting.add_argument("results", type=Path, metavar="RESULTS")
    collecting.add_argument("--out", type=Path, default=Path("accelerator-files"))
    return parser


_HELP = {
    "setup": "install the wheels that are missing and unpack the images",
    "check": "run the tests that need an accelerator",
    "speed": "measure the networks",
    "train": "train, or resume a training",
    "day": "all of these, one after the other",
}


def _pack(given: argparse.Namespace) -> int:
    machine = None
    if not given.no_wheels:
        listed = given.present.read_text(encoding="utf-8").splitlines() if given.present else []
        names = [line.replace("==", " ").split()[0] for line in listed if line.strip()]
        present = frozenset(map(bundles.canonical_name, [*names, *given.without]))
        machine = bundles.Machine(given.python, given.architecture, present)
    sizes = bundles.pack(
        given.bundle,
        given.config,
        given.overrides,
        machine,
        max_bytes=given.max_bytes,
        side=given.side,
    )
    for name, size in sizes.items():
        print(f"{name}: {size}" if name == "crops" else f"{name}: {size / 2**20:.1f} MiB")
    return 0


def _results(given: argparse.Namespace) -> Results:
    return Results(given.results, given.max_file_size, given.max_files)


def _stage(given: argparse.Namespace) -> int:
    deadline = time.monotonic() + 60 * given.minutes
    # Whatever does not end by itself, such as a hanging device, ends here. The results are on the
    # disk.
    watchdog = threading.Timer(60 * given.minutes + _GRACE_SECONDS, os._exit, (os.EX_TEMPFAIL,))
    watchdog.daemon = True
    watchdog.start()
    try:
        done = _run_stage(given, _results(given), deadline)
    finally:
        watchdog.cancel()
    if done:
        return 0
    return os.EX_TEMPFAIL if time.monotonic() > deadline else 1


def _run_stage(given: argparse.Namespace, results: Results, deadline: float) -> bool:
    if given.stage == "setup":
        return bundles.setup(results, given.bundle, given.device)
    _use_wheels(given.bundle)
    if given.stage == "check":
        from benchmarks.accelerator_day.check import check

        return check(results, given.device, deadline, given.tests)
    if given.stage == "speed":
        from benchmarks.accelerator_day import speed

        workload = speed.MINIATURE if given.miniature else speed.Workload()
        return speed.measure_speed(results, given.device, deadline, workload)
    from benchmarks.accelerator_day import train

    return train.train_all(
        results,
        Results(given.previous) if given.previous else results,
        [train.Training(config) for config in given.config] or train.DEFAULT,
        None if given.own_data else bundles.data_folder(given.bundle).resolve(),
        given.device,
        deadline,
        overrides=given.overrides,
        total_seconds=given.total_minutes and 60 * given.total_minutes,
        checkpoint_seconds=given.checkpoint_seconds,
        steps_to_measure=1 if given.miniature else 20,
    )


def _use_wheels(bundle: Path) -> None:
    """Let this process, and those that it starts, import what `setup` has installed."""
    sys.path.insert(0, str(bundles.site_folder(bundle).resolve()))
    os.environ.update(bundles.child_environment(bundle))


def _day(given: argparse.Namespace) -> int:
    """Run each stage in a process of its own: a stage that crashes the device ends alone."""
    end = time.monotonic() + 60 * (given.minutes - _RESERVE_MINUTES)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(os.EX_TEMPFAIL))
    codes = dict[str, int]()
    for name in (*STAGE_MINUTES, "train"):
        left = (end - time.monotonic()) / 60
        minutes = min(STAGE_MINUTES.get(name, left), left)
        if minutes <= 0:
            codes[name] = os.EX_TEMPFAIL
            continue
        command = [sys.executable, "-m", "benchmarks.accelerator_day", name]
        command += ["--minutes", f"{minutes:.3f}", *_options(given, name)]
        with subprocess.Popen(command, env=bundles.child_environment(given.bundle)) as process:
            try:
                codes[name] = process.wait()
            finally:
                process.kill()
        _results(given).add("day", ended=name, exit_code=codes[name])
        if name == "setup" and codes[name]:
            return codes[name]
    _use_wheels(given.bundle)
    print(_report(_results(given)))
    return next((code for code in codes.values() if code), 0)


def _options(given: argparse.Namespace, name: str) -> list[str]:
    options = ["--bundle", str(given.bundle), "--results", str(given.results)]
    options += ["--device", given.device, "--max-files", str(given.max_files)]
    options += ["--max-file-size", str(given.max_file_size)]
    options += ["--miniature"] * given.miniature
    if name == "check":
        options += ["--tests", given.tests]
    if name == "train":
        options += [part for each in given.config for part in ("--config", str(each))]
        options += [part for each in given.overrides for part in ("--set", each)]
        options += ["--previous", str(given.previous)] if given.previous else []
        if given.total_minutes:
            options += ["--total-minutes", str(given.total_minutes)]
        options += ["--checkpoint-seconds", str(given.checkpoint_seconds)]
        options += ["--own-data"] * given.own_data
    return options


def _report(results: Results) -> str:
    from benchmarks.accelerator_day import speed, train

    parts = list[str]()
    for each in results.records("setup", step="imports"):
        known = {key: value for key, value in each.items() if key not in ("stage", "step")}
        parts.append(", ".join(f"{key} {value}" for key, value in known.items()))
    for each in results.records("check"):
        if "outcome" not in each:
            counts = ", ".join(f"{each[key]} {key}" for key in ("passed", "failed", "skipped"))
            parts.append(f"check: {counts}")
        elif each["outcome"] == "failed":
            parts.append(f"check failed: {each['test']}")
    parts += [speed.report(results.records("speed")), train.report(results.records("train"))]
    return "\n\n".join(filter(None, parts))


def _collect(given: argparse.Namespace) -> int:
    results = Results(given.results)
    print(_report(results), end="\n\n")
    complete = {f"{each['name']}.checkpoint" for each in results.records(event="complete")}
    names = {each["file"] for each in results.records() if "file" in each}
    for name in sorted(names - complete):
        target = given.out / name
        results.restore(name, target)
        print(f"{target}: {target.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
