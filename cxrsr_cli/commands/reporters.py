"""How a command reports: sentences for people, or JSON for machines."""

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Never, Protocol

import typer

from cxrsr_cli.commands.console import (
    dropped_lines,
    print_line,
    print_summary,
    redirect_to_devnull,
    replace_unprintable,
)
from cxrsr_cli.commands.options import Verbosity
from cxrsr_cli.errors import CxrsrError

if TYPE_CHECKING:
    from tqdm import tqdm

_LOG = logging.getLogger("cxrsr_cli")
_BAR_FORMAT = "{percentage:3.0f}%|{bar}| {n:.1f}/{total} {unit}s [{elapsed}<{remaining}]"


@dataclass(frozen=True, slots=True)
class Message:
    """Something that a command reports.

    Attributes
    ----------
    event : str
        What it is about, such as ``file``. A ``summary`` for people is written to
        stdout, unless the output goes there; everything else is written to stderr.
    level : str
        ``info``, ``warning`` or ``error``.
    facts : dict
        The content for machines. With ``--quiet`` it is written only if one of the
        `lines` would be.
    lines : sequence of (Verbosity, str)
        The lines for people, each with the lowest verbosity that shows it.
    """

    event: str
    level: str
    facts: dict[str, Any]
    lines: Sequence[tuple[Verbosity, str]] = field(default=())


class Reporter(Protocol):
    """Tells the user what happens."""

    def report(self, message: Message) -> None:
        """Write a message. May be called from several threads."""

    def progress(self, total: int, unit: str, /) -> AbstractContextManager[Callable[[float], None]]:
        """Show the progress of a run of `total` units; yields the function that advances it."""


class TextReporter:
    """Writes sentences and a progress bar; lines on stderr may begin with date and time."""

    def __init__(
        self,
        verbosity: Verbosity,
        *,
        show_bar: bool = False,
        show_time: bool = False,
        stdout_is_data: bool = False,
    ) -> None:
        self._verbosity = verbosity
        self._stdout_is_data = stdout_is_data
        self._show_bar = show_bar
        self._show_time = show_time
        self._bar: tqdm[Never] | None = None
        self._lock = threading.Lock()

    def report(self, message: Message) -> None:
        """Write the lines that the verbosity admits."""
        for verbosity, line in [*_dropped_lines(), *message.lines]:
            if verbosity > self._verbosity:
                continue
            is_summary = message.event == "summary" and (verbosity, line) in message.lines
            if is_summary and not self._stdout_is_data:
                print_summary(line)
                continue
            with self._lock:
                self._write(f"{_now()} {line}" if self._show_time else line)

    def _write(self, line: str) -> None:
        if self._bar is None:
            print_line(line, err=True)
            return
        try:
            self._bar.write(replace_unprintable(line), file=sys.stderr)
        except OSError:
            redirect_to_devnull(sys.stderr)

    @contextmanager
    def progress(self, total: int, unit: str, /) -> Iterator[Callable[[float], None]]:
        """Draw a progress bar."""
        if not self._show_bar:
            yield lambda _: None
            return
        from tqdm import tqdm

        with tqdm(total=total, unit=unit, bar_format=_BAR_FORMAT) as bar:

            def advance(share: float) -> None:
                bar.update(share)

            self._bar = bar
            try:
                yield advance
            finally:
                self._bar = None


class JsonReporter:
    """Writes one JSON object per line to stderr."""

    def __init__(self, verbosity: Verbosity) -> None:
        self._verbosity = verbosity
        self._lock = threading.Lock()

    def report(self, message: Message) -> None:
        """Write the facts."""
        for _, line in _dropped_lines():
            self._write(Message("dropped", "warning", {"message": line}))
        is_essential = any(verbosity is Verbosity.QUIET for verbosity, _ in message.lines)
        if is_essential or self._verbosity > Verbosity.QUIET:
            self._write(message)

    def _write(self, message: Message) -> None:
        with self._lock:
            print_line(_json_line(message), err=True)

    def progress(
        self, _total: int, _unit: str, /
    ) -> AbstractContextManager[Callable[[float], None]]:
        """Show nothing."""
        return nullcontext(lambda _: None)


class _LogHandler(logging.Handler):
    """Reports what the library logs."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.INFO)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record without its traceback, which may hold patient data."""
        level, text = record.levelname.lower(), record.getMessage()
        facts = {"logger": record.name, "message": text}
        self._reporter.report(
            Message("log", level, facts, [(Verbosity.VERBOSE, f"{level}: {text}")])
        )


def _dropped_lines() -> Sequence[tuple[Verbosity, str]]:
    """Return the line that tells how many lines nobody read."""
    count = dropped_lines()
    return [(Verbosity.QUIET, f"{count} lines were dropped: nobody read them")] if count else []


def make_reporter(
    verbosity: Verbosity,
    *,
    as_json: bool,
    show_bar: bool = False,
    show_time: bool = False,
    stdout_is_data: bool = False,
) -> Reporter:
    """Return the reporter that the user asked for; a verbose one also shows the log."""
    reporter = (
        JsonReporter(verbosity)
        if as_json
        else TextReporter(
            verbosity, show_bar=show_bar, show_time=show_time, stdout_is_data=stdout_is_data
        )
    )
    if verbosity is Verbosity.VERBOSE:
        _LOG.addHandler(_LogHandler(reporter))
        _LOG.setLevel(min(logging.INFO, _LOG.getEffectiveLevel()))
    return reporter


def error_message(error: CxrsrError) -> Message:
    """Return the message of an error that ends the run."""
    _LOG.debug("the run ends with an error", exc_info=error)
    facts = {"message": str(error), "exit_code": int(error.exit_code)}
    return Message("fatal", "error", facts, [(Verbosity.QUIET, f"cxrsr: {error}")])


@contextmanager
def errors_as_json(is_enabled: bool) -> Iterator[None]:
    """Report an error that ends the run as JSON and exit with its code."""
    try:
        yield
    except CxrsrError as error:
        if not is_enabled:
            raise
        JsonReporter(Verbosity.QUIET).report(error_message(error))
        raise typer.Exit(error.exit_code) from None


def _json_line(message: Message) -> str:
    head = {"time": _now(), "level": message.level, "event": message.event}
    return json.dumps(head | message.facts)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
