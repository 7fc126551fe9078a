"""Run a batch on the workers of a Dask cluster.

What Dask does: it finds a worker for each task and moves tasks of a worker that died to others;
it copies weights and files to workers, and outputs back; it cancels tasks; it ends every wait
when the connection to the scheduler is lost; it starts the processes of a local cluster, again
if they die.

What this package does, and why:

- It bounds the files in flight, and reads a file just before it is sent. Dask would take the
  content of all files at once (`ClusterExecutor.results`).
- It retries the files of workers that died, in the end each alone. Dask counts the death of a
  worker against all its tasks, so that good files would fail with the one that killed it; its
  `retries` are for tasks that raise (`_JobQueue`).
- It asks the scheduler for its workers. Dask waits for a scheduler that hangs as long as its
  connection stays open (`_WorkerMonitor`).
- It keeps ledger, quarantine and final names of outputs with the client (`_JobRunner`).
- It packs requests, and returns errors as responses. Dask unpickles a task's arguments on the
  scheduler, and logs them if the task raises (`envelope`).
- It checks on the worker, after each strip, that the task is still wanted. Dask does not
  interrupt a thread (`worker`).
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from threading import BoundedSemaphore

import distributed
from distributed import Client, KilledWorker

from cxrsr_cli.batch.records import RunRecords
from cxrsr_cli.batch.result import FileStatus, Result, Timing, failed_result
from cxrsr_cli.cluster.dispatcher import Dispatcher
from cxrsr_cli.cluster.envelope import VersionedPickle
from cxrsr_cli.cluster.file_transfer import (
    FileTransfer,
    TransferMode,
    remove_staged,
    save_output,
)
from cxrsr_cli.cluster.messages import FileResponse, WorkRequest
from cxrsr_cli.common.files import permissions_of
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.write import check_target
from cxrsr_cli.errors import NetworkError, OutputError, WorkerCrashedError
from cxrsr_cli.options import Job

_LOG = logging.getLogger(__name__)

_FILES_PER_WORKER = 3
"""Files in flight for each worker: one is read, one is in the network, one is written."""
_MAX_IN_FLIGHT = 1024
"""Files in flight, each with a thread."""
_MAX_SHARED_CRASHES = 2
"""Worker crashes tolerated with other files in flight; then the file is retried alone."""
_MAX_CRASHES = 4
"""Worker crashes after which a file fails if it was alone; a worker can die for other reasons."""
_POLL_SECONDS = 0.5
"""Seconds between looks at the cluster."""
_RECONNECT_TIMEOUT = 60.0
"""Seconds to wait for a worker if none is left."""
_SCHEDULER_TIMEOUT = 10.0
"""Seconds in which the scheduler must say which workers there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterExecutor:
    """An `Executor` whose files are upscaled by the workers of a cluster.

    Attributes
    ----------
    weights : distributed.Future
        A task whose result is the content of the weights file.
    request : WorkRequest
        What every file's request begins with.
    client, parameters, clock, transfer_mode, io_workers
        As `connected_cluster` makes and takes them.
    """

    client: Client
    weights: "distributed.Future[bytes]"
    request: WorkRequest
    parameters: DerivationParameters
    clock: Callable[[], datetime]
    transfer_mode: TransferMode
    io_workers: int = 1

    def results(
        self,
        jobs: Sequence[Job],
        records: RunRecords,
        *,
        advance: Callable[[float], None],
        stop: Callable[[], bool],
    ) -> Generator[Result, None, None]:
        """Do every job, as `BatchRunner.run`; results come in the order of completion."""
        dispatcher = Dispatcher(self.client, self.weights)
        runner, monitor = _JobRunner(self, records, dispatcher), _WorkerMonitor(self.client)
        queue = _JobQueue(jobs)
        in_flight = dict[Future[Result | None], Job]()

        def next_job() -> Job | None:
            if dispatcher.failure:
                return None
            return queue.next(start_new=not stop(), is_idle=not in_flight)

        def completed(*, wait_for_all: bool = False) -> Iterator[Result]:
            for future in [each for each in in_flight if wait_for_all or each.done()]:
                try:
                    result = future.result()
                except KilledWorker as error:
                    result = queue.add_crashed(in_flight[future], error.allowed_failures + 1)
                if result:
                    if result.status is not FileStatus.DONE:
                        result = records.finalize(result)
                    advance(1)
                # Only now, so that an interruption does not lose the file.
                del in_flight[future]
                if result:
                    yield result

        with ThreadPoolExecutor(_MAX_IN_FLIGHT, "cxrsr-file") as threads:
            try:
                while True:
                    most = min(_MAX_IN_FLIGHT, _FILES_PER_WORKER * max(1, monitor.count()))
                    while len(in_flight) < most and (job := next_job()):
                        in_flight[threads.submit(runner.run, job)] = job
                    if not in_flight:
                        break
                    wait(in_flight, _POLL_SECONDS, FIRST_COMPLETED)
                    yield from completed()
                    if monitor.is_lost():
                        dispatcher.fail(NetworkError("no worker of the cluster is left"))
            except KeyboardInterrupt:
                dispatcher.cancel()
                yield from completed(wait_for_all=True)
                raise
            finally:
                if in_flight:
                    dispatcher.cancel()
        if dispatcher.failure:
            raise dispatcher.failure


