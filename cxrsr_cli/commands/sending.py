"""Send in front of somebody: bar, lines, interruption, account."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from cxrsr_cli.batch.report import shown, write_report
from cxrsr_cli.batch.walk import Found
from cxrsr_cli.commands.narration import Verbosity, fatal_line, json_line
from cxrsr_cli.commands.running import BAR, write_beside
from cxrsr_cli.commands.saying import say
from cxrsr_cli.commands.stopping import stop_between_files
from cxrsr_cli.errors import CxrsrError, ExitCode, OutputError
from cxrsr_cli.send.destination import Destination, Outcome, Sent
from cxrsr_cli.send.report import SendRun, build_report, count, describe
from cxrsr_cli.send.sending import exit_code, send_all


class Words:
    """What is said of a run: sentences for people, JSON for machines.

    Parameters
    ----------
    verbosity : Verbosity
        How much is said.
    as_json : bool
        For machines.
    """

    def __init__(self, verbosity: Verbosity, *, as_json: bool) -> None:
        self._verbosity = verbosity
        self.as_json = as_json

    def sent(self, sent: Sent) -> Iterator[str]:
        """Say failures always, warnings normally, successes if asked to."""
        if sent.arrived and self._verbosity is Verbosity.QUIET:
            return
        if self.as_json:
            warned = sent.outcome is Outcome.WARNED
            level = "warning" if warned else "info" if sent.arrived else "error"
            yield json_line(level, "file", describe(sent))
        elif sent.message:
            yield f"{sent.outcome}: {shown(sent.path)}: {sent.message}"
        elif self._verbosity is Verbosity.VERBOSE:
            committed = ", committed" if sent.committed else ""
            yield f"{sent.outcome}{committed}: {shown(sent.path)}"

    def trouble(self, error: CxrsrError) -> str:
        """Say it as the command says what ends it."""
        return fatal_line(error) if self.as_json else f"cxrsr: {error}"

    def summary(self, run: SendRun) -> Iterator[str]:
        """Count: a line for each way that files ended."""
        counts = count(run)
        if self._verbosity is Verbosity.QUIET:
            return
        if self.as_json:
            facts = {"counts": counts, "exit_code": int(run.exit_code)}
            yield json_line("info", "summary", facts)
            return
        width = len(str(max(counts.values())))
        for outcome, number in counts.items():
            if number:
                yield f"{number:>{width}}  {outcome}"


def run_sending(
    destination: Destination,
    address: str,
    found: Sequence[Found],
    words: Words,
    *,
    retries: int,
    progress: bool,
) -> SendRun:
    """Send, and narrate it on stderr.

    Parameters
    ----------
    destination : Destination
        Where to.
    address : str
        The same as the user wrote it.
    found : sequence of Found
        What is sent.
    words : Words
        Finds the words.
    retries : int
        As `send_all`.
    progress : bool
        Whether a bar is drawn.
    """
    started, results, interrupted = _now(), list[Sent](), False
    with (
        stop_between_files() as stop,
        tqdm(total=len(found), unit="file", disable=not progress, bar_format=BAR) as bar,
    ):
        try:
            for sent in send_all(destination, found, retries=retries, stop=stop):
                results.append(sent)
                write_beside(bar, words.sent(sent))
                bar.update()
        except KeyboardInterrupt:
            interrupted = True
    return SendRun(
        destination=address,
        files=[item.path for item in found],
        results=results,
        started=started,
        finished=_now(),
        exit_code=ExitCode.INTERRUPTED if interrupted else exit_code(results, len(found)),
    )


def _now() -> datetime:
    return datetime.now(UTC).astimezone()


def give_account(run: SendRun, words: Words, report: Path | None) -> ExitCode:
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
            say(words.trouble(error), err=True)
            run = replace(run, exit_code=error.exit_code)
    for line in words.summary(run):
        say(line, err=words.as_json)
    return run.exit_code
