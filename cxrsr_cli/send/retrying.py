"""Send files that were found, again where that may help, and judge the whole."""

import logging
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from cxrsr_cli.batch.discover import InputFile, find_inputs
from cxrsr_cli.connections.destination import Destination, SendOutcome, SendResult, _never_stop
from cxrsr_cli.errors import CxrsrError, ExitCode, NoInputError, UnreadableFileError

_LOG = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds before files are sent again; each pause is twice as long."""
_POLL_SECONDS = 0.1


def find_files(sources: Sequence[Path], skipped: Sequence[Path] = ()) -> list[InputFile]:
    """Find the files to send; one that was found twice is sent once.

    Raises
    ------
    NothingToDoError
        If there is none.
    """
    try:
        if len(sources) == 1 and not sources[0].exists():
            raise NoInputError(f"no file or folder {sources[0]}")
        found = {
            item.path.resolve(): item for source in sources for item in find_inputs(source, skipped)
        }
    except OSError as error:
        raise NoInputError(f"cannot read {error.filename}: {error.strerror}") from error
    if not found:
        raise NoInputError(f"no file to send in {', '.join(map(str, sources))}")
    return list(found.values())


def send_with_retries(
    destination: Destination,
    found: Sequence[InputFile],
    *,
    retries: int = 0,
    stop: Callable[[], bool] = _never_stop,
) -> Generator[SendResult, None, None]:
    """Send files, and tell of each once, when it is settled.

    Parameters
    ----------
    destination : Destination
        Where to.
    found : sequence of Found
        What was found.
    retries : int
        How often files are sent again that may succeed later.
    stop : callable
        Asked between files whether to end.

    Yields
    ------
    Sent
        Of each file that was come to; of one that waits to be sent again when the
        run ends, what became of it last.

    Raises
    ------
    CxrsrError
        As `Destination.send`.
    """
    waiting = []
    for item in found:
        if item.error is None:
            waiting.append(item.path)
            continue
        later = isinstance(item.error, UnreadableFileError)
        outcome = SendOutcome.FAILED if later else SendOutcome.REFUSED
        yield SendResult(item.path, outcome, str(item.error), decided_by_peer=False)
    again: dict[Path, SendResult] = {}
    try:
        for attempt in range(retries + 1):
            if attempt:
                _LOG.info("retry %d of %d: sending %d files again", attempt, retries, len(waiting))
                if not _pause(attempt, stop):
                    break
            for sent in destination.send(waiting, stop):
                again.pop(sent.path, None)
                if attempt < retries and is_retryable(sent):
                    again[sent.path] = sent
                else:
                    yield sent
            if stop() or not again:
                break
            waiting = list(again)
    except (CxrsrError, KeyboardInterrupt):
        yield from again.values()
        raise
    yield from again.values()


def is_retryable(sent: SendResult) -> bool:
    """Tell whether the same file may arrive if it is sent again, as nothing is wrong with it."""
    return sent.outcome is SendOutcome.FAILED and sent.decided_by_peer


def _pause(attempt: int, stop: Callable[[], bool]) -> bool:
    """Wait before an attempt; false if asked to stop."""
    end = time.monotonic() + min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)
    while time.monotonic() < end:
        if stop():
            return False
        time.sleep(_POLL_SECONDS)
    return True


def exit_code(results: Sequence[SendResult], planned: int) -> ExitCode:
    """Return the exit code of a run.

    Parameters
    ----------
    results : sequence of Sent
        What became of the files that were come to.
    planned : int
        How many files there were.
    """
    if len(results) < planned:
        return ExitCode.INTERRUPTED
    failures = [sent for sent in results if not sent.is_stored]
    if not failures:
        return ExitCode.OK
    if len(failures) < len(results):
        return ExitCode.SOME_FAILED
    return (
        ExitCode.NETWORK if all(sent.decided_by_peer for sent in failures) else ExitCode.ALL_FAILED
    )
