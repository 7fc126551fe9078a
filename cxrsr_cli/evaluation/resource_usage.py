"""Complexity, time and memory of a method."""

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.inference.self_ensemble import NUM_TRANSFORMS

_PROBE_SIDE = 64
_LIBC = ctypes.CDLL(None)
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""Resets the peak resident size to the current one (Linux, proc(5))."""


@dataclass(frozen=True, slots=True)
class MethodComplexity:
    """Size and work of a method, which do not depend on the machine.

    Attributes
    ----------
    parameters : int
        Number of trained parameters.
    macs : float
        Multiply-accumulate operations of the network as trained, per pixel of
        its input, without those outside of the image, resampling, agreement and projection.
    """

    parameters: int = 0
    macs: float = 0.0

    @classmethod
    def of(cls, predictor: Predictor, *, ensemble: bool = False) -> "MethodComplexity":
        """Count by running the network once on a small image."""
        passes = NUM_TRANSFORMS if ensemble else 1
        parameters = sum(parameter.numel() for parameter in predictor.network.parameters())
        return cls(
            parameters, passes * count_macs(predictor.network, predictor.device) / _PROBE_SIDE**2
        )


def count_macs(network: nn.Module, device: torch.device) -> int:
    """Count the multiply-accumulate operations of one pass over a 64x64 image.

    Parameters
    ----------
    network : torch.nn.Module
        Maps ``(1, 1, H, W)`` float32 to a larger image.
    device : torch.device
        Device of the network.

    Returns
    -------
    int
        Half the operations that PyTorch's counter finds: those of convolutions,
        matrix products and attention. It does not count additions, activations
        and similar operations, which are few.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, _PROBE_SIDE, _PROBE_SIDE, device=device))
    return int(counter.get_total_flops()) // 2


@dataclass(slots=True)
class ResourceUsage:
    """Time and memory of a computation.

    Attributes
    ----------
    seconds : float
        Wall time.
    peak_bytes : int or None
        On a CUDA device the largest size of all tensors, including the weights.
        On other devices the largest increase of the resident memory of the
        process since the start, without the weights; memory that was free has
        been returned to the system before. None where the system does not
        report it.
    """

    seconds: float = 0.0
    peak_bytes: int | None = None


@contextmanager
def measure_usage(device: torch.device) -> Iterator[ResourceUsage]:
    """Measure the block; the usage is complete when the block ends."""
    usage = ResourceUsage()
    cuda = device.type == "cuda"
    before: int | None = None
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        before = _reset_resident_peak()
    start = time.perf_counter()
    yield usage
    usage.seconds = time.perf_counter() - start
    if cuda:
        usage.peak_bytes = torch.cuda.max_memory_allocated(device)
    elif before is not None:
        usage.peak_bytes = max(_resident("VmHWM") - before, 0)


def _reset_resident_peak() -> int | None:
    if hasattr(_LIBC, "malloc_trim"):  # glibc keeps freed memory, which would hide new use
        _LIBC.malloc_trim(0)
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
        return _resident("VmRSS")
    except (OSError, StopIteration):
        return None


def _resident(field: str) -> int:
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
