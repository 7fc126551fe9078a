"""Time a call, a method wherever it is called, and the stages of a job."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar
from unittest.mock import patch

from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler

_P = ParamSpec("_P")
_T = TypeVar("_T")


def clock(task: Callable[_P, _T], *arguments: _P.args, **options: _P.kwargs) -> tuple[_T, float]:
    """Return what a call returns, and the seconds that it took."""
    start = time.perf_counter()
    result = task(*arguments, **options)
    return result, time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds of the stages of one job, from decoding to the renamed file."""

    read: float
    network: float
    assembly: float
    rest: float
    write: float

    @classmethod
    def of(cls, upscaler: Upscaler, job: Job) -> "Budget":
        """Measure one job."""
        start = time.perf_counter()
        opened = upscaler.read(job)
        read = time.perf_counter()
        with (
            timed("cxrsr_cli.inference.streaming._StreamState.advance") as network,
            timed("cxrsr_cli.inference.assemble.OutputAssembler._strip") as assembly,
        ):
            restored = upscaler.upscale(opened)
        made = time.perf_counter()
        upscaler.write(restored)
        end = time.perf_counter()
        rest = made - read - sum(network) - sum(assembly)
        return cls(read - start, sum(network), sum(assembly), rest, end - made)

    @property
    def parts(self) -> tuple[float, ...]:
        """All of them, in the order of the work."""
        return (self.read, self.network, self.assembly, self.rest, self.write)

    @property
    def total(self) -> float:
        """End to end."""
        return sum(self.parts)


@contextmanager
def timed(target: str) -> Iterator[list[float]]:
    """Time every call of a method."""
    taken = list[float]()
    module, owner, name = target.rsplit(".", 2)
    real = getattr(getattr(sys.modules[module], owner), name)

    def timing(*arguments: object, **options: object) -> object:
        start = time.perf_counter()
        try:
            return real(*arguments, **options)
        finally:
            taken.append(time.perf_counter() - start)

    with patch(target, timing):
        yield taken
