"""Batches drawn ahead, so that no device waits for the next one."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, starmap

import torch

from cxrsr_cli.training.config import StageConfig
from cxrsr_cli.training.patch_sampler import PatchBatch, PatchPlan, PatchSampler

AHEAD = 2
"""Batches, on a CPU, whose cores the network needs itself."""

AHEAD_OF_GPU = 8
"""Batches, and threads: a GPU is done with a small one in less time than it takes to make."""


@dataclass(frozen=True, slots=True)
class PrefetchedBatch:
    """A batch, and the sampler's state after it.

    Attributes
    ----------
    batch : Batch
        This process's share of it.
    generator : torch.Tensor
        State of the sampler's generator when only this batch and those before
        it had been drawn: what an exact resume goes on from.
    """

    batch: PatchBatch
    generator: torch.Tensor


def prefetch_batches(
    sampler: PatchSampler, stages: Iterable[StageConfig], *, ahead: int = AHEAD, pin: bool = False
) -> Generator[PrefetchedBatch]:
    """Draw a batch for each stage, in threads while the ones before are used.

    What is random is drawn in the caller's thread, in the order of the steps,
    so the batches do not depend on `ahead`. PyTorch works outside of Python's
    lock.

    Parameters
    ----------
    sampler : PatchSampler
        Used by this alone until it is exhausted or closed.
    stages : iterable of Stage
        One for each step.
    ahead : int
        Batches, and threads; 0 makes each when it is asked for.
    pin : bool
        Put them where a GPU copies them from without making the CPU wait.

    Yields
    ------
    Drawn
        In the order of `stages`.
    """

    def make(plan: PatchPlan, generator: torch.Tensor) -> PrefetchedBatch:
        batch = sampler.make(plan)
        return PrefetchedBatch(batch.pinned() if pin else batch, generator)

    planned = (
        (sampler.plan(stage.batch_size, stage.patch_size), sampler.generator.get_state())
        for stage in stages
    )
    if not ahead:
        yield from starmap(make, planned)
        return
    with ThreadPoolExecutor(ahead, thread_name_prefix="loader") as pool:
        waiting: deque[Future[PrefetchedBatch]] = deque(
            pool.submit(make, *each) for each in islice(planned, ahead)
        )
        try:
            while waiting:
                drawn = waiting.popleft().result()
                waiting.extend(pool.submit(make, *each) for each in islice(planned, 1))
                yield drawn
        finally:
            for future in waiting:
                future.cancel()
