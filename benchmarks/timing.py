"""Time a call, a method wherever it is called, and the stages of a job."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar
from unittest.mock import patch

import torch

from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler

_P = ParamSpec("_P")
_T = TypeVar("_T")
_CPU = torch.device("cpu")


def clock(task: Callable[_P, _T], *arguments: _P.args, **options: _P.kwargs) -> tuple[_T, float]:
    """Return what a call returns, and the seconds that it took."""
    start = time.perf_counter()
    result = task(*arguments, **options)
    return result, time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done all that was started on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds of the stages of one job, from decoding to the renamed file.

    `read_back` is a part of `write`: reading the written file, and comparing its pixels.
    """

    read: float
    network: float
    assembly: float
    rest: float
    write: float
    read_back: float

    @classmethod
    def of(cls, upscaler: Upscaler, job: Job) -> "Budget":
        """Measure one job."""
        device = upscaler.predictor.device
        start = time.perf_counter()
        opened = upscaler.read(job)
        read = time.perf_counter()
        with (
            timed("cxrsr_cli.inference.streaming._StreamState.advance", device) as network,
            timed("cxrsr_cli.inference.assemble.OutputAssembler._strip", device) as assembly,
        ):
            restored = upscaler.upscale(opened)
        made = time.perf_counter()
        with timed("cxrsr_cli.dicom.write.verify_written_file") as read_back:
            upscaler.write(restored)
        end = time.perf_counter()
        rest = made - read - sum(network) - sum(assembly)
        return cls(read - start, sum(network), sum(assembly), rest, end - made, sum(read_back))

    @property
    def parts(self) -> tuple[float, ...]:
        """All that add up to the total, in the order of the work."""
        return (self.read, self.network, self.assembly, self.rest, self.write)

    @property
    def total(self) -> float:
        """End to end."""
        return sum(self.parts)


@contextmanager
def timed(target: str, device: torch.device = _CPU) -> Iterator[list[float]]:
    """Time every call of a method or function, with the work that it starts on a device."""
    taken = list[float]()
    module, owner, name = target.rsplit(".", 2)
    real = getattr(getattr(sys.modules[module], owner), name)

    def timing(*arguments: object, **options: object) -> object:
        start = time.perf_counter()
        try:
            return real(*arguments, **options)
        finally:
            synchronize(device)
            taken.append(time.perf_counter() - start)

    with patch(target, timing):
        yield taken
