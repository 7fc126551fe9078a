"""Run a sending: progress, words, report."""

from collections.abc import Iterator, Sequence

from tqdm import tqdm

from cxrsr_cli.batch.discover import InputFile
from cxrsr_cli.batch.report import display_path
from cxrsr_cli.commands.options import Verbosity
from cxrsr_cli.commands.reporters import fatal_line, json_line
from cxrsr_cli.commands.run import BAR, write_above_bar
from cxrsr_cli.commands.signals import graceful_stop
from cxrsr_cli.common.process import now
from cxrsr_cli.connections.destination import Destination, SendOutcome, SendResult
from cxrsr_cli.errors import CxrsrError, ExitCode
from cxrsr_cli.send.report import SendRun, count_by_outcome, file_record
from cxrsr_cli.send.retrying import exit_code, is_retryable, send_with_retries


class SendReporter:
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
        self._as_json = as_json
        self.summary_on_stderr = as_json

    def sent(self, sent: SendResult) -> Iterator[str]:
        """Say failures always, warnings normally, successes if asked to."""
        if sent.is_stored and self._verbosity is Verbosity.QUIET:
            return
        if self._as_json:
            warned = sent.outcome is SendOutcome.WARNED
            level = "warning" if warned else "info" if sent.is_stored else "error"
            yield json_line(level, "file", file_record(sent))
        elif sent.message:
            yield f"{sent.outcome}: {display_path(sent.path)}: {sent.message}"
        elif self._verbosity is Verbosity.VERBOSE:
            committed = ", committed" if sent.committed else ""
            yield f"{sent.outcome}{committed}: {display_path(sent.path)}"

    def error(self, error: CxrsrError) -> Iterator[str]:
        """Say it as the command says what ends it."""
        yield fatal_line(error) if self._as_json else f"cxrsr: {error}"

    def summary(self, run: SendRun) -> Iterator[str]:
        """Count: a line for each way that files ended."""
        counts = count_by_outcome(run)
        if self._verbosity is Verbosity.QUIET:
            return
        if self._as_json:
            facts = {"counts": counts, "exit_code": int(run.exit_code)}
            yield json_line("info", "summary", facts)
            return
        width = len(str(max(counts.values())))
        for outcome, number in counts.items():
            if number:
                yield f"{number:>{width}}  {outcome}"


def send_with_progress(
    destination: Destination,
    address: str,
    found: Sequence[InputFile],
    words: SendReporter,
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
        As `send_with_retries`.
    progress : bool
        Whether a bar is drawn.
    """
    started, results, ended_by = now(), list[SendResult](), None
    with (
        graceful_stop() as stop,
        tqdm(total=len(found), unit="file", disable=not progress, bar_format=BAR) as bar,
    ):
        try:
            for sent in send_with_retries(destination, found, retries=retries, stop=stop):
                results.append(sent)
                write_above_bar(bar, words.sent(sent))
                bar.update()
        except KeyboardInterrupt:
            ended_by = ExitCode.INTERRUPTED
        except CxrsrError as error:
            # Of what was done there is an account nevertheless.
            ended_by = error.exit_code
            write_above_bar(bar, words.error(error))
        if retries and stop() and any(map(is_retryable, results)):
            ended_by = ended_by or ExitCode.INTERRUPTED
    return SendRun(
        destination=address,
        files=[item.path for item in found],
        results=results,
        started=started,
        finished=now(),
        exit_code=ended_by or exit_code(results, len(found)),
    )
