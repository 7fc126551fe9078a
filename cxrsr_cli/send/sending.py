"""Send files that were found, again where that may help, and judge the whole."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cxrsr_cli.batch.walk import Found, find
from cxrsr_cli.errors import CxrsrError, ExitCode, NothingToDoError, NotReadableError
from cxrsr_cli.send.destination import Destination, Outcome, Sent, never

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds before files are sent again; each pause is twice as long."""
_GLANCE = 0.1


def find_all(sources: Sequence[Path], skipped: Sequence[Path] = ()) -> list[Found]:
    """Find the files to send; one that was found twice is sent once.

    Raises
    ------
    NothingToDoError
        If there is none.
    """
    try:
        if len(sources) == 1 and not sources[0].exists():
            raise NothingToDoError(f"no file or folder {sources[0]}")
        found = {item.path.resolve(): item for source in sources for item in find(source, skipped)}
    except OSError as error:
        raise NothingToDoError(f"cannot read {error.filename}: {error.strerror}") from error
    if not found:
        raise NothingToDoError(f"no file to send in {', '.join(map(str, sources))}")
    return list(found.values())


def send_all(
    destination: Destination,
    found: Sequence[Found],
    *,
    retries: int = 0,
    stop: Callable[[], bool] = never,
) -> Iterator[Sent]:
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
        if item.refused is None:
            waiting.append(item.path)
            continue
        later = isinstance(item.refused, NotReadableError)
        outcome = Outcome.FAILED if later else Outcome.REFUSED
        yield Sent(item.path, outcome, str(item.refused), by_peer=False)
    again: dict[Path, Sent] = {}
    try:
        for attempt in range(retries + 1):
            if attempt and not _pause(attempt, stop):
                break
            for sent in destination.send(waiting, stop):
                again.pop(sent.path, None)
                if attempt < retries and may_arrive_later(sent):
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


def may_arrive_later(sent: Sent) -> bool:
    """Tell whether the same file may arrive if it is sent again, as nothing is wrong with it."""
    return sent.outcome is Outcome.FAILED and sent.by_peer


def _pause(attempt: int, stop: Callable[[], bool]) -> bool:
    """Wait before an attempt; false if asked to stop."""
    end = time.monotonic() + min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)
    while time.monotonic() < end:
        if stop():
            return False
        time.sleep(_GLANCE)
    return True


def exit_code(results: Sequence[Sent], planned: int) -> ExitCode:
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
    failures = [sent for sent in results if not sent.arrived]
    if not failures:
        return ExitCode.OK
    if len(failures) < len(results):
        return ExitCode.SOME_FAILED
    return ExitCode.NETWORK if all(sent.by_peer for sent in failures) else ExitCode.ALL_FAILED
