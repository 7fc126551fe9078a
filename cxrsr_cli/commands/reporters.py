"""What a batch says while it runs: sentences for people, JSON for machines."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from cxrsr_cli.batch.plan import BatchPlan
from cxrsr_cli.batch.report import BatchRun, count_by_status, display_path, file_record
from cxrsr_cli.batch.result import FileStatus, Result
from cxrsr_cli.commands.options import Verbosity
from cxrsr_cli.errors import CxrsrError, ExitCode

if TYPE_CHECKING:
    from cxrsr_cli.batch.runner import BatchRunner
import threading
from typing import TYPE_CHECKING

from cxrsr_cli.commands.console import print_line
from cxrsr_cli.errors import InternalError

if TYPE_CHECKING:
    from cxrsr_cli.serve.events import Event


class Reporter(Protocol):
    """Turns what happens into lines."""

    summary_on_stderr: bool

    def start(self, batch: "BatchRunner", plan: BatchPlan) -> Iterator[str]:
        """Say what is about to run."""

    def result(self, result: Result) -> Iterator[str]:
        """Say what became of a file."""

    def error(self, error: CxrsrError) -> Iterator[str]:
        """Say what went wrong beside the files."""

    def summary(self, run: BatchRun) -> Iterator[str]:
        """Say what became of all."""


class TextReporter:
    """For people.

    Parameters
    ----------
    verbosity : Verbosity
        How much is said.
    """

    def __init__(self, verbosity: Verbosity) -> None:
        self._verbosity = verbosity

    summary_on_stderr = False

    def start(self, batch: "BatchRunner", plan: BatchPlan) -> Iterator[str]:
        """Name model and device."""
        if self._verbosity is Verbosity.VERBOSE:
            parameters = batch.executor.parameters
            options = parameters.options
            yield (
                f"model {options.model} (SHA-256 {parameters.model_sha256[:12]}), "
                f"device {options.device}, {options.precision}, {len(plan.jobs)} files"
            )

    def result(self, result: Result) -> Iterator[str]:
        """Say failures and trouble always, warnings normally, successes if asked to."""
        name = display_path(result.job.source)
        if result.error:
            yield f"failed: {name}: {result.error}"
        for trouble in result.record_errors:
            yield f"trouble: {name}: {trouble}"
        if self._verbosity is Verbosity.QUIET:
            return
        for warning in result.warnings:
            yield f"warning: {name}: {warning}"
        if result.status is FileStatus.DRY_RUN:
            yield f"would upscale: {name}: {_sizes(result)} to {display_path(result.job.target)}"
        elif self._verbosity is Verbosity.VERBOSE and result.status is FileStatus.UP_TO_DATE:
            yield f"already done: {name}"
        elif self._verbosity is Verbosity.VERBOSE and result.deviation and result.plan:
            yield (
                f"done: {name}: {_sizes(result)} in {result.timing.total:.1f} s, downsampled "
                f"output within {result.deviation.rms:.2f} stored units RMS of the input; "
                f"strips of {result.plan.rows} rows, {100 * result.plan.overlap:.0f} % of the "
                f"work beyond the border, {result.plan.peak_bytes / 2**20:.0f} MiB foretold"
            )

    def error(self, error: CxrsrError) -> Iterator[str]:
        """Say it as the command says what ends it."""
        yield f"cxrsr: {error}"

    def summary(self, run: BatchRun) -> Iterator[str]:
        """Count."""
        if self._verbosity is Verbosity.QUIET:
            return
        counts = count_by_status(run)
        parts = [f"{counts[FileStatus.DONE]} upscaled"]
        if counts[FileStatus.DRY_RUN]:
            parts = [f"dry run: {counts[FileStatus.DRY_RUN]} would be upscaled"]
        parts.append(f"{counts[FileStatus.FAILED]} failed")
        if counts[FileStatus.UP_TO_DATE]:
            parts.append(f"{counts[FileStatus.UP_TO_DATE]} done already")
        if counts[FileStatus.UP_TO_DATE] == len(run.jobs):
            parts.append("nothing left to do")
        if run.exit_code is ExitCode.INTERRUPTED:
            parts.append(f"interrupted with {counts[FileStatus.NOT_PROCESSED]} not come to")
        elif counts[FileStatus.NOT_PROCESSED]:
            parts.append(f"ended early with {counts[FileStatus.NOT_PROCESSED]} not come to")
        parts.append(f"{(run.finished - run.started).total_seconds():.1f} s")
        yield ", ".join(parts)


class JsonReporter:
    """For machines: an object a line.

    Parameters
    ----------
    verbosity : Verbosity
        How much is said.
    """

    def __init__(self, verbosity: Verbosity) -> None:
        self._verbosity = verbosity

    summary_on_stderr = True

    def start(self, batch: "BatchRunner", plan: BatchPlan) -> Iterator[str]:
        """Name model and device."""
        if self._verbosity is not Verbosity.QUIET:
            parameters = batch.executor.parameters
            options = parameters.options
            facts = {
                "model": options.model,
                "sha256": parameters.model_sha256,
                "device": options.device,
                "precision": str(options.precision),
                "files": len(plan.jobs),
            }
            yield json_line("info", "start", facts)

    def result(self, result: Result) -> Iterator[str]:
        """Say all that the report will say of a file."""
        level = "error" if result.error else "warning" if result.warnings else "info"
        if self._verbosity is not Verbosity.QUIET or result.error or result.record_errors:
            yield json_line(level, "file", file_record(result))

    def error(self, error: CxrsrError) -> Iterator[str]:
        """Say it as the command says what ends it."""
        yield fatal_line(error)

    def summary(self, run: BatchRun) -> Iterator[str]:
        """Count."""
        if self._verbosity is not Verbosity.QUIET:
            facts = {"counts": count_by_status(run), "exit_code": int(run.exit_code)}
            yield json_line("info", "summary", facts)


def make_reporter(verbosity: Verbosity, *, as_json: bool) -> Reporter:
    """Return the narrator that the user asked for."""
    return JsonReporter(verbosity) if as_json else TextReporter(verbosity)


def fatal_line(error: CxrsrError) -> str:
    """Return the JSON line of an error that ends the run."""
    return json_line("error", "fatal", {"message": str(error), "exit_code": int(error.exit_code)})


def json_line(level: str, event: str, facts: dict[str, Any]) -> str:
    """Return one event as a line of JSON."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "level": level, "event": event, **facts})


