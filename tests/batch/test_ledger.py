"""The ledger: reruns, runs that were killed, and files of others."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from cxrsr_cli.batch.ledger import LEDGER_NAME, Ledger
from cxrsr_cli.batch.plan import plan_batch
from cxrsr_cli.batch.result import FileStatus, exit_code
from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.common.files import TEMPORARY_PREFIX, TEMPORARY_SUFFIX, sha256_file
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import ExitCode, OutputError
from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import COUNT, small_chest
from tests.helpers.batches import jobs, run, spoil, statuses
from tests.helpers.warm_command import run_warm, start_warm


def test_a_rerun_writes_nothing(upscaler: Upscaler, inputs: Path) -> None:
    first = run(upscaler, inputs)
    assert statuses(first) == [FileStatus.DONE] * COUNT
    written = {job.target: job.target.stat().st_mtime_ns for job in jobs(inputs)}
    again = run(upscaler, inputs)
    assert statuses(again) == [FileStatus.UP_TO_DATE] * COUNT
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert [result.output_sha256 for result in again] == [result.output_sha256 for result in first]
    assert exit_code(again, COUNT) is ExitCode.OK


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (lambda job: job.target.unlink(), FileStatus.DONE, ""),
        (lambda job: small_chest(99).save_as(job.source), FileStatus.FAILED, "another source"),
        (lambda job: spoil(job.target), FileStatus.FAILED, "exists; use --overwrite"),
    ],
    ids=["output gone", "source changed", "output changed"],
)
def test_a_file_is_up_to_date_only_if_source_and_output_are_unchanged(
    upscaler: Upscaler, inputs: Path, change: Callable[[Job], object], status: FileStatus, says: str
) -> None:
    run(upscaler, inputs)
    change(jobs(inputs)[2])
    results = run(upscaler, inputs)
    assert statuses(results) == [status if n == 2 else FileStatus.UP_TO_DATE for n in range(COUNT)]
    assert says in str(results[2].error or "")


def test_other_options_need_overwrite(upscaler: Upscaler, inputs: Path) -> None:
    run(upscaler, inputs)
    other = replace(upscaler, options=replace(upscaler.options, keep_private=False))
    assert statuses(run(other, inputs)) == [FileStatus.FAILED] * COUNT
    other = replace(other, options=replace(other.options, overwrite=True))
    assert statuses(run(other, inputs)) == [FileStatus.DONE] * COUNT


def test_an_output_folder_can_be_moved(upscaler: Upscaler, inputs: Path) -> None:
    run(upscaler, inputs)
    elsewhere = inputs.parent / "elsewhere"
    (inputs.parent / "out").rename(elsewhere)
    batch = BatchRunner(LocalExecutor(upscaler), Ledger(elsewhere / LEDGER_NAME))
    assert (
        statuses(list(batch.run(plan_batch([inputs], elsewhere).jobs)))
        == [FileStatus.UP_TO_DATE] * COUNT
    )


def test_a_ledger_can_be_outside_the_output_folder(upscaler: Upscaler, inputs: Path) -> None:
    ledger = Ledger(inputs.parent / "new" / "ledger.sqlite")
    batch = BatchRunner(LocalExecutor(upscaler), ledger)
    assert statuses(list(batch.run(jobs(inputs)))) == [FileStatus.DONE] * COUNT
    assert statuses(list(batch.run(jobs(inputs)))) == [FileStatus.UP_TO_DATE] * COUNT


def test_a_ledger_holds_no_patient_data(upscaler: Upscaler, inputs: Path) -> None:
    run(upscaler, inputs)
    raw = (inputs.parent / "out" / LEDGER_NAME).read_bytes()
    source = pydicom.dcmread(inputs / "0.dcm")
    for keyword in ("PatientName", "PatientID", "SOPInstanceUID", "StudyInstanceUID"):
        assert str(source[keyword].value).encode() not in raw
    assert sha256_file(inputs / "0.dcm").encode() in raw


@pytest.mark.parametrize(
    "content", [b"not SQLite at all" * 100, b"", None], ids=["text", "empty", "other"]
)
def test_a_file_that_is_not_a_ledger_is_refused_and_kept(
    upscaler: Upscaler, inputs: Path, content: bytes | None
) -> None:
    import sqlite3

    path = inputs.parent / "ledger"
    if content is not None:
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE precious (a)")
        connection.close()
    before = path.read_bytes()
    results = list(BatchRunner(LocalExecutor(upscaler), Ledger(path)).run(jobs(inputs)[:1]))
    assert "ledger" in str(results[0].error)
    assert exit_code(results) is ExitCode.CANNOT_WRITE
    assert path.read_bytes() == before
    assert not jobs(inputs)[0].target.exists()


@pytest.mark.process
def test_two_runs_at_once_write_each_file_once(inputs: Path, tiny_model: Path) -> None:
    """The second process finds each file up to date, and the ledger stays right."""
    for index in range(20):
        small_chest(COUNT + index).save_as(inputs / f"x{index:02}.dcm")
    command = ["upscale", "-s", "2", "-m", str(tiny_model), str(inputs), str(inputs.parent / "out")]
    logs = [inputs.parent / name for name in ("first.log", "second.log")]
    both = [start_warm(command, stdout=log) for log in logs]
    codes = [process.wait(300) for process in both]
    said = [log.read_text() for log in logs]
    assert codes == [ExitCode.OK, ExitCode.OK], said
    done = [int(text.split(" upscaled")[0]) for text in said]
    assert sum(done) == COUNT + 20
    third = run_warm(command)
    assert f"{COUNT + 20} up to date, nothing to do" in third.stdout


def test_another_version_or_machine_upscales_nothing_again(
    upscaler: Upscaler, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade, or a night without the GPU, must not make every file fail."""
    run(upscaler, inputs)
    monkeypatch.setattr("cxrsr_cli.upscaler.__version__", "9.9")
    options = replace(upscaler.options, memory=1 << 30, device="cuda:0")
    other = replace(upscaler, options=options)
    assert other.parameters.fingerprint() != upscaler.parameters.fingerprint()
    assert statuses(run(other, inputs)) == [FileStatus.UP_TO_DATE] * COUNT


