"""Run a batch in front of somebody: bar, lines, interruption, account."""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Never

import typer
from tqdm import tqdm

from cxrsr_cli.batch.memory import peak_memory
from cxrsr_cli.batch.plan import Plan
from cxrsr_cli.batch.report import Run, build_report, write_report
from cxrsr_cli.batch.result import Result, exit_code
from cxrsr_cli.clock import local_time
from cxrsr_cli.commands.narration import Narrator, fatal_line
from cxrsr_cli.commands.saying import mute, plain, say
from cxrsr_cli.commands.stopping import stop_between_files
from cxrsr_cli.errors import CxrsrError, ExitCode, OutputError

if TYPE_CHECKING:
    from cxrsr_cli.batch.batch import Batch

BAR = "{percentage:3.0f}%|{bar}| {n:.1f}/{total} {unit}s [{elapsed}<{remaining}]"
"""How a bar looks."""


def run_batch(batch: "Batch", plan: Plan, narrator: Narrator, *, progress: bool) -> Run:
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
    started, results, ended_by = local_time(), list[Result](), None
    with (
        stop_between_files() as stop,
        tqdm(total=len(plan.jobs), unit="file", disable=not progress, bar_format=BAR) as bar,
    ):
        write_beside(bar, narrator.start(batch, plan))
        running = batch.run(plan.jobs, advance=_advance(bar), stop=stop)
        try:
            for result in running:
                results.append(result)
                write_beside(bar, narrator.result(result))
        except KeyboardInterrupt:
            ended_by = ExitCode.INTERRUPTED
            for result in _rest(running):
                results.append(result)
                write_beside(bar, narrator.result(result))
        except CxrsrError as error:
            # Of what was done there is an account nevertheless.
            ended_by = error.exit_code
            write_beside(bar, narrator.trouble(error))
    return Run(
        profile=batch.profile,
        jobs=plan.jobs,
        results=results,
        started=started,
        finished=local_time(),
        exit_code=ended_by or exit_code(results, len(plan.jobs)),
        peak_memory=peak_memory(),
        dry_run=batch.dry_run,
    )


def give_account(run: Run, narrator: Narrator, report: Path | None) -> ExitCode:
    """Write the report, if any, and sum up; a report that fails is a failure.

    Returns
    -------
    ExitCode
        Of the process.
    """
    if report:
        try:
            write_report(build_report(run), report)
        except OutputError as error:
            for line in narrator.trouble(error):
                say(line, err=True)
            run = replace(run, exit_code=error.exit_code)
    for line in narrator.summary(run):
        say(line, err=narrator.summary_on_stderr)
    return run.exit_code


def _rest(running: Generator[Result, None, None]) -> Iterator[Result]:
    """Tell an interrupted batch so, and take what it still finishes."""
    try:
        yield running.throw(KeyboardInterrupt())
        yield from running
    except (KeyboardInterrupt, StopIteration):
        return


def write_beside(bar: "tqdm[Never]", lines: Iterator[str]) -> None:
    """Write lines to stderr without spoiling a bar."""
    for line in lines:
        try:
            bar.write(plain(line), file=sys.stderr)
        except OSError:
            mute(sys.stderr)


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
        say(fatal_line(error), err=True)
        raise typer.Exit(error.exit_code) from None
