"""Send in front of somebody: bar, lines, interruption, account."""

from collections.abc import Iterator, Sequence

from tqdm import tqdm

from cxrsr_cli.batch.report import shown
from cxrsr_cli.batch.walk import Found
from cxrsr_cli.clock import local_time
from cxrsr_cli.commands.narration import fatal_line, json_line
from cxrsr_cli.commands.options import Verbosity
from cxrsr_cli.commands.running import BAR, write_beside
from cxrsr_cli.commands.stopping import stop_between_files
from cxrsr_cli.errors import CxrsrError, ExitCode
from cxrsr_cli.send.destination import Destination, Outcome, Sent
from cxrsr_cli.send.report import SendRun, count, describe
from cxrsr_cli.send.sending import exit_code, may_arrive_later, send_all


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
        self._as_json = as_json
        self.summary_on_stderr = as_json

    def sent(self, sent: Sent) -> Iterator[str]:
        """Say failures always, warnings normally, successes if asked to."""
        if sent.arrived and self._verbosity is Verbosity.QUIET:
            return
        if self._as_json:
            warned = sent.outcome is Outcome.WARNED
            level = "warning" if warned else "info" if sent.arrived else "error"
            yield json_line(level, "file", describe(sent))
        elif sent.message:
            yield f"{sent.outcome}: {shown(sent.path)}: {sent.message}"
        elif self._verbosity is Verbosity.VERBOSE:
            committed = ", committed" if sent.committed else ""
            yield f"{sent.outcome}{committed}: {shown(sent.path)}"

    def trouble(self, error: CxrsrError) -> Iterator[str]:
        """Say it as the command says what ends it."""
        yield fatal_line(error) if self._as_json else f"cxrsr: {error}"

    def summary(self, run: SendRun) -> Iterator[str]:
        """Count: a line for each way that files ended."""
        counts = count(run)
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
    started, results, ended_by = local_time(), list[Sent](), None
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
            ended_by = ExitCode.INTERRUPTED
        except CxrsrError as error:
            # Of what was done there is an account nevertheless.
            ended_by = error.exit_code
            write_beside(bar, words.trouble(error))
        if retries and stop() and any(map(may_arrive_later, results)):
            ended_by = ended_by or ExitCode.INTERRUPTED
    return SendRun(
        destination=address,
        files=[item.path for item in found],
        results=results,
        started=started,
        finished=local_time(),
        exit_code=ended_by or exit_code(results, len(found)),
    )
