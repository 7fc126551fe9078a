"""Batches drawn ahead, so that no device waits for the next one."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch

from cxrsr_cli.learn.config import Stage
from cxrsr_cli.learn.sampling import Batch, PatchSampler

AHEAD = 2
"""Batches; more would only smooth what already has to keep up on average."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A batch, and the sampler's state after it.

    Attributes
    ----------
    batch : Batch
        This process's share of it.
    generator : torch.Tensor
        State of the sampler's generator when only this batch and those before
        it had been drawn: what an exact resume goes on from.
    """

    batch: Batch
    generator: torch.Tensor


def draw_ahead(
    sampler: PatchSampler, stages: Iterable[Stage], *, ahead: int = AHEAD, pin: bool = False
) -> Generator[Drawn]:
    """Draw a batch for each stage, in a thread while the last one is used.

    One thread, and so one order: the batches do not depend on `ahead`. PyTorch
    does the work outside of Python's lock.

    Parameters
    ----------
    sampler : PatchSampler
        Used by the thread alone until this is exhausted or closed.
    stages : iterable of Stage
        One for each step.
    ahead : int
        Batches; 0 draws each when it is asked for, in the caller's thread.
    pin : bool
        Put them where a GPU copies them from without making the CPU wait.

    Yields
    ------
    Drawn
        In the order of `stages`.
    """

    def draw(stage: Stage) -> Drawn:
        batch = sampler.sample(stage.batch, stage.patch)
        return Drawn(batch.pinned() if pin else batch, sampler.generator.get_state())

    remaining = iter(stages)
    if not ahead:
        yield from map(draw, remaining)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="loader") as pool:
        waiting: deque[Future[Drawn]] = deque(
            pool.submit(draw, stage) for stage in islice(remaining, ahead)
        )
        try:
            while waiting:
                drawn = waiting.popleft().result()
                waiting.extend(pool.submit(draw, stage) for stage in islice(remaining, 1))
                yield drawn
        finally:
            for future in waiting:
                future.cancel()
