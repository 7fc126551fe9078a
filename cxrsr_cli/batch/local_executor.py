"""The way of many files through this process: read ahead, network, written behind."""

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

from cxrsr_cli.batch.records import RunRecords
from cxrsr_cli.batch.result import FileStatus, Result, Timing, failed_result
from cxrsr_cli.common.process import peak_rss_bytes
from cxrsr_cli.options import Job, RunInfo
from cxrsr_cli.upscaler import DecodedSource, UpscaledFrames, Upscaler


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A source on its way to the network."""

    decoded: DecodedSource
    timing: Timing


@dataclass(frozen=True, slots=True)
class UpscaledFile:
    """New values on their way to the disk."""

    frames: UpscaledFrames
    timing: Timing


@dataclass(frozen=True, slots=True)
class JobStages:
    """What is done to a file in the order of its way, each by whoever has the time.

    A defect met on one file must not cost a night's other files: nothing but
    an interruption is raised.

    Attributes
    ----------
    upscaler : Upscaler
        Does the work.
    """

    upscaler: Upscaler

    def read(
        self, job: Job, known: Callable[[Job], Result | None] = lambda _: None
    ) -> LoadedFile | Result:
        """Read and judge a source, unless its result is known already."""
        started = time.monotonic()
        try:
            found = known(job)
            if found:
                return replace(found, timing=Timing(read=time.monotonic() - started))
            opened = self.upscaler.read(job)
        except Exception as error:
            return failed_result(job, error, Timing(read=time.monotonic() - started))
        return LoadedFile(opened, Timing(read=time.monotonic() - started))

    def dry_run_result(self, read: LoadedFile) -> Result:
        """Say what would be done."""
        return self._result(read.decoded, FileStatus.DRY_RUN, read.decoded.warnings, read.timing)

    def upscale(self, read: LoadedFile, advance: Callable[[float], None]) -> UpscaledFile | Result:
        """Run the network on what was read."""
        started = time.monotonic()
        try:
            restored = self.upscaler.upscale(read.decoded, advance)
        except Exception as error:
            timing = replace(read.timing, upscale=time.monotonic() - started)
            return failed_result(read.decoded.job, error, timing, read.decoded)
        return UpscaledFile(restored, replace(read.timing, upscale=time.monotonic() - started))

    def write(self, made: UpscaledFile, announce: Callable[[str], None]) -> Result:
        """Derive the object and write it; announce its hash before it gets its name."""
        started, opened = time.monotonic(), made.frames.decoded
        try:
            output = self.upscaler.write(made.frames, announce)
        except Exception as error:
            timing = replace(made.timing, write=time.monotonic() - started)
            return failed_result(opened.job, error, timing, opened)
        timing = replace(made.timing, write=time.monotonic() - started)
        done = self._result(opened, FileStatus.DONE, output.warnings, timing)
        return replace(done, deviation=made.frames.deviation, output_sha256=output.sha256)

    def _result(
        self, opened: DecodedSource, status: FileStatus, warnings: list[str], timing: Timing
    ) -> Result:
        (rows, columns), scale = opened.shape, self.upscaler.recipe.scale
        return Result(
            opened.job,
            status,
            warnings=warnings,
            timing=timing,
            input_shape=opened.shape,
            output_shape=(rows * scale, columns * scale),
            plan=opened.plan,
            source_sha256=opened.sha256,
        )


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """An `Executor` of this process: one network, reading and writing beside it.

    Attributes
    ----------
    upscaler : Upscaler
        What is done to each file.
    io_workers : int
        How many files are read ahead of the network, and how many are written
        behind it, each by a thread. 0 does one thing after the other.
    """

    upscaler: Upscaler
    io_workers: int = 1

    @property
    def profile(self) -> RunInfo:
        """What is done to the files."""
        return self.upscaler.profile

    def results(
        self,
        jobs: Sequence[Job],
        accounts: RunRecords,
        *,
        advance: Callable[[float], None],
        stop: Callable[[], bool],
    ) -> Generator[Result, None, None]:
        """Do every job in order, as `BatchRunner.run`."""
        stages = JobStages(self.upscaler)
        with self._pool() as readers, self._pool() as writers:
            waiting = iter(jobs)
            ahead: deque[Future[LoadedFile | Result]] = deque()
            behind: deque[tuple[Future[Result], float]] = deque()

            def look_ahead() -> None:
                while len(ahead) < max(1, self.io_workers) and not stop():
                    job = next(waiting, None)
                    if job is None:
                        return
                    ahead.append(_start(readers, stages.read, job, accounts.find_completed))

            def settle() -> Result:
                future, shown = behind[0]
                result = future.result()
                if result.status is not FileStatus.DONE:
                    result = accounts.finalize(result)
                advance(1 - shown)
                # Not before: an interruption while waiting must not lose the file.
                behind.popleft()
                return replace(result, peak_rss_bytes=peak_rss_bytes())

            def write(made: UpscaledFile) -> Result:
                opened = made.frames.decoded

                def announce(sha256: str) -> None:
                    accounts.mark_pending(opened.job, opened.sha256, sha256)

                result = stages.write(made, announce)
                # At once: the next run must not have to find out.
                return accounts.finalize(result) if result.status is FileStatus.DONE else result

            def process(read: LoadedFile | Result) -> tuple[Future[Result], float]:
                """Run the network; return the result to be and what was shown of it."""
                if isinstance(read, Result):
                    return _start(None, lambda: read), 0.0
                if accounts.dry_run:
                    return _start(None, stages.dry_run_result, read), 0.0
                shown = 0.0

                def step(share: float) -> None:
                    nonlocal shown
                    shown += share
                    advance(share)

                made = stages.upscale(read, step)
                if isinstance(made, Result):
                    return _start(None, lambda: made), shown
                return _start(writers, write, made), shown

            try:
                look_ahead()
                while ahead and not stop():
                    reading = ahead.popleft()
                    if readers:
                        look_ahead()
                    behind.append(process(reading.result()))
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


def _start(
    pool: ThreadPoolExecutor | None, function: Callable[..., _T], *arguments: object
) -> Future[_T]:
    """Give work to a pool, or do it at once."""
    if pool:
        return pool.submit(function, *arguments)
    future: Future[_T] = Future()
    future.set_result(function(*arguments))
    return future
