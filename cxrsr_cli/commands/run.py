"""Run a batch in front of somebody: bar, lines, interruption, account."""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, Protocol, TypeVar

import typer
from tqdm import tqdm

from cxrsr_cli.batch.plan import BatchPlan
from cxrsr_cli.batch.report import BatchRun, write_report
from cxrsr_cli.batch.result import Result, exit_code
from cxrsr_cli.commands.console import print_line, redirect_to_devnull, replace_unprintable
from cxrsr_cli.commands.reporters import Reporter, fatal_line
from cxrsr_cli.commands.signals import graceful_stop
from cxrsr_cli.common.process import now, peak_rss_bytes
from cxrsr_cli.errors import CxrsrError, ExitCode, OutputError
from cxrsr_cli.send.report import SendRun

if TYPE_CHECKING:
    from cxrsr_cli.batch.runner import BatchRunner


_R = TypeVar("_R", BatchRun, SendRun)
_Told_contra = TypeVar("_Told_contra", contravariant=True)

BAR = "{percentage:3.0f}%|{bar}| {n:.1f}/{total} {unit}s [{elapsed}<{remaining}]"
"""How a bar looks."""


def run_batch(
    batch: "BatchRunner", plan: BatchPlan, narrator: Reporter, *, progress: bool
) -> BatchRun:
    """Run a batch and narrate it on stderr.

    Parameters
    ----------
    batch : Batch
        What is done.
    plan : Plan
        To which files.
    narrator : Narrator
        Finds the words.
    progress : bool
        Whether a bar is drawn.

    Returns
    -------
    Run
        All that an account needs.
    """
    started, results, ended_by = now(), list[Result](), None
    with (
        graceful_stop() as stop,
        tqdm(total=len(plan.jobs), unit="file", disable=not progress, bar_format=BAR) as bar,
    ):
        write_above_bar(bar, narrator.start(batch, plan))
        running = batch.run(plan.jobs, advance=_advance(bar), stop=stop)
        try:
            for result in running:
                results.append(result)
                write_above_bar(bar, narrator.result(result))
        except KeyboardInterrupt:
            ended_by = ExitCode.INTERRUPTED
            for result in _drain_after_interrupt(running):
                results.append(result)
                write_above_bar(bar, narrator.result(result))
        except CxrsrError as error:
            # Of what was done there is an account nevertheless.
            ended_by = error.exit_code
            write_above_bar(bar, narrator.error(error))
    return BatchRun(
        parameters=batch.executor.parameters,
        jobs=plan.jobs,
        results=results,
        started=started,
        finished=now(),
        exit_code=ended_by or exit_code(results, len(plan.jobs)),
        peak_rss_bytes=peak_rss_bytes(),
        dry_run=batch.dry_run,
    )


class RunReporter(Protocol[_Told_contra]):
    """Finds the last words of a run."""

    summary_on_stderr: bool

    def error(self, error: CxrsrError) -> Iterator[str]:
        """Say what went wrong beside the files."""

    def summary(self, run: _Told_contra) -> Iterator[str]:
        """Say what became of all."""


def write_report_and_summary(
    run: _R, words: RunReporter[_R], report: Path | None, build: Callable[[_R], dict[str, Any]]
) -> ExitCode:
    """Write the report, if any, and sum up; a report that fails is a failure.

    Parameters
    ----------
    run : Run or SendRun
        That has ended.
    words : Summary
        Finds the words.
    report : Path or None
        Where the report goes.
    build : callable
        Makes it of a run.

    Returns
    -------
    ExitCode
        Of the process.
    """
    if report:
        try:
            write_report(build(run), report)
        except OutputError as error:
            for line in words.error(error):
                print_line(line, err=True)
            run = replace(run, exit_code=error.exit_code)
    for line in words.summary(run):
        print_line(line, err=words.summary_on_stderr)
    return run.exit_code


def _drain_after_interrupt(running: Generator[Result, None, None]) -> Iterator[Result]:
    """Tell an interrupted batch so, and take what it still finishes."""
    try:
        yield running.throw(KeyboardInterrupt())
        yield from running
    except (KeyboardInterrupt, StopIteration):
        return


def write_above_bar(bar: "tqdm[Never]", lines: Iterator[str]) -> None:
    """Write lines to stderr without spoiling a bar."""
    for line in lines:
        try:
            bar.write(replace_unprintable(line), file=sys.stderr)
        except OSError:
            redirect_to_devnull(sys.stderr)


def _advance(bar: "tqdm[Never]") -> Callable[[float], None]:
    def advance(share: float) -> None:
        bar.update(share)

    return advance


@contextmanager
def errors_as_json(enabled: bool) -> Iterator[None]:
    """Say an error that ends the run as a line of JSON, if asked to."""
    try:
        yield
    except CxrsrError as error:
        if not enabled:
            raise
        print_line(fatal_line(error), err=True)
        raise typer.Exit(error.exit_code) from None
