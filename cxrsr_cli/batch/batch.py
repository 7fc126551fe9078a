"""Many files: reading and writing beside the network, in order, resumable."""

import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

from cxrsr_cli.batch.failure import as_failure
from cxrsr_cli.batch.ledger import Entry, Ledger, Work
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.result import Result, Status, Timing
from cxrsr_cli.errors import CxrsrError, OutputError
from cxrsr_cli.job import Job
from cxrsr_cli.read.fingerprint import kept_still, sha256_of
from cxrsr_cli.upscale import Opened, Restored, Upscaler
from cxrsr_cli.write.atomic import remove_orphans

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in what getrusage counts memory in."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Batch:
    """How files go through an `Upscaler` without anybody looking.

    Attributes
    ----------
    upscaler : Upscaler
        What is done to each.
    ledger : Ledger or None
        Knows what was done before; None does everything again.
    quarantine : Quarantine or None
        Takes copies of the files that could not be upscaled.
    io_workers : int
        How many files are read ahead of the network, and how many are written
        behind it, each by a thread. 0 does one thing after the other. Each
        holds the pixels of its file in memory.
    dry_run : bool
        Read and judge, but write nothing.
    """

    upscaler: Upscaler
    ledger: Ledger | None = None
    quarantine: Quarantine | None = None
    io_workers: int = 1
    dry_run: bool = False

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
            Done in order.
        advance : callable
            Told of progress, in files.
        stop : callable
            Asked between files. After it says yes, the files in the network
            and behind it are finished and no other is begun.

        Yields
        ------
        Result
            For each job that was come to, in order.

        Raises
        ------
        KeyboardInterrupt
            If it came, here or thrown in; after what was in writing.
        """
        if not self.dry_run:
            for folder in {job.target.parent for job in jobs}:
                remove_orphans(folder)
            if self.quarantine:
                self.quarantine.remove_orphans()
        with self._pool() as readers, self._pool() as writers:
            waiting = iter(jobs)
            ahead: deque[Future[Result | _Read]] = deque()
            behind: deque[tuple[Future[Result], float]] = deque()

            def look_ahead() -> None:
                while len(ahead) < max(1, self.io_workers) and not stop():
                    job = next(waiting, None)
                    if job is None:
                        return
                    ahead.append(_start(readers, self._read, job))

            def settle() -> Result:
                future, shown = behind[0]
                result = self._set_apart(future.result())
                advance(1 - shown)
                # Not before: an interruption while waiting must not lose the file.
                behind.popleft()
                return replace(result, peak_memory=peak_memory())

            try:
                look_ahead()
                while ahead and not stop():
                    reading = ahead.popleft()
                    if readers:
                        look_ahead()
                    behind.append(self._process(reading.result(), writers, advance))
                    while len(behind) > self.io_workers:
                        yield settle()
                    look_ahead()
            except KeyboardInterrupt:
                # What is being written will be there: not to say so would be wrong.
                while behind:
                    yield settle()
                raise
            while behind:
                yield settle()

    def _pool(self) -> AbstractContextManager[ThreadPoolExecutor | None]:
        return ThreadPoolExecutor(self.io_workers) if self.io_workers else nullcontext()

    def _read(self, job: Job) -> "Result | _Read":
        started = time.monotonic()
        try:
            earlier = self._recall(job)
            if earlier:
                return _already(job, earlier, Timing(read=time.monotonic() - started))
            opened = self.upscaler.open(job)
        # A defect met on one file must not cost a night's other files.
        except Exception as error:
            timing = Timing(read=time.monotonic() - started)
            return self._made_meanwhile(job, error, timing) or _failed(job, error, timing)
        return _Read(opened, Timing(read=time.monotonic() - started))

    def _recall(self, job: Job) -> Entry | None:
        """Return what the ledger knows of the very same work, if its output is there."""
        if self.ledger is None or self.upscaler.overwrite or job.refused:
            return None
        entry = self.ledger.recall(job.target)
        if entry is None:
            return None
        with kept_still(job.source):
            difference = self._work(sha256_of(job.source)).difference(entry.work)
        if difference:
            raise OutputError(
                f"{job.target} exists, made {difference}; use --overwrite to replace it"
            )
        if not entry.done and not self.dry_run:
            self.ledger.record(job.target, entry.work, entry.output_sha256)
        return entry

    def _work(self, source_sha256: str) -> Work:
        return Work(source_sha256, self.upscaler.model.sha256, self.upscaler.choices)

    def _process(
        self,
        read: "Result | _Read",
        writers: ThreadPoolExecutor | None,
        advance: Callable[[float], None],
    ) -> tuple[Future[Result], float]:
        """Run the network on what was read; return the result to be and what was shown of it."""
        if isinstance(read, Result):
            return _start(None, lambda: read), 0.0
        opened, timing = read.opened, read.timing
        if self.dry_run:
            planned = Result(
                opened.job,
                Status.PLANNED,
                warnings=opened.warnings,
                timing=timing,
                input_shape=opened.shape,
                output_shape=self._output_shape(opened),
                plan=opened.plan,
                source_sha256=opened.sha256,
            )
            return _start(None, lambda: planned), 0.0
        shown = 0.0

        def step(share: float) -> None:
            nonlocal shown
            shown += share
            advance(share)

        started = time.monotonic()
        try:
            restored = self.upscaler.restore(opened, step)
        except Exception as error:
            timing = replace(timing, restore=time.monotonic() - started)
            failure = _failed(opened.job, error, timing, opened)
            return _start(None, lambda: failure), shown
        timing = replace(timing, restore=time.monotonic() - started)
        return _start(writers, self._write, restored, timing), shown

    def _output_shape(self, opened: Opened) -> tuple[int, int]:
        scale = self.upscaler.recipe.scale
        return opened.shape[0] * scale, opened.shape[1] * scale

    def _write(self, restored: Restored, timing: Timing) -> Result:
        opened, started = restored.opened, time.monotonic()
        job, work = opened.job, self._work(opened.sha256)

        def announce(sha256: str) -> None:
            if self.ledger:
                self.ledger.announce(job.target, work, sha256)

        try:
            output = self.upscaler.finish(restored, announce)
        except Exception as error:
            timing = replace(timing, write=time.monotonic() - started)
            meanwhile = self._made_meanwhile(job, error, timing)
            return meanwhile or _failed(job, error, timing, opened)
        troubles = []
        try:
            if self.ledger:
                self.ledger.record(job.target, work, output.sha256)
        except OutputError as error:
            # The output is there and was announced: the next run will find out.
            troubles.append(str(error))
        return Result(
            job,
            Status.DONE,
            warnings=output.warnings,
            troubles=troubles,
            timing=replace(timing, write=time.monotonic() - started),
            input_shape=opened.shape,
            output_shape=self._output_shape(opened),
            deviation=restored.deviation,
            plan=opened.plan,
            source_sha256=opened.sha256,
            output_sha256=output.sha256,
        )

    def _made_meanwhile(self, job: Job, error: Exception, timing: Timing) -> Result | None:
        """Tell whether another process did the very same work at the same time."""
        if not isinstance(error, OutputError):
            return None
        try:
            entry = self._recall(job)
        except CxrsrError:
            return None
        return _already(job, entry, timing) if entry else None

    def _set_apart(self, result: Result) -> Result:
        """Put a copy of a bad input into quarantine."""
        error = result.error
        if self.dry_run or not (self.quarantine and error and self.quarantine.concerns(error)):
            return result
        try:
            self.quarantine.take(result.job, error)
        except CxrsrError as failure:
            return replace(result, troubles=[*result.troubles, str(failure)])
        return result


@dataclass(frozen=True, slots=True)
class _Read:
    """A source on its way to the network."""

    opened: Opened
    timing: Timing


def _start(
    pool: ThreadPoolExecutor | None, function: Callable[..., _T], *arguments: object
) -> Future[_T]:
    """Give work to a pool, or do it at once."""
    if pool:
        return pool.submit(function, *arguments)
    future: Future[_T] = Future()
    future.set_result(function(*arguments))
    return future


def _failed(job: Job, error: Exception, timing: Timing, opened: Opened | None = None) -> Result:
    return Result(
        job,
        Status.FAILED,
        error=as_failure(error),
        warnings=opened.warnings if opened else [],
        timing=timing,
        input_shape=opened.shape if opened else None,
        source_sha256=opened.sha256 if opened else None,
    )


def _already(job: Job, entry: Entry, timing: Timing) -> Result:
    return Result(
        job,
        Status.ALREADY,
        timing=timing,
        source_sha256=entry.work.source_sha256,
        output_sha256=entry.output_sha256,
    )


def peak_memory() -> int:
    """Return the high-water mark of the process's memory in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
