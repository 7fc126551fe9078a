"""Many files unattended: resumable, idempotent, in order, stoppable."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest

from cxrsr_cli.batch.batch import Batch
from cxrsr_cli.batch.ledger import LEDGER_NAME, Ledger
from cxrsr_cli.batch.plan import plan
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.result import Result, Status, exit_code
from cxrsr_cli.errors import ExitCode, OutputError
from cxrsr_cli.job import Job
from cxrsr_cli.read.dataset import read_source
from cxrsr_cli.read.fingerprint import sha256_of
from cxrsr_cli.read.pixels import decode
from cxrsr_cli.restore.registry import find_model
from cxrsr_cli.restore.restorer import Restorer
from cxrsr_cli.upscale import Upscaler
from cxrsr_cli.write.atomic import TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from tests.conftest import Command, small_chest

COUNT = 6


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Make a folder of small radiographs, no two alike."""
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(COUNT):
        small_chest(index).save_as(folder / f"{index}.dcm")
    return folder


@pytest.fixture(scope="module")
def upscaler(tiny_model: Path) -> Upscaler:
    return Upscaler(Restorer.load(tiny_model), find_model(str(tiny_model), 2))


def jobs(inputs: Path) -> list[Job]:
    return plan([inputs], inputs.parent / "out").jobs


def run(upscaler: Upscaler, inputs: Path, **options: object) -> list[Result]:
    """Run with the ledger in the output folder, as the command does."""
    ledger = Ledger(inputs.parent / "out" / LEDGER_NAME)
    try:
        return list(Batch(upscaler, ledger, **options).run(jobs(inputs)))  # type: ignore[arg-type]
    finally:
        ledger.close()


def statuses(results: list[Result]) -> list[Status]:
    return [result.status for result in results]


# The ledger


def test_a_rerun_does_nothing(upscaler: Upscaler, inputs: Path) -> None:
    first = run(upscaler, inputs)
    assert statuses(first) == [Status.DONE] * COUNT
    written = {job.target: job.target.stat().st_mtime_ns for job in jobs(inputs)}
    again = run(upscaler, inputs)
    assert statuses(again) == [Status.ALREADY] * COUNT
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert [result.output_sha256 for result in again] == [result.output_sha256 for result in first]
    assert exit_code(again, COUNT) is ExitCode.OK


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (lambda job: job.target.unlink(), Status.DONE, ""),
        (lambda job: small_chest(99).save_as(job.source), Status.FAILED, "another source"),
        (lambda job: spoil(job.target), Status.FAILED, "exists; use --overwrite"),
    ],
    ids=["output gone", "source changed", "output changed"],
)
def test_only_what_is_as_it_was_is_done_already(
    upscaler: Upscaler, inputs: Path, change: Callable[[Job], object], status: Status, says: str
) -> None:
    run(upscaler, inputs)
    change(jobs(inputs)[2])
    results = run(upscaler, inputs)
    assert statuses(results) == [status if n == 2 else Status.ALREADY for n in range(COUNT)]
    assert says in str(results[2].error or "")


def test_other_options_are_other_work(upscaler: Upscaler, inputs: Path, tiny_model: Path) -> None:
    run(upscaler, inputs)
    restorer, model = upscaler.restorer, upscaler.model
    other = Upscaler(restorer, model, keep_private=False)
    assert statuses(run(other, inputs)) == [Status.FAILED] * COUNT
    other = Upscaler(restorer, model, keep_private=False, overwrite=True)
    assert statuses(run(other, inputs)) == [Status.DONE] * COUNT


def test_an_output_folder_can_be_moved(upscaler: Upscaler, inputs: Path) -> None:
    run(upscaler, inputs)
    elsewhere = inputs.parent / "elsewhere"
    (inputs.parent / "out").rename(elsewhere)
    batch = Batch(upscaler, Ledger(elsewhere / LEDGER_NAME))
    assert statuses(list(batch.run(plan([inputs], elsewhere).jobs))) == [Status.ALREADY] * COUNT


def test_a_ledger_may_lie_elsewhere(upscaler: Upscaler, inputs: Path) -> None:
    ledger = Ledger(inputs.parent / "new" / "ledger.sqlite")
    batch = Batch(upscaler, ledger)
    assert statuses(list(batch.run(jobs(inputs)))) == [Status.DONE] * COUNT
    assert statuses(list(batch.run(jobs(inputs)))) == [Status.ALREADY] * COUNT