def test_a_dry_run_does_not_touch_the_ledger(upscaler: Upscaler, inputs: Path) -> None:
    run(upscaler, inputs)
    path = inputs.parent / "out" / LEDGER_NAME
    before = path.read_bytes()
    batch = BatchRunner(LocalExecutor(upscaler), Ledger(path, read_only=True), dry_run=True)
    assert statuses(list(batch.run(jobs(inputs)))) == [FileStatus.UP_TO_DATE] * COUNT
    assert path.read_bytes() == before


@pytest.mark.process
@pytest.mark.parametrize("moment", ["announce", "rename", "record"])
def test_a_rerun_completes_a_run_that_was_killed_at_any_moment(
    upscaler: Upscaler, inputs: Path, tiny_model: Path, moment: str
) -> None:
    """SIGKILL comes before the third file is marked as pending, renamed, or marked as done.

    The ledger itself is the first file that is renamed.
    """
    place = {
        "announce": "cxrsr_cli.batch.ledger.Ledger.mark_pending",
        "rename": "cxrsr_cli.common.files._rename_new",
        "record": "cxrsr_cli.batch.ledger.Ledger.mark_done",
    }[moment]
    program = f"""
import os, signal, sys
from unittest.mock import patch
from cxrsr_cli.commands.app import main
calls = []
def kill(*arguments):
    calls.append(arguments)
    if len(calls) == {4 if moment == "rename" else 3}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
import {place.partition(".Ledger")[0].removesuffix("._rename_new")} as module
owner = getattr(module, "Ledger", module)
name = {place.rpartition(".")[2]!r}
real = getattr(owner, name)
setattr(owner, name, kill)
sys.argv = ["cxrsr", "upscale", "-s", "2", "-m", {str(tiny_model)!r}, {str(inputs)!r},
            {str(inputs.parent / "out")!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    out = inputs.parent / "out"
    named = sorted(out.glob("*.dcm"))
    assert len(named) == (3 if moment == "record" else 2)
    for path in named:
        assert decode(read_source(path)).shape == (1, 48, 40)
    orphans = list(out.glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"))
    assert len(orphans) == (moment != "record")
    for orphan in orphans:
        os.utime(orphan, (0, 0))
    results = run(upscaler, inputs)
    assert statuses(results) == [FileStatus.UP_TO_DATE] * len(named) + [FileStatus.DONE] * (
        COUNT - len(named)
    )
    assert {path.name for path in out.iterdir()} == {
        LEDGER_NAME, *(f"{index}.dcm" for index in range(COUNT)),
    }  # fmt: skip


def test_a_temporary_file_of_a_running_process_is_kept(upscaler: Upscaler, inputs: Path) -> None:
    """Two runs into one folder do not remove each other's files."""
    import fcntl

    out = inputs.parent / "out"
    out.mkdir()
    held = out / f"{TEMPORARY_PREFIX}x{TEMPORARY_SUFFIX}"
    with held.open("wb") as opened:
        os.utime(held, (0, 0))
        fcntl.flock(opened, fcntl.LOCK_EX)
        run(upscaler, inputs)
        assert held.exists()


def test_an_unusable_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be used"):
        Ledger(Path("/dev/null/ledger")).mark_pending(tmp_path / "x", None, "")  # type: ignore[arg-type]
