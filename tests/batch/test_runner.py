"""Many files: in order, overlapping, stoppable, one bad file at a time."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest

from cxrsr_cli.batch.ledger import LEDGER_NAME
from cxrsr_cli.batch.plan import plan_batch
from cxrsr_cli.batch.result import FileStatus, Result, exit_code
from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import ExitCode
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import COUNT, small_chest
from tests.helpers.batches import jobs, run, spoil, statuses


@pytest.mark.parametrize("io_workers", [0, 1, 3])
def test_order_and_progress(upscaler: Upscaler, inputs: Path, io_workers: int) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    (inputs / "5.dcm").unlink()
    shown: list[float] = []
    batch = BatchRunner(LocalExecutor(upscaler, io_workers))
    results = list(batch.run(jobs(inputs), advance=shown.append))
    assert [result.job for result in results] == jobs(inputs)
    assert statuses(results) == [
        FileStatus.FAILED if n == 1 else FileStatus.DONE for n in range(COUNT - 1)
    ]
    assert sum(shown) == pytest.approx(COUNT - 1)
    assert min(shown) >= 0


def test_every_number_of_workers_gives_the_same_bytes(tiny_model: Path, inputs: Path) -> None:
    hashes = []
    for io_workers in (0, 2):
        upscaler = Upscaler.load(
            find_model(str(tiny_model), 2), clock=lambda: datetime(2026, 11, 22, tzinfo=UTC)
        )
        out = inputs.parent / str(io_workers)
        results = BatchRunner(LocalExecutor(upscaler, io_workers)).run(
            plan_batch([inputs], out).jobs
        )
        hashes.append([result.output_sha256 for result in results])
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == COUNT


def test_reading_and_writing_overlap_with_the_network(
    upscaler: Upscaler, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second file is read, and the first written, while the network works."""
    read, wrote = threading.Event(), threading.Event()
    real_open, real_restore, real_finish = Upscaler.read, Upscaler.upscale, Upscaler.write

    def opening(self: Upscaler, job: Job) -> object:
        opened = real_open(self, job)
        if job.source.name == "1.dcm":
            read.set()
        return opened

    def restoring(self: Upscaler, opened: object, advance: object) -> object:
        name = opened.job.source.name  # type: ignore[attr-defined]
        if name == "0.dcm":
            assert read.wait(30), "the next file was not read meanwhile"
        if name == "1.dcm":
            assert wrote.wait(30), "the last file was not written meanwhile"
        return real_restore(self, opened, advance)  # type: ignore[arg-type]

    def finishing(self: Upscaler, restored: object, announce: object) -> object:
        output = real_finish(self, restored, announce)  # type: ignore[arg-type]
        wrote.set()
        return output

    monkeypatch.setattr(Upscaler, "read", opening)
    monkeypatch.setattr(Upscaler, "upscale", restoring)
    monkeypatch.setattr(Upscaler, "write", finishing)
    assert statuses(run(upscaler, inputs)) == [FileStatus.DONE] * COUNT