def test_a_ledger_holds_nothing_from_inside_a_file(upscaler: Upscaler, inputs: Path) -> None:
    run(upscaler, inputs)
    raw = (inputs.parent / "out" / LEDGER_NAME).read_bytes()
    source = pydicom.dcmread(inputs / "0.dcm")
    for keyword in ("PatientName", "PatientID", "SOPInstanceUID", "StudyInstanceUID"):
        assert str(source[keyword].value).encode() not in raw
    assert sha256_of(inputs / "0.dcm").encode() in raw


@pytest.mark.parametrize("content", [b"not SQLite at all" * 100, None], ids=["text", "other"])
def test_another_programs_file_is_no_ledger(
    upscaler: Upscaler, inputs: Path, content: bytes | None
) -> None:
    import sqlite3

    path = inputs.parent / "ledger"
    if content:
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE precious (a)")
        connection.close()
    before = path.read_bytes()
    results = list(Batch(upscaler, Ledger(path)).run(jobs(inputs)[:1]))
    assert "ledger" in str(results[0].error)
    assert exit_code(results) is ExitCode.CANNOT_WRITE
    assert path.read_bytes() == before
    assert not jobs(inputs)[0].target.exists()


@pytest.mark.parametrize("moment", ["announce", "rename", "record"])
def test_killed_at_any_moment(
    upscaler: Upscaler, inputs: Path, tiny_model: Path, moment: str
) -> None:
    """SIGKILL before the announcement, before the rename, and before the record."""
    place = {
        "announce": "cxrsr_cli.batch.ledger.Ledger.announce",
        "rename": "cxrsr_cli.write.atomic._rename_new",
        "record": "cxrsr_cli.batch.ledger.Ledger.record",
    }[moment]
    program = f"""
import os, signal, sys
from unittest.mock import patch
from cxrsr_cli.commands.app import main
calls = []
def kill(*arguments):
    calls.append(arguments)
    if len(calls) == 3:
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
    assert len(orphans) == (1 if moment != "record" else len(orphans))
    for orphan in orphans:
        os.utime(orphan, (0, 0))
    results = run(upscaler, inputs)
    assert statuses(results) == [Status.ALREADY] * len(named) + [Status.DONE] * (COUNT - len(named))
    assert {path.name for path in out.iterdir()} == {
        LEDGER_NAME, *(f"{index}.dcm" for index in range(COUNT)),
    }  # fmt: skip


def test_a_file_that_is_being_written_is_no_orphan(upscaler: Upscaler, inputs: Path) -> None:
    """Two runs into one folder do not take each other's files."""
    import fcntl

    out = inputs.parent / "out"
    out.mkdir()
    held = out / f"{TEMPORARY_PREFIX}x{TEMPORARY_SUFFIX}"
    with held.open("wb") as opened:
        os.utime(held, (0, 0))
        fcntl.flock(opened, fcntl.LOCK_EX)
        run(upscaler, inputs)
        assert held.exists()


# Order, overlap, stopping


@pytest.mark.parametrize("io_workers", [0, 1, 3])
def test_order_and_progress(upscaler: Upscaler, inputs: Path, io_workers: int) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    (inputs / "5.dcm").unlink()
    shown: list[float] = []
    batch = Batch(upscaler, io_workers=io_workers)
    results = list(batch.run(jobs(inputs), advance=shown.append))
    assert [result.job for result in results] == jobs(inputs)
    assert statuses(results) == [Status.FAILED if n == 1 else Status.DONE for n in range(COUNT - 1)]
    assert sum(shown) == pytest.approx(COUNT - 1)
    assert min(shown) >= 0


def test_every_number_of_workers_gives_the_same_bytes(tiny_model: Path, inputs: Path) -> None:
    hashes = []
    for io_workers in (0, 2):
        upscaler = Upscaler(
            Restorer.load(tiny_model),
            find_model(str(tiny_model), 2),
            clock=lambda: datetime(2026, 11, 22, tzinfo=UTC),
        )
        out = inputs.parent / str(io_workers)
        results = Batch(upscaler, io_workers=io_workers).run(plan([inputs], out).jobs)
        hashes.append([result.output_sha256 for result in results])
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == COUNT


