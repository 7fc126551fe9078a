"""Many files: their order, overlapping stages, stopping, and files that fail."""

import json
import os
import shutil
import signal
import threading
import time
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
from cxrsr_cli.errors import ExitCode, UnsupportedImageError
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import COUNT, small_chest
from tests.helpers.batches import jobs, run, spoil, statuses
from tests.helpers.waiting import wait_until
from tests.helpers.warm_command import start_warm


@pytest.mark.parametrize("io_workers", [0, 1, 3])
def test_results_come_in_order_and_progress_adds_up(
    upscaler: Upscaler, inputs: Path, io_workers: int
) -> None:
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
    """The second file is read, and the first is written, while the network runs."""
    was_read, was_written = threading.Event(), threading.Event()
    real_read, real_upscale, real_write = Upscaler.read, Upscaler.upscale, Upscaler.write

    def reading(self: Upscaler, job: Job) -> object:
        decoded = real_read(self, job)
        if job.source.name == "1.dcm":
            was_read.set()
        return decoded

    def upscaling(self: Upscaler, decoded: object, advance: object) -> object:
        name = decoded.job.source.name  # type: ignore[attr-defined]
        if name == "0.dcm":
            assert was_read.wait(30), "the next file must be read meanwhile"
        if name == "1.dcm":
            assert was_written.wait(30), "the last file must be written meanwhile"
        return real_upscale(self, decoded, advance)  # type: ignore[arg-type]

    def writing(self: Upscaler, upscaled: object, before_publish: object) -> object:
        output = real_write(self, upscaled, before_publish)  # type: ignore[arg-type]
        was_written.set()
        return output

    monkeypatch.setattr(Upscaler, "read", reading)
    monkeypatch.setattr(Upscaler, "upscale", upscaling)
    monkeypatch.setattr(Upscaler, "write", writing)
    assert statuses(run(upscaler, inputs)) == [FileStatus.DONE] * COUNT


def test_no_more_files_are_in_memory_than_io_workers_allow(
    upscaler: Upscaler, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most io_workers files are read ahead, and one is in the network."""
    decoded, upscaled, most = 0, 0, 0
    real_read, real_upscale = Upscaler.read, Upscaler.upscale

    def reading(self: Upscaler, job: Job) -> object:
        nonlocal decoded, most
        decoded += 1
        most = max(most, decoded - upscaled)
        return real_read(self, job)

    def upscaling(self: Upscaler, *arguments: object) -> object:
        nonlocal upscaled
        time.sleep(0.05)
        upscaled += 1
        return real_upscale(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Upscaler, "read", reading)
    monkeypatch.setattr(Upscaler, "upscale", upscaling)
    run(upscaler, inputs, io_workers=2)
    assert 1 < most <= 3


@pytest.mark.parametrize("io_workers", [0, 2])
def test_stopping_finishes_the_files_that_were_begun(
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


@pytest.mark.process
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_ends_the_run_without_partial_files(
    inputs: Path, name: str, tmp_path: Path
) -> None:
    """The file in the network is finished, or dropped after Ctrl-C; no partial file is left."""
    for index in range(200):
        shutil.copy(inputs / "0.dcm", inputs / f"x{index:03}.dcm")
    command = ["upscale", "--report", "r.json", "in", "out"]
    stdout, stderr = tmp_path / "stdout", tmp_path / "stderr"
    process = start_warm(command, folder=tmp_path, stdout=stdout, stderr=stderr)
    try:
        wait_until(lambda: bool(list((tmp_path / "out").glob("*.dcm"))), "the first output")
        process.send_signal(getattr(signal, name))
        assert process.wait(60) == ExitCode.INTERRUPTED, stderr.read_text()
    finally:
        process.kill()
    assert stderr.read_text() == ""
    assert stdout.read_text().startswith("Interrupted: ")
    written = sorted((tmp_path / "out").glob("*"))
    assert 0 < len(written) < 200
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["exit_code"] == ExitCode.INTERRUPTED
    assert report["counts"]["not processed"] > 100
    assert report["counts"]["done"] == len(written) - 1, "what is there is told"
    for path in written:
        assert path.name == LEDGER_NAME or decode(read_source(path)).shape == (1, 96, 80)


def test_a_file_that_grows_while_it_is_read_is_refused(
    upscaler: Upscaler, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file can look like a whole one, but it grows."""

    def growing(path: Path) -> object:
        source = read_source(path)
        if path == inputs / "2.dcm":
            spoil(path)
        return source

    monkeypatch.setattr("cxrsr_cli.upscaler.read_source", growing)
    results = run(upscaler, inputs)
    assert statuses(results).count(FileStatus.DONE) == COUNT - 1
    assert "still being written" in str(results[2].error)


def test_a_file_that_is_refused_is_not_read_whole(
    upscaler: Upscaler, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_chest(BodyPartExamined="HIP").save_as(inputs / "0.dcm")
    monkeypatch.setattr("cxrsr_cli.upscaler.sha256_file", lambda _: pytest.fail("read"))
    (result,) = BatchRunner(LocalExecutor(upscaler)).run(jobs(inputs)[:1])
    assert isinstance(result.error, UnsupportedImageError)


def test_errors_of_results_hold_no_traceback(upscaler: Upscaler, inputs: Path) -> None:
    """Results are kept until the run ends, and a traceback would keep the arrays of its file."""
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


def test_pipes_and_devices_are_refused(upscaler: Upscaler, inputs: Path) -> None:
    """Reading the pipe would wait for ever, and the device never ends."""
    os.mkfifo(inputs / "pipe.dcm")
    (inputs / "endless.dcm").symlink_to("/dev/zero")
    results = {result.job.source.name: result for result in run(upscaler, inputs)}
    for name in ("pipe.dcm", "endless.dcm"):
        assert "not a regular file" in str(results[name].error)
    assert sum(result.status is FileStatus.DONE for result in results.values()) == COUNT


def test_a_folder_that_cannot_be_read_can_be_written_to(upscaler: Upscaler, inputs: Path) -> None:
    """Such a folder cannot be synchronised to the disk, but its files are written."""
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