def test_no_more_files_are_in_memory_than_asked_for(
    upscaler: Upscaler, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read ahead: io_workers; in the network: one."""
    opened, restored, most = 0, 0, 0
    real_open, real_restore = Upscaler.read, Upscaler.upscale

    def opening(self: Upscaler, job: Job) -> object:
        nonlocal opened, most
        opened += 1
        most = max(most, opened - restored)
        return real_open(self, job)

    def restoring(self: Upscaler, *arguments: object) -> object:
        nonlocal restored
        time.sleep(0.05)
        restored += 1
        return real_restore(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Upscaler, "read", opening)
    monkeypatch.setattr(Upscaler, "upscale", restoring)
    run(upscaler, inputs, io_workers=2)
    assert 1 < most <= 3


@pytest.mark.parametrize("io_workers", [0, 2])
def test_stopping_finishes_what_is_in_hand(
    upscaler: Upscaler, inputs: Path, io_workers: int
) -> None:
    done: list[Result] = []
    batch = BatchRunner(LocalExecutor(upscaler, io_workers))
    running = batch.run(jobs(inputs), stop=lambda: len(done) >= 2)
    done.extend(result for result in running)
    assert statuses(done) == [FileStatus.DONE] * len(done)
    assert 2 <= len(done) <= 2 + 1 + io_workers
    written = {path.name for path in (inputs.parent / "out").iterdir()}
    assert written == {result.job.target.name for result in done}
    assert exit_code(done, COUNT) is ExitCode.INTERRUPTED


@pytest.fixture
def heeded_hangup() -> Iterator[None]:
    """Let children heed SIGHUP, which they would not below a nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("heeded_hangup")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals(inputs: Path, name: str, tmp_path: Path) -> None:
    """The file in hand is finished, or by Ctrl-C dropped; neither leaves half a file."""
    for index in range(200):
        shutil.copy(inputs / "0.dcm", inputs / f"x{index:03}.dcm")
    command = [sys.executable, "-m", "cxrsr_cli", "upscale", "--report", "r.json", "in", "out"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "out").glob("*.dcm")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(getattr(signal, name))
        output, error = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, error
    assert error == ""
    assert "interrupted with" in output
    written = sorted((tmp_path / "out").glob("*"))
    assert 0 < len(written) < 200
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["exit_code"] == ExitCode.INTERRUPTED
    assert report["counts"]["not processed"] > 100
    assert report["counts"]["done"] == len(written) - 1, "what is there is told"
    for path in written:
        assert path.name == LEDGER_NAME or decode(read_source(path)).shape == (1, 96, 80)


def test_a_file_still_being_written_is_not_taken(
    upscaler: Upscaler, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file can read as a whole one; that it grows gives it away."""

    def growing(path: Path) -> object:
        source = read_source(path)
        if path == inputs / "2.dcm":
            spoil(path)
        return source

    monkeypatch.setattr("cxrsr_cli.upscaler.read_source", growing)
    results = run(upscaler, inputs)
    assert statuses(results).count(FileStatus.DONE) == COUNT - 1
    assert "still being written" in str(results[2].error)


def test_failures_keep_no_pixels(upscaler: Upscaler, inputs: Path) -> None:
    """A night's results are kept; a traceback would keep every file's arrays with them."""
    small_chest(3, BodyPartExamined="HIP").save_as(inputs / "2.dcm")
    (inputs.parent / "out").mkdir()
    (inputs.parent / "out" / "4.dcm").write_bytes(b"precious")
    errors = [
        result.error
        for result in BatchRunner(LocalExecutor(upscaler)).run(jobs(inputs))
        if result.error
    ]
    assert len(errors) == 2
    assert all(error.__traceback__ is None for error in errors)
    assert all(error.__cause__ is error.__context__ is None for error in errors)


def test_what_is_no_file_is_not_waited_for(upscaler: Upscaler, inputs: Path) -> None:
    """Nobody writes into the pipe, and the device never ends."""
    os.mkfifo(inputs / "pipe.dcm")
    (inputs / "endless.dcm").symlink_to("/dev/zero")
    results = {result.job.source.name: result for result in run(upscaler, inputs)}
    for name in ("pipe.dcm", "endless.dcm"):
        assert "not a regular file" in str(results[name].error)
    assert sum(result.status is FileStatus.DONE for result in results.values()) == COUNT


def test_a_drop_box_is_written_to(upscaler: Upscaler, inputs: Path) -> None:
    """A folder that may be written but not read cannot be synced; its files are there."""
    real = os.open

    def refuse(path: str, *arguments: int, **options: int) -> int:
        if str(path) == str(inputs.parent / "out"):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    with patch("os.open", refuse):
        assert (
            statuses(list(BatchRunner(LocalExecutor(upscaler)).run(jobs(inputs))))
            == [FileStatus.DONE] * COUNT
        )