def test_reading_and_writing_overlap_with_the_network(
    upscaler: Upscaler, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second file is read, and the first written, while the network works."""
    read, wrote = threading.Event(), threading.Event()
    real_open, real_restore, real_finish = Upscaler.open, Upscaler.restore, Upscaler.finish

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

    monkeypatch.setattr(Upscaler, "open", opening)
    monkeypatch.setattr(Upscaler, "restore", restoring)
    monkeypatch.setattr(Upscaler, "finish", finishing)
    assert statuses(run(upscaler, inputs)) == [Status.DONE] * COUNT


def test_no_more_files_are_in_memory_than_asked_for(
    upscaler: Upscaler, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read ahead: io_workers; in the network: one."""
    opened, restored, most = 0, 0, 0
    real_open, real_restore = Upscaler.open, Upscaler.restore

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

    monkeypatch.setattr(Upscaler, "open", opening)
    monkeypatch.setattr(Upscaler, "restore", restoring)
    run(upscaler, inputs, io_workers=2)
    assert 1 < most <= 3


@pytest.mark.parametrize("io_workers", [0, 2])
def test_stopping_finishes_what_is_in_hand(
    upscaler: Upscaler, inputs: Path, io_workers: int
) -> None:
    done: list[Result] = []
    batch = Batch(upscaler, io_workers=io_workers)
    running = batch.run(jobs(inputs), stop=lambda: len(done) >= 2)
    done.extend(result for result in running)
    assert statuses(done) == [Status.DONE] * len(done)
    assert 2 <= len(done) <= 2 + 1 + io_workers
    written = {path.name for path in (inputs.parent / "out").iterdir()}
    assert written == {result.job.target.name for result in done}
    assert exit_code(done, COUNT) is ExitCode.INTERRUPTED


@pytest.mark.parametrize(
    ("name", "left"), [("SIGTERM", "finished"), ("SIGINT", "dropped")], ids=str
)
def test_signals(inputs: Path, name: str, left: str, tmp_path: Path) -> None:
    """SIGTERM finishes the file in hand, Ctrl-C drops it; neither leaves half a file."""
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
    assert report["counts"]["not come to"] > 100
    if left == "finished":
        assert report["counts"]["done"] == len(written) - 1
    for path in written:
        assert path.name == LEDGER_NAME or decode(read_source(path)).shape == (1, 96, 80)


# Dry run, quarantine, report


def test_a_dry_run_tells_and_writes_nothing(
    cxrsr: Command, upscaler: Upscaler, inputs: Path, tiny_model: Path
) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    options = ("-s", 2, "-m", tiny_model, "--quarantine", inputs.parent / "q")
    done = cxrsr("upscale", "--dry-run", *options, inputs, inputs.parent / "out")
    assert done.returncode == ExitCode.SOME_FAILED
    assert f"dry run: {COUNT - 1} would be upscaled, 1 failed" in done.stdout
    assert done.stderr.count("would upscale: ") == COUNT - 1
    assert "24x20" in done.stderr or "20x24 -> 40x48" in done.stderr
    assert "failed: " in done.stderr
    assert {path.name for path in inputs.parent.iterdir()} == {"in"}
    run(upscaler, inputs)
    (inputs.parent / "out" / "3.dcm").unlink()
    before = sorted(inputs.parent.rglob("*"))
    done = cxrsr("upscale", "--dry-run", *options, inputs, inputs.parent / "out")
    assert f"dry run: 1 would be upscaled, 1 failed, {COUNT - 2} done already" in done.stdout
    assert sorted(inputs.parent.rglob("*")) == before


def test_quarantine(upscaler: Upscaler, inputs: Path, tmp_path: Path) -> None:
    """Bad inputs are copied with a reason; the rest, and what others left there, is not touched."""
    (inputs / "sub").mkdir()
    (inputs / "sub" / "bad.dcm").write_bytes(b"bad")
    shutil.copy(inputs / "0.dcm", inputs / "sub" / "taken.dcm")
    small_chest(3, BodyPartExamined="HIP").save_as(inputs / "2.dcm")
    quarantine = tmp_path / "q"
    (quarantine / "sub").mkdir(parents=True)
    (quarantine / "sub" / "bad.dcm").write_bytes(b"another night's")
    (tmp_path / "out" / "sub").mkdir(parents=True)
    (tmp_path / "out" / "sub" / "taken.dcm").write_bytes(b"precious")
    for _ in range(2):
        results = run(upscaler, inputs, quarantine=Quarantine(quarantine, tmp_path / "out"))
        assert statuses(results).count(Status.FAILED) == 3
    digest = sha256_of(inputs / "sub" / "bad.dcm")[:12]
    assert {str(path.relative_to(quarantine)) for path in quarantine.rglob("*.*")} == {
        "2.dcm", "2.dcm.reason.json",
        "sub/bad.dcm", f"sub/bad.{digest}.dcm", f"sub/bad.{digest}.dcm.reason.json",
    }  # fmt: skip
    assert (quarantine / "2.dcm").read_bytes() == (inputs / "2.dcm").read_bytes()
    reason = json.loads((quarantine / "2.dcm.reason.json").read_text())
    assert "body part" in reason["reason"]
    assert reason["source_sha256"] == sha256_of(inputs / "2.dcm")
    assert "Example" not in str(reason)


def test_a_quarantine_that_cannot_be_written_is_said(
    upscaler: Upscaler, inputs: Path, tmp_path: Path
) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    (tmp_path / "q").write_bytes(b"a file")
    results = run(upscaler, inputs, quarantine=Quarantine(tmp_path / "q"))
    assert statuses(results).count(Status.DONE) == COUNT - 1
    assert "quarantine" in results[1].warnings[0]


def test_report(cxrsr: Command, inputs: Path, tiny_model: Path, tmp_path: Path) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    path = tmp_path / "run.json"
    for _ in range(2):
        done = cxrsr("upscale", "-s", 2, "-m", tiny_model, "--report", path, inputs, tmp_path / "o")
        assert done.returncode == ExitCode.SOME_FAILED
        report = json.loads(path.read_text())
        if report["counts"]["done"]:
            first = report
    assert report["counts"]["already done"] == first["counts"]["done"] == COUNT - 1
    assert first["schema"] == "cxrsr-run-report/1"
    assert first["model"]["sha256"] == sha256_of(tiny_model)
    assert first["exit_code"] == ExitCode.SOME_FAILED
    assert first["versions"]["torch"]
    assert datetime.fromisoformat(first["started"]) <= datetime.fromisoformat(first["finished"])
    good, bad = first["files"][:2]
    assert (good["status"], good["input_shape"], good["output_shape"]) == (
        "done", [24, 20], [48, 40],
    )  # fmt: skip
    assert good["seconds"]["total"] > 0
    assert good["peak_memory_bytes"] > 50e6
    assert good["source_sha256"] == sha256_of(inputs / "0.dcm")
    assert good["output_sha256"] == sha256_of(tmp_path / "o" / "0.dcm")
    assert bad["status"] == "failed"
    assert bad["error"]["kind"] == "NotDicomError"
    assert "Example" not in path.read_text()


def test_a_report_replaces_only_a_report(cxrsr: Command, inputs: Path, tmp_path: Path) -> None:
    source = inputs / "0.dcm"
    before = source.read_bytes()
    done = cxrsr("upscale", "--report", source, inputs, tmp_path / "out")
    assert done.returncode == ExitCode.CANNOT_WRITE
    assert "is no report" in done.stderr
    assert source.read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_json_log(cxrsr: Command, inputs: Path, tiny_model: Path, tmp_path: Path) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    done = cxrsr("upscale", "--log-json", "-s", 2, "-m", tiny_model, inputs, tmp_path / "out")
    assert done.stdout == ""
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events] == ["start", *["file"] * COUNT, "summary"]
    assert [event["level"] for event in events].count("error") == 1
    assert events[-1]["exit_code"] == done.returncode == ExitCode.SOME_FAILED
    assert all(datetime.fromisoformat(event["time"]) for event in events)
    fatal = cxrsr("upscale", "--log-json", tmp_path / "none", tmp_path / "out")
    assert fatal.returncode == ExitCode.NOTHING_TO_DO
    assert json.loads(fatal.stderr)["event"] == "fatal"


def test_a_file_still_being_written_is_not_taken(
    upscaler: Upscaler, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file can read as a whole one; that it grows gives it away."""

    def growing(path: Path) -> object:
        source = read_source(path)
        if path == inputs / "2.dcm":
            spoil(path)
        return source

    monkeypatch.setattr("cxrsr_cli.upscale.read_source", growing)
    results = run(upscaler, inputs)
    assert statuses(results).count(Status.DONE) == COUNT - 1
    assert "still being written" in str(results[2].error)


def test_an_unusable_ledger_does_not_cost_the_output_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be used"):
        Ledger(Path("/dev/null/ledger")).announce(tmp_path / "x", None, "")  # type: ignore[arg-type]
