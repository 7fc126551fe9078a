"""A cluster upscales a batch as one process does, whatever its workers do."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cxrsr_cli.batch.ledger import LEDGER_NAME
from cxrsr_cli.batch.records import RunRecords
from cxrsr_cli.batch.result import FileStatus, Result
from cxrsr_cli.cluster import executor
from cxrsr_cli.cluster.executor import _JobRunner
from cxrsr_cli.cluster.file_transfer import TransferMode
from cxrsr_cli.cluster.messages import FileResponse, WorkRequest, WorkResponse
from cxrsr_cli.common.files import TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from cxrsr_cli.errors import ExitCode, WorkerCrashedError
from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import COUNT, small_chest
from tests.helpers.batches import command, jobs, statuses
from tests.helpers.cluster_workers import KILL, SLOW
from tests.helpers.clusters import (
    DERIVED_AT,
    Cluster,
    FakeClient,
    fake_executor,
    killed_worker,
    run_on_cluster,
)
from tests.helpers.waiting import HANG_SECONDS


def outputs(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.dcm")}


def options(weights: Path) -> list[str]:
    stamp = str(int(DERIVED_AT.timestamp()))
    return ["-s", "2", "-m", str(weights), "--device", "cpu", "--timestamp", stamp]


def report(path: Path) -> dict[str, Any]:
    """Read a report without times and memory, which differ between runs."""
    told: dict[str, Any] = json.loads(path.read_text())
    for key in ("started", "finished", "peak_memory_bytes"):
        del told[key]
    for file in told["files"]:
        del file["seconds"], file["peak_memory_bytes"]
    return told


@pytest.mark.peer
@pytest.mark.parametrize("transfer_mode", list(TransferMode))
def test_outputs_report_and_messages_are_those_of_a_local_run(
    two_workers: Cluster, inputs: Path, tiny_model: Path, transfer_mode: TransferMode
) -> None:
    """Also quarantine and exit code; a second run finds nothing left to do."""
    folder = inputs.parent
    (inputs / "deep").mkdir()
    (inputs / "deep" / "bad.dcm").write_bytes(b"bad")
    small_chest(9, BodyPartExamined="HIP").save_as(inputs / "2.dcm")
    os.mkfifo(inputs / "pipe.dcm")
    (folder / "out").mkdir()
    (folder / "out" / "4.dcm").write_bytes(b"precious")
    shutil.copytree(folder / "out", folder / "local")
    lines = {}
    for name, more in (
        ("local", []),
        ("out", ["--cluster", str(two_workers.file), "--cluster-transfer", transfer_mode]),
    ):
        line = [*options(tiny_model), "--quarantine", f"q-{name}", "--report", f"{name}.json"]
        done = command(folder, "upscale", *line, *more, "in", name)
        assert done.returncode == ExitCode.SOME_FAILED, done.stderr
        lines[name] = {text.replace(f"{name}/", "") for text in done.stderr.splitlines()}
        assert "4 upscaled, 3 failed, 1 skipped" in done.stdout
    assert lines["local"] == lines["out"]
    assert outputs(folder / "out") == outputs(folder / "local")
    assert outputs(folder / "q-out") == outputs(folder / "q-local")
    local, clustered = report(folder / "local.json"), report(folder / "out.json")
    for file in clustered["files"]:
        file["output"] = file["output"].replace("out/", "local/")
        if file["error"]:
            file["error"]["message"] = file["error"]["message"].replace("out/", "local/")
    assert clustered == local
    assert not list((folder / "out").rglob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"))
    results = run_on_cluster(
        two_workers.address, tiny_model, inputs, folder / "out", transfer_mode=transfer_mode
    )
    assert statuses(results).count(FileStatus.UP_TO_DATE) == 4
    assert statuses(results).count(FileStatus.FAILED) == 3


@pytest.mark.peer
def test_a_dry_run_writes_nothing(two_workers: Cluster, inputs: Path, tiny_model: Path) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    out = inputs.parent / "out"
    results = run_on_cluster(two_workers.address, tiny_model, inputs, out, dry_run=True)
    assert statuses(results).count(FileStatus.DRY_RUN) == COUNT - 1
    assert results[0].output_shape == (48, 40)
    assert {path.name for path in inputs.parent.iterdir()} == {"in"}


@pytest.mark.peer
@pytest.mark.parametrize("transfer_mode", list(TransferMode))
def test_a_file_that_kills_workers_fails_alone(
    two_workers: Cluster,
    inputs: Path,
    tiny_model: Path,
    transfer_mode: TransferMode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that kills one worker only is upscaled, and so are all others."""
    # A slow machine takes long to start a worker again.
    monkeypatch.setattr(executor, "_RECONNECT_TIMEOUT", HANG_SECONDS)
    marker = inputs.parent / "marker"
    small_chest(1, ImageComments=f"{KILL} {marker}").save_as(inputs / "1.dcm")
    if transfer_mode is TransferMode.PATHS:
        small_chest(2, ImageComments=KILL).save_as(inputs / "2.dcm")
    out, quarantine = inputs.parent / "out", inputs.parent / "q"
    results = run_on_cluster(
        two_workers.address,
        tiny_model,
        inputs,
        out,
        transfer_mode=transfer_mode,
        quarantine=quarantine,
    )
    assert marker.exists()
    failed = {
        result.job.source.name: str(result.error)
        for result in results
        if result.status is not FileStatus.DONE
    }
    assert set(failed) == ({"2.dcm"} if transfer_mode is TransferMode.PATHS else set()), failed
    assert all("the worker died 4 times on it" in error for error in failed.values()), failed
    assert set(outputs(quarantine)) == set(failed)
    assert set(outputs(out)) == {f"{n}.dcm" for n in range(COUNT)} - set(failed)


