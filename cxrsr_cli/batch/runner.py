"""Many files: whoever does the work, one plan, one ledger, one account."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.records import RunRecords
from cxrsr_cli.batch.result import Result
from cxrsr_cli.options import Job, RunInfo

if TYPE_CHECKING:
    from cxrsr_cli.upscaler import Upscaler


@runtime_checkable
class Executor(Protocol):
    """What turns jobs into results: this process (`LocalExecutor`), or a cluster."""

    @property
    def profile(self) -> RunInfo:
        """What is done to the files."""

    def results(
        self,
        jobs: Sequence[Job],
        accounts: RunRecords,
        *,
        advance: Callable[[float], None],
        stop: Callable[[], bool],
    ) -> Generator[Result, None, None]:
        """Do every job, as `BatchRunner.run`, and settle each result with the accounts."""


@dataclass(frozen=True, slots=True)
class BatchRunner:
    """How files go through an `Upscaler` without anybody looking.

    Attributes
    ----------
    upscaler : Upscaler or Executor
        What is done to each, in this process; or has it done elsewhere.
    ledger : Ledger or None
        Knows what was done before; None does everything again.
    quarantine : Quarantine or None
        Takes copies of the files that could not be upscaled.
    io_workers : int
        How many files are read ahead of the network, and how many are written
        behind it, each by a thread. 0 does one thing after the other. Each
        holds the pixels of its file in memory. Of this process only.
    dry_run : bool
        Read and judge, but write nothing.
    """

    upscaler: "Upscaler | Executor"
    ledger: Ledger | None = None
    quarantine: Quarantine | None = None
    io_workers: int = 1
    dry_run: bool = False

    @property
    def profile(self) -> RunInfo:
        """What is done to the files."""
        return self.upscaler.profile

    def run(
        self,
        jobs: Sequence[Job],
        *,
        advance: Callable[[float], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Generator[Result, None, None]:
        """Do every job; a failed one does not stop the rest.

        Parameters
        ----------
        jobs : sequence of Job
            Done in order; several at once by a cluster.
        advance : callable
            Told of progress, in files.
        stop : callable
            Asked between files. After it says yes, the files in the network
            and behind it are finished and no other is begun.

        Yields
        ------
        Result
            For each job that was come to; in order, by a cluster as each ends.

        Raises
        ------
        KeyboardInterrupt
            If it came, here or thrown in; after what was in writing.
        CxrsrError
            If no other job can be done, such as when a cluster is lost; after
            the results of those that were.
        """
        accounts = RunRecords(self.profile, self.ledger, self.quarantine, self.dry_run)
        accounts.remove_stale_temporaries(jobs)
        yield from self._executor().results(jobs, accounts, advance=advance, stop=stop)

    def _executor(self) -> Executor:
        if isinstance(self.upscaler, Executor):
            return self.upscaler
        from cxrsr_cli.batch.local_executor import LocalExecutor

        return LocalExecutor(self.upscaler, self.io_workers)
