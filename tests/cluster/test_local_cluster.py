"""A cluster that the command starts on this machine: crashes and signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cxrsr_cli.batch.plan import plan_batch
from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.errors import ExitCode
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from tests.cluster.test_executor import options, outputs
from tests.conftest import COUNT
from tests.helpers.clusters import DERIVED_AT, cluster
from tests.helpers.waiting import HANG_SECONDS, wait_until

pytestmark = pytest.mark.peer


def copy_inputs(inputs: Path, count: int) -> None:
    for index in range(COUNT, count):
        shutil.copy(inputs / f"{index % COUNT}.dcm", inputs / f"{index}.dcm")


def start(folder: Path, *line: str) -> "subprocess.Popen[str]":
    """Start the command, and wait for its first output."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cxrsr_cli", "upscale", *line, "in", "out"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(
            lambda: process.poll() is not None or bool(list((folder / "out").glob("*.dcm"))),
            "the first output is written",
        )
    except AssertionError:
        process.kill()
        process.communicate()
        raise
    return process


def is_alive(process: psutil.Process) -> bool:
    """Tell if a process runs and is not a zombie."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_no_output_is_lost_when_a_local_worker_is_killed(inputs: Path, tiny_model: Path) -> None:
    copy_inputs(inputs, 60)
    folder = inputs.parent
    with start(folder, *options(tiny_model), "--cluster", "local:2") as process:
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "spawn_main" in "".join(child.cmdline())]
        assert len(workers) == 2
        workers[0].kill()
        output, error = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, error) == (ExitCode.OK, "")
    assert output.startswith("60 upscaled, 0 failed")
    wait_until(lambda: not any(map(is_alive, children)), "all processes have ended")
    model = find_model(str(tiny_model), 2)
    here = Upscaler.load(model, UpscaleOptions(device="cpu"), clock=lambda: DERIVED_AT)
    jobs = plan_batch([inputs], folder / "local").jobs
    assert len(list(BatchRunner(LocalExecutor(here)).run(jobs))) == 60
    assert outputs(folder / "out") == outputs(folder / "local")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_to_all_processes_leaves_no_partial_output(
    inputs: Path, tiny_model: Path, name: str
) -> None:
    """Terminals and batch systems signal all processes of a session."""
    copy_inputs(inputs, 400)
    folder = inputs.parent
    line = [*options(tiny_model), "--report", "r.json", "--cluster", "local:1"]
    with start(folder, *line) as process:
        os.killpg(process.pid, getattr(signal, name))
        output, error = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, error) == (ExitCode.INTERRUPTED, "")
    counts = json.loads((folder / "r.json").read_text())["counts"]
    assert counts["done"] == len(outputs(folder / "out")) > 0
    assert counts["not processed"] == 400 - counts["done"] > 0
    assert output.startswith(f"Interrupted: {counts['done']} upscaled")
    assert f"{counts['not processed']} not processed" in output
    assert {path.suffix for path in (folder / "out").iterdir()} == {".dcm", ".sqlite"}


def test_a_killed_scheduler_ends_the_run_with_exit_code_8(
    inputs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    copy_inputs(inputs, 400)
    with cluster(tmp_path, workers=1) as running:
        line = [*options(tiny_model), "--report", "r.json", "--cluster", str(running.file)]
        with start(tmp_path, *line) as process:
            running.scheduler.kill()
            output, error = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == ExitCode.NETWORK
    assert error == "cxrsr: the connection to the cluster's scheduler was lost\n"
    assert output.startswith("Ended early: ")
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["exit_code"] == ExitCode.NETWORK
    assert told["counts"]["done"] == len(outputs(tmp_path / "out")) > 0
    assert told["counts"]["failed"] == 0
    assert told["counts"]["not processed"] == 400 - told["counts"]["done"] > 0
