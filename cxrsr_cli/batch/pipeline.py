"""The way of many files through this process: read ahead, network, written behind."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

from cxrsr_cli.batch.accounts import Accounts
from cxrsr_cli.batch.memory import peak_memory
from cxrsr_cli.batch.result import Result, Status
from cxrsr_cli.batch.stages import Made, Read, Stages
from cxrsr_cli.job import Job
from cxrsr_cli.profile import Profile
from cxrsr_cli.upscale import Upscaler

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Pipeline:
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
    def profile(self) -> Profile:
        """What is done to the files."""
        return self.upscaler.profile

    def results(
        self,
        jobs: Sequence[Job],
        accounts: Accounts,
        *,
        advance: Callable[[float], None],
        stop: Callable[[], bool],
    ) -> Generator[Result, None, None]:
        """Do every job in order, as `Batch.run`."""
        stages = Stages(self.upscaler)
        with self._pool() as readers, self._pool() as writers:
            waiting = iter(jobs)
            ahead: deque[Future[Read | Result]] = deque()
            behind: deque[tuple[Future[Result], float]] = deque()

            def look_ahead() -> None:
                while len(ahead) < max(1, self.io_workers) and not stop():
                    job = next(waiting, None)
                    if job is None:
                        return
                    ahead.append(_start(readers, stages.read, job, accounts.known))

            def settle() -> Result:
                future, shown = behind[0]
                result = future.result()
                if result.status is not Status.DONE:
                    result = accounts.settle(result)
                advance(1 - shown)
                # Not before: an interruption while waiting must not lose the file.
                behind.popleft()
                return replace(result, peak_memory=peak_memory())

            def write(made: Made) -> Result:
                opened = made.restored.opened

                def announce(sha256: str) -> None:
                    accounts.announce(opened.job, opened.sha256, sha256)

                result = stages.write(made, announce)
                # At once: the next run must not have to find out.
                return accounts.settle(result) if result.status is Status.DONE else result

            def process(read: Read | Result) -> tuple[Future[Result], float]:
                """Run the network; return the result to be and what was shown of it."""
                if isinstance(read, Result):
                    return _start(None, lambda: read), 0.0
                if accounts.dry_run:
                    return _start(None, stages.planned, read), 0.0
                shown = 0.0

                def step(share: float) -> None:
                    nonlocal shown
                    shown += share
                    advance(share)

                made = stages.restore(read, step)
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