class _JobQueue:
    """Files that are not in flight: after a crash first, then new ones, suspects last."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._new, self._retries, self._suspects = deque(jobs), deque[Job](), deque[Job]()
        self._crashes = Counter[Job]()

    def next(self, *, start_new: bool, is_idle: bool) -> Job | None:
        """Return the file to start; a suspect only if no file is in flight."""
        if self._retries:
            return self._retries.popleft()
        if self._new and start_new:
            return self._new.popleft()
        return self._suspects.popleft() if self._suspects and is_idle else None

    def add_crashed(self, job: Job, crashes: int) -> Result | None:
        """Take back a file whose workers died; return its result if it is not retried."""
        was_alone = self._crashes[job] >= _MAX_SHARED_CRASHES
        self._crashes[job] += crashes
        count = self._crashes[job]
        _LOG.info("workers died %d times with a file", count)
        if was_alone and count >= _MAX_CRASHES:
            message = f"the worker died {count} times on it, at last with nothing else"
            return failed_result(job, WorkerCrashedError(message), Timing())
        (self._retries if count < _MAX_SHARED_CRASHES else self._suspects).append(job)
        return None


class _JobRunner:
    """Runs the client's part of a job, for many threads."""

    def __init__(
        self, executor: ClusterExecutor, records: RunRecords, dispatcher: Dispatcher
    ) -> None:
        self._executor = executor
        self._overwrite = executor.request.options.overwrite
        self._records = records
        self._dispatcher = dispatcher
        self._reading = BoundedSemaphore(max(1, executor.io_workers))
        self._writing = BoundedSemaphore(max(1, executor.io_workers))

    def run(self, job: Job) -> Result | None:
        """Return the result of a job; None if the run ended before. Raises KilledWorker."""
        started, staged = time.monotonic(), None
        try:
            with self._reading:
                # The run may have ended while this file waited.
                self._dispatcher.check()
                known = self._records.find_known(job)
                if known:
                    return replace(known, timing=Timing(read=time.monotonic() - started))
                if job.error:
                    raise job.error
                check_target(job.source, job.target, overwrite=self._overwrite)
                future, staged = self._submit(job)
            self._dispatcher.wait(future)
            with self._writing:
                response = self._dispatcher.receive(future)
                assert isinstance(response, FileResponse)  # noqa: S101
                return self._save(job, response, staged)
        except CancelledError:
            return None
        except KilledWorker:
            raise
        except Exception as error:
            return failed_result(job, error, Timing(read=time.monotonic() - started))
        finally:
            remove_staged(staged)

    def _submit(self, job: Job) -> "tuple[distributed.Future[VersionedPickle], Path | None]":
        """Send a file; its content is gone from this process when it has left."""
        executor = self._executor
        request = replace(
            executor.request,
            derived_at=executor.clock(),
            transfer=FileTransfer.prepare(job, executor.transfer_mode),
            dry_run=self._records.dry_run,
        )
        assert request.transfer  # noqa: S101
        return self._dispatcher.submit(request), request.transfer.staged

    def _save(self, job: Job, response: FileResponse, staged: Path | None) -> Result:
        error = response.result.error
        if isinstance(error, OutputError):
            error = error.with_path(job.target)  # it has the path that the worker wrote to
        result = replace(response.result, job=job, error=error)
        sha256, source = result.output_sha256, result.source_sha256
        if not (sha256 and source):
            return result
        try:
            save_output(
                job.target,
                staged or response.content,
                sha256,
                lambda _: self._records.mark_pending(job, source, sha256),
                overwrite=self._overwrite,
                permissions=permissions_of(job.source),
            )
        except Exception as error:
            return replace(
                failed_result(job, error, result.timing),
                warnings=result.warnings,
                input_shape=result.input_shape,
                source_sha256=source,
            )
        return self._records.finalize(result)


class _WorkerMonitor:
    """Counts the workers, at most once a second."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._count, self._next_look, self._last_seen = 1, 0.0, time.monotonic()

    def count(self) -> int:
        """Return the number of workers; 0 if the scheduler does not answer."""
        if time.monotonic() > self._next_look:
            try:
                self._count = len(self._client.nthreads(callback_timeout=_SCHEDULER_TIMEOUT))
            except Exception:  # threads that wait for a response find out what it means
                self._count = 0
            self._next_look = time.monotonic() + 2 * _POLL_SECONDS
        if self._count:
            self._last_seen = time.monotonic()
        return self._count

    def is_lost(self) -> bool:
        """Tell if there has been no worker for long."""
        return not self.count() and time.monotonic() - self._last_seen > _RECONNECT_TIMEOUT