def _sizes(result: Result) -> str:
    if not (result.input_shape and result.output_shape):
        return ""
    (rows, columns), (tall, wide) = result.input_shape, result.output_shape
    return f"{columns}x{rows} -> {wide}x{tall}"


_LEVELS = {"refused": "warning", "postponed": "warning", "dead": "error", "trouble": "error"}


class EventReporter:
    """Writes a line on stderr for each event, from whichever thread.

    Parameters
    ----------
    as_json : bool
        An object a line.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._lock = threading.Lock()

    def report(self, event: "Event") -> None:
        """Write an event's line."""
        line = _json_line(event) if self._as_json else _sentence(event)
        with self._lock:
            print_line(line, err=True)


def unexpected_event(error: BaseException | None) -> "Event":
    """Return the event of a failure that nobody caught, without its text."""
    from cxrsr_cli.serve.events import Event, EventKind

    reason = str(InternalError.of(error)) if isinstance(error, Exception) else "a thread ended"
    return Event(kind=EventKind.ERROR, reason=reason)


def _facts(event: "Event") -> dict[str, str | float]:
    facts = {
        "instance": event.key,
        "peer": event.peer,
        "destination": event.destination,
        "rule": event.rule,
        "reason": event.reason,
    }
    given: dict[str, str | float] = {name: value for name, value in facts.items() if value}
    if event.seconds is not None:
        given["seconds"] = round(event.seconds, 3)
    return given


def _json_line(event: "Event") -> str:
    return json.dumps(
        {
            "time": _now(),
            "level": _LEVELS.get(event.kind, "info"),
            "event": event.kind.value,
            **_facts(event),
        }
    )


def _sentence(event: "Event") -> str:
    parts = [f"{_now()} {event.kind.value}"]
    if event.key:
        parts.append(event.key)
    if event.peer:
        parts.append(f"from {event.peer}")
    if event.destination:
        parts.append(f"to {event.destination}")
    if event.rule:
        parts.append(f"by '{event.rule}'")
    if event.seconds is not None:
        parts.append(f"in {event.seconds:.1f} s")
    return " ".join(parts) + (f": {event.reason}" if event.reason else "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
