"""Run many files through an executor, with ledger and quarantine."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from cxrsr_cli.batch.forecast import foretell
from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.records import RunRecords
from cxrsr_cli.batch.result import FileStatus, Result, Timing, failed_result
from cxrsr_cli.common.process import peak_rss_bytes
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.options import Job

if TYPE_CHECKING:  # a cluster's client does not need torch
    from cxrsr_cli.upscaler import DecodedSource, UpscaledFrames, Upscaler

_T = TypeVar("_T")


class Executor(Protocol):
    """Turns jobs into results: this process (`LocalExecutor`), or a cluster."""

    @property
    def parameters(self) -> DerivationParameters:
        """What is done to the files."""

    def results(
        self,
        jobs: Sequence[Job],
        records: RunRecords,
        *,
        advance: Callable[[float], None],
        stop: Callable[[], bool],
    ) -> Generator[Result, None, None]:
        """Do every job, as `BatchRunner.run`, and finalize each result with the records."""


@dataclass(frozen=True, slots=True)
class BatchRunner:
    """Runs many files; a file that fails does not stop the others.

    Attributes
    ----------
    executor : Executor
        Does the work.
    ledger : Ledger or None
        Knows what was done before; None does everything again.
    quarantine : Quarantine or None
        Takes copies of the files that could not be upscaled.
    dry_run : bool
        Read and check every file, but write nothing.
    tracks_inputs : bool
        Whether the ledger remembers refused files, and counts how often the process died while
        it worked on a file. Such a file is done last and alone, and not at all after
        `MAX_CRASHES`.
    """

    executor: Executor
    ledger: Ledger | None = None
    quarantine: Quarantine | None = None
    dry_run: bool = False
    tracks_inputs: bool = True

    def run(
        self,
        jobs: Sequence[Job],
        *,
        advance: Callable[[float], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Generator[Result, None, None]:
        """Do every job.

        Parameters
        ----------
        jobs : sequence of Job
            Done in order, but for those that may have crashed the process; a cluster does
            several at once.
        advance : callable
            Gets the progress since the last call, in files.
        stop : callable
            Called between files. After it returns True, no other file is begun; those in
            the network and after it are finished.

        Yields
        ------
        Result
            For each job that was processed: in order, or by a cluster as each ends.

        Raises
        ------
        KeyboardInterrupt
            If it was raised here or thrown in. Files that are being written are finished
            first.
        CxrsrError
            If no other job can be done, for example because the cluster is lost. The
            results so far come first.
        """
        records = RunRecords(
            self.executor.parameters,
            self.ledger,
            self.quarantine,
            self.dry_run,
            self.tracks_inputs,
        )
        records.remove_stale_temporaries(jobs)
        try:
            yield from self.executor.results(jobs, records, advance=advance, stop=stop)
        finally:
            records.leave_unfinished()


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A source that waits for the network."""

    decoded: "DecodedSource"
    timing: Timing


@dataclass(frozen=True, slots=True)
class UpscaledFile:
    """New values that wait to be written."""

    upscaled: "UpscaledFrames"
    timing: Timing


@dataclass(frozen=True, slots=True)
class JobStages:
    """The stages read, upscale and write of a job; each may run in another thread.

    Every error becomes the result of its file, except an interruption: a defect that one
    file shows must not stop the others.
    """

    upscaler: "Upscaler"

    def read(
        self, job: Job, known: Callable[[Job], Result | None] = lambda _: None
    ) -> LoadedFile | Result:
        """Read and check a source, unless `known` returns its result."""
        started = time.monotonic()
        try:
            found = known(job)
            if found:
                return replace(found, timing=Timing(read=time.monotonic() - started))
            decoded = self.upscaler.read(job)
        except Exception as error:
            return failed_result(job, error, Timing(read=time.monotonic() - started))
        return LoadedFile(decoded, Timing(read=time.monotonic() - started))

    def dry_run_result(self, loaded: LoadedFile) -> Result:
        """Return what would be done, or why it would fail."""
        decoded = loaded.decoded
        try:
            forecast = foretell(self.upscaler, decoded)
        except Exception as error:
            return failed_result(decoded.job, error, loaded.timing, decoded)
        warnings = decoded.warnings + decoded.derivation_warnings
        result = self._result(decoded, FileStatus.DRY_RUN, warnings, loaded.timing)
        return replace(result, forecast=forecast)

    def upscale(
        self, loaded: LoadedFile, advance: Callable[[float], None]
    ) -> UpscaledFile | Result:
        """Run the network on what was read."""
        started = time.monotonic()
        try:
            upscaled = self.upscaler.upscale(loaded.decoded, advance)
        except Exception as error:
            timing = replace(loaded.timing, upscale=time.monotonic() - started)
            return failed_result(loaded.decoded.job, error, timing, loaded.decoded)
        return UpscaledFile(upscaled, replace(loaded.timing, upscale=time.monotonic() - started))

    def write(self, file: UpscaledFile, before_publish: Callable[[str], None]) -> Result:
        """Derive the object and write it; `before_publish` gets the hash of the file."""
        started, decoded = time.monotonic(), file.upscaled.decoded
        try:
            written = self.upscaler.write(file.upscaled, before_publish)
        except Exception as error:
            timing = replace(file.timing, write=time.monotonic() - started)
            return failed_result(decoded.job, error, timing, decoded)
        timing = replace(file.timing, write=time.monotonic() - started)
        done = self._result(decoded, FileStatus.DONE, written.warnings, timing)
        return replace(
            done,
            deviation=file.upscaled.deviation,
            noise=file.upscaled.noise,
            output_sha256=written.sha256,
        )

    def _result(
        self, decoded: "DecodedSource", status: FileStatus, warnings: list[str], timing: Timing
    ) -> Result:
        (rows, columns), scale = decoded.shape, self.upscaler.options.scale
        return Result(
            decoded.job,
            status,
            warnings=warnings,
            timing=timing,
            input_shape=decoded.shape,
            output_shape=(rows * scale, columns * scale),
            plan=decoded.plan,
            source_sha256=decoded.sha256,
        )


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """An `Executor` in this process: one network, with reading and writing beside it.

    Attributes
    ----------
    upscaler : Upscaler
        What is done to each file.
    io_workers : int
        How many files are read ahead of the network, and how many are written after it,
        each by a thread. Each holds the pixels of its file in memory. 0 does one thing
        after the other.
    """

    upscaler: "Upscaler"
    io_workers: int = 1

    @property
    def parameters(self) -> DerivationParameters:
        """What is done to the files."""
        return self.upscaler.parameters

    def results(
        self,
        jobs: Sequence[Job],
        records: RunRecords,
        *,
        advance: Callable[[float], None],
        stop: Callable[[], bool],
    ) -> Generator[Result, None, None]:
        """Do every job in order, as `BatchRunner.run`."""
        others, suspects = records.separate_suspects(jobs)
        for width, group in ((self.io_workers, others), (0, suspects)):
            with _pool(width) as readers, _pool(width) as writers:
                pipeline = _Pipeline(
                    stages=JobStages(self.upscaler),
                    records=records,
                    readers=readers,
                    writers=writers,
                    width=width,
                    advance=advance,
                    stop=stop,
                    waiting=iter(group),
                )
                yield from pipeline.run()


