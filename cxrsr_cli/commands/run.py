"""Run many files in front of a user: results, interruption, report, summary."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cxrsr_cli.batch.report import (
    BatchRun,
    count_by_status,
    display_path,
    file_record,
    write_report,
)
from cxrsr_cli.batch.result import FileStatus, Result, exit_code, to_reportable_error
from cxrsr_cli.commands.console import graceful_stop
from cxrsr_cli.commands.options import Verbosity
from cxrsr_cli.commands.reporters import Message, Reporter, error_message
from cxrsr_cli.common.files import free_bytes
from cxrsr_cli.common.process import now, peak_rss_bytes
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.errors import CxrsrError, ExitCode, OutputError
from cxrsr_cli.options import Job

if TYPE_CHECKING:
    from cxrsr_cli.batch.runner import BatchRunner
    from cxrsr_cli.comparison.preview import Previews
    from cxrsr_cli.send.run import SendRun

_R = TypeVar("_R", BatchRun, "SendRun")
_T = TypeVar("_T")


Part = tuple["BatchRunner", Sequence[Job]]
"""The jobs of one scale, and what runs them."""


def run_batch(
    parts: Iterator[Part],
    jobs: Sequence[Job],
    reporter: Reporter,
    *,
    strict: bool = False,
    previews: "Previews | None" = None,
) -> BatchRun:
    """Run a batch and report each file; a preview that cannot be written sets the exit code.

    Parameters
    ----------
    parts : iterator of Part
        At least one; the next one is made when the one before has ended.
    jobs : sequence of Job
        Of all parts.
    reporter : Reporter
        For each file.
    strict : bool
        Whether a skipped file is a failure.
    previews : Previews, optional
        Writes them.
    """
    started, unwritten = now(), list[CxrsrError]()
    first, parameters = next(parts), list[DerivationParameters]()

    def on_result(result: Result) -> None:
        reporter.report(_file_message(result, strict=strict))
        if previews and result.status in (FileStatus.DONE, FileStatus.UP_TO_DATE):
            is_new = result.status is FileStatus.DONE
            attempt(lambda: previews.add(result.job.source, result.job.target, is_new=is_new))

    def attempt(write: Callable[[], object]) -> None:
        try:
            write()
        except Exception as error:  # a picture must not stop the run
            unwritten.append(to_reportable_error(error))
            reporter.report(error_message(unwritten[-1]))

    def run(
        advance: Callable[[float], None], stop: Callable[[], bool]
    ) -> Generator[Result, None, None]:
        for batch, own in chain([first], parts):
            parameters.append(batch.executor.parameters)
            reporter.report(_start_message(batch, len(own)))
            yield from batch.run(own, advance=advance, stop=stop)
            if stop():
                return

    with graceful_stop() as stop, reporter.progress(len(jobs), "file") as advance:
        results, ended_by = collect_results(run(advance, stop), on_result, reporter)
        if previews:
            attempt(previews.finish)
    code = ended_by or exit_code(results, len(jobs), strict=strict)
    if unwritten and code is ExitCode.OK:
        code = ExitCode.CANNOT_WRITE
    return BatchRun(
        parameters=parameters[0],
        further_parameters=parameters[1:],
        jobs=jobs,
        results=results,
        started=started,
        finished=now(),
        exit_code=code,
        peak_rss_bytes=peak_rss_bytes(),
        dry_run=first[0].dry_run,
        strict=strict,
    )


def collect_results(
    running: Generator[_T, None, None], on_result: Callable[[_T], None], reporter: Reporter
) -> tuple[list[_T], ExitCode | None]:
    """Return the results of a run, and the exit code of what ended it early, if anything did."""
    results, ended_by = list[_T](), None

    def collect(items: Iterator[_T]) -> None:
        for result in items:
            results.append(result)
            on_result(result)

    try:
        collect(running)
    except KeyboardInterrupt:
        ended_by = ExitCode.INTERRUPTED
        collect(_drain_after_interrupt(running))
    except CxrsrError as error:
        ended_by = error.exit_code
        reporter.report(error_message(error))
    return results, ended_by


def _drain_after_interrupt(running: Generator[_T, None, None]) -> Iterator[_T]:
    """Interrupt a run and yield the results that it still finishes."""
    try:
        yield running.throw(KeyboardInterrupt())
        yield from running
    except (KeyboardInterrupt, StopIteration):
        return


def write_report_and_summary(
    run: _R,
    reporter: Reporter,
    report: Path | None,
    build: Callable[[_R], dict[str, Any]],
    summary: Callable[[_R], Message],
) -> ExitCode:
    """Write report and summary; return the exit code, which a failed report sets."""
    if report:
        try:
            write_report(build(run), report)
        except OutputError as error:
            reporter.report(error_message(error))
            run = replace(run, exit_code=error.exit_code)
    reporter.report(summary(run))
    return run.exit_code


def summary_message(
    run: "BatchRun | SendRun", counts: Mapping[Any, int], parts: list[str], head: str = ""
) -> Message:
    """Return the summary of a run: the number of files by outcome, and `parts` for people."""
    if left := counts[FileStatus.NOT_PROCESSED]:
        head, parts = "Ended early: ", [*parts, f"{left} not processed"]
    if run.exit_code is ExitCode.INTERRUPTED:
        head = "Interrupted: "
    seconds = (run.finished - run.started).total_seconds()
    line = f"{head}{', '.join(parts)}, {seconds:.1f} s"
    facts = {"counts": counts, "exit_code": int(run.exit_code)}
    return Message("summary", "info", facts, [(Verbosity.NORMAL, line)])


def batch_summary(run: BatchRun) -> Message:
    """Return the summary of a batch."""
    counts = count_by_status(run)
    failed, up_to_date = counts[FileStatus.FAILED], counts[FileStatus.UP_TO_DATE]
    skipped = counts[FileStatus.SKIPPED]
    parts = [f"{counts[FileStatus.DONE]} upscaled", f"{failed} failed"]
    if run.dry_run:
        parts[0] = f"{counts[FileStatus.DRY_RUN]} would be upscaled"
    if up_to_date:
        parts.append(f"{up_to_date} up to date")
    if skipped:
        parts.append(f"{skipped} skipped")
    parts += _forecast_parts(run)
    if up_to_date + skipped == len(run.jobs):
        parts.append("nothing to do")
    return summary_message(run, counts, parts, "Dry run: " * run.dry_run)


def _forecast_parts(run: BatchRun) -> list[str]:
    """Describe the time and the space that a run will take."""
    forecasts = [result.forecast for result in run.results if result.forecast]
    if not forecasts:
        return []
    seconds = sum(forecast.seconds for forecast in forecasts)
    needed = sum(forecast.output_bytes for forecast in forecasts)
    parts = [f"about {seconds:.0f} s of work", f"{needed / 2**20:.1f} MiB to write"]
    free = free_bytes(run.jobs[0].target)
    if free is not None:
        parts.append(f"{'only ' * (free < needed)}{free / 2**20:.0f} MiB free")
    return parts


def _start_message(batch: "BatchRunner", files: int) -> Message:
    parameters = batch.executor.parameters
    options, sha256 = parameters.options, parameters.model_sha256
    facts = {
        "model": options.model,
        "sha256": sha256,
        "device": options.device,
        "precision": str(options.precision),
        "files": files,
    }
    line = (
        f"model {options.model} (SHA-256 {sha256[:12]}), "
        f"device {options.device}, {options.precision}, {files} files"
    )
    return Message("start", "info", facts, [(Verbosity.VERBOSE, line)])


def _file_message(result: Result, *, strict: bool) -> Message:
    is_failure = result.error and (strict or result.status is not FileStatus.SKIPPED)
    level = "error" if is_failure else "warning" if result.warnings else "info"
    return Message("file", level, file_record(result), list(_file_lines(result, strict=strict)))


def _file_lines(result: Result, *, strict: bool) -> Iterator[tuple[Verbosity, str]]:
    name, deviation, plan = display_path(result.job.source), result.deviation, result.plan
    if result.status is FileStatus.SKIPPED:
        yield Verbosity.QUIET if strict else Verbosity.VERBOSE, f"skipped: {name}: {result.error}"
    elif result.error:
        yield Verbosity.QUIET, f"failed: {name}: {result.error}"
    for error in result.record_errors:
        yield Verbosity.QUIET, f"error: {name}: {error}"
    for warning in result.warnings:
        yield Verbosity.NORMAL, f"warning: {name}: {warning}"
    if result.status is FileStatus.DRY_RUN:
        target = display_path(result.job.target)
        line = f"would upscale: {name}: {_sizes(result)} to {target}"
        if (forecast := result.forecast) and plan:
            line += (
                f"; about {forecast.seconds:.0f} s, {plan.peak_bytes / 2**20:.0f} MiB of memory, "
                f"{forecast.output_bytes / 2**20:.1f} MiB to write"
            )
        yield Verbosity.NORMAL, line
    elif result.status is FileStatus.UP_TO_DATE:
        yield Verbosity.VERBOSE, f"up to date: {name}"
    elif deviation and plan:
        line = (
            f"done: {name}: {_sizes(result)} in {result.timing.total:.1f} s; means of blocks "
            f"within {deviation.largest:.2f} stored units of the input; strips of {plan.rows} "
            f"rows, {100 * plan.overlap:.0f} % border overhead, estimated memory "
            f"{plan.peak_bytes / 2**20:.0f} MiB"
        )
        yield Verbosity.VERBOSE, line


def _sizes(result: Result) -> str:
    if not (result.input_shape and result.output_shape):
        return ""
    (rows, columns), (tall, wide) = result.input_shape, result.output_shape
    return f"{columns}x{rows} -> {wide}x{tall}"
