"""A run of ``cxrsr send``: find the files, send them with retries, report on them."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cxrsr_cli.batch.discover import InputFile, find_inputs
from cxrsr_cli.batch.report import display_path
from cxrsr_cli.common.files import real_path
from cxrsr_cli.connections.destination import Destination, SendOutcome, SendResult, never_stop
from cxrsr_cli.errors import CxrsrError, ExitCode, NoInputError
from cxrsr_cli.send.file_header import file_failure
from cxrsr_cli.versions import NOTICE, versions

_LOG = logging.getLogger(__name__)

SCHEMA = "cxrsr-send-report/1"
"""Of the report; keys may be added, and another number means that one was changed or removed."""

NOT_PROCESSED = "not processed"
"""Stands for the outcome of a file that an interrupted run did not reach."""

_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 1.0, 60.0
"""Before files are sent again; each pause is twice as long as the one before."""
_POLL_SECONDS = 0.1


def find_files(sources: Sequence[Path], exclude: Sequence[Path] = ()) -> list[InputFile]:
    """Find the files to send, each once.

    Raises
    ------
    NoInputError
        If there is none.
    """
    try:
        if len(sources) == 1 and not sources[0].exists():
            raise NoInputError(f"no file or folder {sources[0]}")
        found = {
            real_path(item.path): item
            for source in sources
            for item in find_inputs(source, exclude)
        }
    except OSError as error:
        raise NoInputError(f"cannot read {error.filename}: {error.strerror}") from error
    if not found:
        raise NoInputError(f"no file to send in {', '.join(map(str, sources))}")
    return list(found.values())


def send_with_retries(
    destination: Destination,
    files: Sequence[InputFile],
    *,
    retries: int = 0,
    stop: Callable[[], bool] = never_stop,
) -> Generator[SendResult, None, None]:
    """Send files, and yield one result for each when it is final.

    Parameters
    ----------
    destination : Destination
        Where the files are sent.
    files : sequence of InputFile
        Files that were found.
    retries : int
        How often a file is sent again that may succeed later.
    stop : callable
        Called between files; True ends the run.

    Yields
    ------
    SendResult
        For each file that was tried. A file that waits for its next attempt when the run
        ends gets the result of its last one.

    Raises
    ------
    CxrsrError
        As `Destination.send`.
    """
    pending = []
    for file in files:
        if file.error is None:
            pending.append(file.path)
        else:
            yield file_failure(file.path, file.error)
    waiting: dict[Path, SendResult] = {}
    try:
        for attempt in range(retries + 1):
            if attempt:
                _LOG.info("retry %d of %d: sending %d files again", attempt, retries, len(pending))
                if not _pause(attempt, stop):
                    break
            for result in destination.send(pending, stop):
                waiting.pop(result.path, None)
                if attempt < retries and is_retryable(result):
                    waiting[result.path] = result
                else:
                    yield result
            if stop() or not waiting:
                break
            pending = list(waiting)
    except (CxrsrError, KeyboardInterrupt):
        yield from waiting.values()
        raise
    yield from waiting.values()


def is_retryable(result: SendResult) -> bool:
    """Whether the file may be stored if it is sent again."""
    return result.outcome is SendOutcome.FAILED and result.decided_by_peer


def _pause(attempt: int, stop: Callable[[], bool]) -> bool:
    """Wait before an attempt; return False if asked to stop."""
    end = time.monotonic() + min(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), _MAX_PAUSE_SECONDS)
    while time.monotonic() < end:
        if stop():
            return False
        time.sleep(_POLL_SECONDS)
    return True


def exit_code(results: Sequence[SendResult], planned: int) -> ExitCode:
    """Return the exit code of a run that found `planned` files."""
    if len(results) < planned:
        return ExitCode.INTERRUPTED
    failures = [result for result in results if not result.is_stored]
    if not failures:
        return ExitCode.OK
    if len(failures) < len(results):
        return ExitCode.SOME_FAILED
    is_network = all(result.decided_by_peer for result in failures)
    return ExitCode.NETWORK if is_network else ExitCode.ALL_FAILED


@dataclass(frozen=True, slots=True)
class SendRun:
    """A run that has ended.

    Attributes
    ----------
    destination : str
        As the user wrote it; it contains no secret.
    files : sequence of Path
        All files that were found.
    results : sequence of SendResult
        Of the files that were tried.
    started, finished : datetime
        With their time zone.
    exit_code : ExitCode
        Of the process.
    """

    destination: str
    files: Sequence[Path]
    results: Sequence[SendResult]
    started: datetime
    finished: datetime
    exit_code: ExitCode


def build_report(run: SendRun) -> dict[str, Any]:
    """Return the report, as docs/send.md describes it.

    It contains the paths of the files, and nothing from inside them.
    """
    tried = {result.path for result in run.results}
    return {
        "schema": SCHEMA,
        "notice": NOTICE,
        "versions": versions(),
        "destination": run.destination,
        "started": run.started.isoformat(timespec="seconds"),
        "finished": run.finished.isoformat(timespec="seconds"),
        "exit_code": int(run.exit_code),
        "counts": count_by_outcome(run),
        "files": [
            *map(file_record, run.results),
            *(
                {"file": display_path(path), "outcome": NOT_PROCESSED}
                for path in run.files
                if path not in tried
            ),
        ],
    }


def file_record(result: SendResult) -> dict[str, Any]:
    """Return one file's part of the report."""
    return {
        "file": display_path(result.path),
        "outcome": result.outcome.value,
        "message": result.message,
        "status": result.status,
        "decided_by_peer": result.decided_by_peer,
        "committed": result.committed,
    }


def count_by_outcome(run: SendRun) -> dict[str, int]:
    """Return the number of files by outcome."""
    outcomes = Counter(result.outcome for result in run.results)
    left = len(run.files) - len(run.results)
    return {**{outcome.value: outcomes[outcome] for outcome in SendOutcome}, NOT_PROCESSED: left}