def _pool(width: int) -> AbstractContextManager[ThreadPoolExecutor | None]:
    return ThreadPoolExecutor(width) if width else nullcontext()


@dataclass(slots=True, kw_only=True)
class _Pipeline:
    """Files on their way through this process.

    Attributes
    ----------
    reading : deque of Future
        Files that are read, or were, ahead of the network.
    writing : deque of tuple
        Results to come of files that left the network, and the progress shown of each.
    """

    stages: JobStages
    records: RunRecords
    readers: ThreadPoolExecutor | None
    writers: ThreadPoolExecutor | None
    width: int
    advance: Callable[[float], None]
    stop: Callable[[], bool]
    waiting: Iterator[Job]
    reading: "deque[Future[LoadedFile | Result]]" = field(default_factory=deque)
    writing: "deque[tuple[Future[Result], float]]" = field(default_factory=deque)

    def run(self) -> Generator[Result, None, None]:
        """Yield a result for each job that is processed."""
        try:
            self._read_ahead()
            while self.reading and not self.stop():
                file = self.reading.popleft()
                if self.readers:
                    self._read_ahead()
                self.writing.append(self._process(file.result()))
                while len(self.writing) > self.width:
                    yield self._finish_oldest()
                self._read_ahead()
        except KeyboardInterrupt:
            # Files that are being written will be there, so they must be reported.
            while self.writing:
                yield self._finish_oldest()
            raise
        while self.writing:
            yield self._finish_oldest()

    def _read_ahead(self) -> None:
        while len(self.reading) < max(1, self.width) and not self.stop():
            job = next(self.waiting, None)
            if job is None:
                return
            known = self.records.start
            self.reading.append(_start(self.readers, self.stages.read, job, known))

    def _process(self, loaded: LoadedFile | Result) -> tuple[Future[Result], float]:
        """Run the network; return the result to come and the progress shown so far."""
        shown = 0.0

        def step(share: float) -> None:
            nonlocal shown
            shown += share
            self.advance(share)

        if isinstance(loaded, LoadedFile) and self.records.dry_run:
            loaded = self.stages.dry_run_result(loaded)
        file = loaded if isinstance(loaded, Result) else self.stages.upscale(loaded, step)
        if isinstance(file, Result):
            ended: Future[Result] = Future()
            ended.set_result(file)
            return ended, shown
        return _start(self.writers, self._write, file), shown

    def _write(self, file: UpscaledFile) -> Result:
        decoded = file.upscaled.decoded

        def before_publish(sha256: str) -> None:
            self.records.mark_pending(decoded.job, decoded.sha256, sha256)

        result = self.stages.write(file, before_publish)
        # At once, so that the next run need not find out.
        return self.records.finalize(result) if result.status is FileStatus.DONE else result

    def _finish_oldest(self) -> Result:
        future, shown = self.writing[0]
        result = future.result()
        if result.status is not FileStatus.DONE:
            result = self.records.finalize(result)
        self.advance(1 - shown)
        # Only now: an interruption during the wait must not lose the file.
        self.writing.popleft()
        return replace(result, peak_rss_bytes=peak_rss_bytes())


def _start(
    pool: ThreadPoolExecutor | None, function: Callable[..., _T], *arguments: object
) -> Future[_T]:
    """Submit work to a pool; without one, do it now."""
    if pool:
        return pool.submit(function, *arguments)
    future: Future[_T] = Future()
    future.set_result(function(*arguments))
    return future
