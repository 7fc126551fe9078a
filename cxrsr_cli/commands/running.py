"""Run a batch in front of somebody: bar, lines, interruption."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Never

import typer
from tqdm import tqdm

from cxrsr_cli.batch.plan import Plan
from cxrsr_cli.batch.report import Run
from cxrsr_cli.batch.result import Result, exit_code
from cxrsr_cli.commands.narration import Narrator, fatal_line
from cxrsr_cli.commands.stopping import stop_between_files
from cxrsr_cli.errors import CxrsrError, ExitCode

if TYPE_CHECKING:
    from cxrsr_cli.batch.batch import Batch

_BAR = "{percentage:3.0f}%|{bar}| {n:.1f}/{total} {unit}s [{elapsed}<{remaining}]"


def run_batch(batch: "Batch", plan: Plan, narrator: Narrator, *, progress: bool) -> Run:
    """Run a batch, narrate it on stderr, and sum it up.

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
        All that a report needs.
    """
    from cxrsr_cli.upscale import local_time

    started, results, interrupted = local_time(), list[Result](), False
    stderr = typer.get_text_stream("stderr")
    with (
        stop_between_files() as stop,
        tqdm(total=len(plan.jobs), unit="file", disable=not progress, bar_format=_BAR) as bar,
    ):
        for line in narrator.start(batch, plan):
            bar.write(line, file=stderr)
        try:
            for result in batch.run(plan.jobs, advance=_advance(bar), stop=stop):
                results.append(result)
                for line in narrator.result(result):
                    bar.write(line, file=stderr)
        except KeyboardInterrupt:
            interrupted = True
    code = ExitCode.INTERRUPTED if interrupted else exit_code(results, len(plan.jobs))
    run = Run(batch.upscaler, plan.jobs, results, started, local_time(), code, batch.dry_run)
    for line in narrator.summary(run):
        typer.echo(line, err=narrator.summary_on_stderr)
    return run


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
        typer.echo(fatal_line(error), err=True)
        raise typer.Exit(error.exit_code) from None