@pytest.mark.peer
def test_the_number_of_files_in_flight_is_bounded(
    two_workers: Cluster, inputs: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(COUNT, 24):
        small_chest(index, ImageComments=SLOW).save_as(inputs / f"{index}.dcm")
    inside, most, lock = 0, 0, threading.Lock()
    run = _JobRunner.run

    def counted(self: _JobRunner, job: Job) -> Result | None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        try:
            return run(self, job)
        finally:
            with lock:
                inside -= 1

    monkeypatch.setattr(_JobRunner, "run", counted)
    results = run_on_cluster(two_workers.address, tiny_model, inputs, inputs.parent / "out")
    assert statuses(results) == [FileStatus.DONE] * 24
    assert 2 < most <= 3 * 2


def test_a_file_on_which_workers_died_runs_alone_before_it_fails(
    inputs: Path, upscaler: Upscaler
) -> None:
    """One that was in flight with it runs alone, too, and is upscaled."""
    suspects = {
        hashlib.sha256((inputs / name).read_bytes()).digest() for name in ("0.dcm", "1.dcm")
    }
    poison = hashlib.sha256((inputs / "0.dcm").read_bytes()).digest()
    attempts, in_flight, after_two_attempts = list[bytes](), list[bytes](), list[list[bytes]]()

    def respond(request: WorkRequest) -> WorkResponse:
        assert request.transfer
        assert isinstance(request.transfer.source, bytes)
        source = hashlib.sha256(request.transfer.source).digest()
        attempts.append(source)
        in_flight.append(source)
        time.sleep(0.05)
        if attempts.count(source) > 2:
            after_two_attempts.append(list(in_flight))
        in_flight.remove(source)
        if source == poison or (source in suspects and attempts.count(source) < 4):
            raise killed_worker()
        return FileResponse(Result(Job(Path(), Path()), FileStatus.DRY_RUN), None)

    client = FakeClient(respond)
    fake = fake_executor(client, upscaler, io_workers=3)
    records = RunRecords(fake.parameters, dry_run=True)
    results = list(fake.results(jobs(inputs), records, advance=lambda _: None, stop=lambda: False))
    assert len(attempts) == COUNT + 6
    assert set(attempts[-4:-2]) == set(attempts[-2:]) == suspects
    assert after_two_attempts == [[source] for source in attempts[-4:]]
    failed = [result for result in results if result.error]
    assert [result.job.source.name for result in failed] == ["0.dcm"]
    assert isinstance(failed[0].error, WorkerCrashedError)
    assert len(results) == COUNT


@pytest.mark.peer
@pytest.mark.parametrize(
    "moment", ["ledger.Ledger.mark_pending", "publish", "ledger.Ledger.mark_done"]
)
def test_a_run_completes_what_a_killed_client_left(
    two_workers: Cluster, inputs: Path, tiny_model: Path, moment: str
) -> None:
    """The client is killed before it announces, renames or records its third output."""
    place = "cxrsr_cli.cluster.file_transfer" if moment == "publish" else "cxrsr_cli.batch.ledger"
    owner, name = ("module", moment) if moment == "publish" else moment.split(".")[1:]
    program = f"""
import os, signal, sys
import {place} as module
from cxrsr_cli.commands.app import main
owner = {owner if owner == "module" else f"module.{owner}"}
real, calls = owner.{name}, []
def kill(*arguments, **options):
    calls.append(arguments)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
owner.{name} = kill
sys.argv = ["cxrsr", "upscale", *{options(tiny_model)!r}, "--cluster", {str(two_workers.file)!r},
            "--cluster-transfer", "paths", {str(inputs)!r}, {str(inputs.parent / "out")!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    out = inputs.parent / "out"
    named = outputs(out)
    assert len(named) == (3 if name == "mark_done" else 2)
    for orphan in out.glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"):
        os.utime(orphan, (0, 0))
    results = run_on_cluster(two_workers.address, tiny_model, inputs, out)
    assert statuses(results).count(FileStatus.UP_TO_DATE) == len(named)
    assert statuses(results).count(FileStatus.DONE) == COUNT - len(named)
    assert {path.name for path in out.iterdir() if path.suffix != TEMPORARY_SUFFIX} == {
        LEDGER_NAME, *(f"{index}.dcm" for index in range(COUNT)),
    }  # fmt: skip
    assert named.items() <= outputs(out).items()
