"""A cluster as the executor of a batch, with a bounded number of files in hand."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from distributed import Client

from cxrsr_cli.batch.records import RunRecords
from cxrsr_cli.batch.result import FileStatus, Result
from cxrsr_cli.cluster.client import ClientWorker, ClusterRunConfig
from cxrsr_cli.cluster.dispatcher import Dispatcher
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.errors import NetworkError
from cxrsr_cli.options import Job

_FILES_PER_WORKER = 3
"""Files in hand for each worker: one it reads, one in its network, one it writes."""
_MAX_IN_FLIGHT = 1024
"""Files in hand, each with a thread."""
_POLL_SECONDS = 0.5
"""Seconds between looks at the cluster."""
_RECONNECT_TIMEOUT = 60.0
"""Seconds to wait for a worker if none is left."""
_SCHEDULER_TIMEOUT = 10.0
"""Seconds in which the scheduler says who is there; a hung one keeps its connection."""


@dataclass(frozen=True, slots=True)
class ClusterExecutor:
    """An `Executor` whose files are done by a cluster's workers.

    Attributes
    ----------
    client : distributed.Client
        Connected.
    orders : Orders
        What the workers are asked to do, and how files get there.
    """

    client: Client
    config: ClusterRunConfig

    @property
    def parameters(self) -> DerivationParameters:
        """What is done to the files."""
        return self.config.parameters

    def results(
        self,
        jobs: Sequence[Job],
        records: RunRecords,
        *,
        advance: Callable[[float], None],
        stop: Callable[[], bool],
    ) -> Generator[Result, None, None]:
        """Do every job, as `BatchRunner.run`; results come as they end."""
        dispatcher = Dispatcher(self.client, self.config.io_workers)
        attendant = ClientWorker(self.config, records, dispatcher)
        crew = _WorkerMonitor(self.client)
        waiting = iter(jobs)
        hand = list[Future[Result | None]]()

        def next_job() -> Job | None:
            return None if stop() or dispatcher.failure else next(waiting, None)

        def ended(*, last: bool) -> Iterator[Result]:
            """Settle what has ended; if nothing more is wanted, wait for it to end."""
            for future in [each for each in hand if last or each.done()]:
                result = future.result()
                if result:
                    if result.status is not FileStatus.DONE:
                        result = records.finalize(result)
                    advance(1)
                # Not before: an interruption must not lose the file.
                hand.remove(future)
                if result:
                    yield result

        with ThreadPoolExecutor(_MAX_IN_FLIGHT, "attendant") as attendants:
            try:
                job = next_job()
                while job or hand:
                    while job and len(hand) < crew.max_in_flight():
                        hand.append(attendants.submit(attendant.run, job))
                        job = next_job()
                    wait(hand, _POLL_SECONDS, FIRST_COMPLETED)
                    yield from ended(last=False)
                    if crew.is_lost():
                        dispatcher.fail(NetworkError("no worker of the cluster is left"))
                    if stop() or dispatcher.failure:
                        job = None
            except KeyboardInterrupt:
                dispatcher.cancel()
                # What is there is told, in whatever order it came.
                yield from ended(last=True)
                raise
            finally:
                if hand:
                    dispatcher.cancel()
        if dispatcher.failure:
            raise dispatcher.failure


class _WorkerMonitor:
    """The workers that are there, counted now and then."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._count, self._looked = 1, -_RECONNECT_TIMEOUT
        self._seen = time.monotonic()

    def max_in_flight(self) -> int:
        """Return how many files may be in hand."""
        return min(_MAX_IN_FLIGHT, _FILES_PER_WORKER * max(1, self._look()))

    def is_lost(self) -> bool:
        """Tell whether there has been no worker for long."""
        return not self._look() and time.monotonic() - self._seen > _RECONNECT_TIMEOUT

    def _look(self) -> int:
        now = time.monotonic()
        if now - self._looked > 2 * _POLL_SECONDS:
            self._looked = now
            try:
                self._count = len(self._client.nthreads(callback_timeout=_SCHEDULER_TIMEOUT))
            except Exception:  # the dispatcher finds out what it means
                self._count = 0
            if self._count:
                self._seen = time.monotonic()
        return self._count
