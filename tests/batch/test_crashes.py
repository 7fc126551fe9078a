"""A file that was being worked on when the process died is tried last, alone, and not for ever."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cxrsr_cli.batch.ledger import LEDGER_NAME, Ledger
from cxrsr_cli.batch.records import MAX_CRASHES
from cxrsr_cli.batch.result import FileStatus
from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.errors import WorkerCrashedError
from cxrsr_cli.upscaler import Upscaler
from tests.helpers.batches import jobs, run, statuses


@pytest.fixture
def ledger(inputs: Path) -> Iterator[Ledger]:
    ledger = Ledger(inputs.parent / "out" / LEDGER_NAME)
    yield ledger
    ledger.close()


def crash(ledger: Ledger, inputs: Path, index: int, times: int = 1) -> None:
    for _ in range(times):
        ledger.mark_started(jobs(inputs)[index])


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.batch.test_crashes import *
from cxrsr_cli.networks.model_files import find_model
inputs = Path(sys.argv[1])
batch = BatchRunner(
    LocalExecutor(Upscaler.load(find_model(sys.argv[2], 2)), io_workers=0),
    Ledger(inputs.parent / "out" / LEDGER_NAME),
)
for result in batch.run(jobs(inputs), advance=lambda _: os.kill(os.getpid(), signal.SIGKILL)):
    pass
"""


@pytest.mark.process
def test_a_kill_is_counted_for_the_file_in_work(
    inputs: Path, ledger: Ledger, tiny_model: Path, upscaler: Upscaler
) -> None:
    command = [sys.executable, "-c", _KILLED, str(inputs), str(tiny_model)]
    assert subprocess.run(command, check=False).returncode == -9
    assert ledger.crash_counts(jobs(inputs)) == {jobs(inputs)[0].target: 1}
    results = run(upscaler, inputs)
    assert [result.job for result in results] == [*jobs(inputs)[1:], jobs(inputs)[0]]
    assert ledger.crash_counts(jobs(inputs)) == {}


def test_suspected_files_are_done_last(upscaler: Upscaler, inputs: Path, ledger: Ledger) -> None:
    crash(ledger, inputs, 0, MAX_CRASHES - 1)
    crash(ledger, inputs, 3)
    results = run(upscaler, inputs, io_workers=2)
    assert statuses(results) == [FileStatus.DONE] * 6
    assert [result.job for result in results] == [jobs(inputs)[n] for n in (1, 2, 4, 5, 0, 3)]
    assert ledger.crash_counts(jobs(inputs)) == {}


def test_a_file_that_crashed_too_often_fails_until_it_changes(
    upscaler: Upscaler, inputs: Path, ledger: Ledger
) -> None:
    crash(ledger, inputs, 2, MAX_CRASHES)
    for _ in range(2):
        *others, last = run(upscaler, inputs)
        assert not any(result.error for result in others)
        assert isinstance(last.error, WorkerCrashedError)
        assert f"ended {MAX_CRASHES} times" in str(last.error)
    os.utime(jobs(inputs)[2].source, (0, 0))
    assert FileStatus.FAILED not in statuses(run(upscaler, inputs))


def test_what_a_stopped_run_leaves_is_not_suspected(
    upscaler: Upscaler, inputs: Path, ledger: Ledger
) -> None:
    """Also with files that were read ahead; what earlier runs counted stays."""
    crash(ledger, inputs, 5)
    running = BatchRunner(LocalExecutor(upscaler, 3), ledger).run(jobs(inputs))
    next(running)
    with suppress(KeyboardInterrupt):
        running.throw(KeyboardInterrupt())
        list(running)
    assert ledger.crash_counts(jobs(inputs)) == {jobs(inputs)[5].target: 1}
