"""What a method costs: counted where it can be, measured where it cannot."""

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

_PROBE = 64
_C = ctypes.CDLL(None)
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""Sets the peak resident size to the present one (Linux, proc(5))."""


@dataclass(frozen=True, slots=True)
class NetworkComplexity:
    """What the network is; none of it depends on the machine.

    Attributes
    ----------
    parameters : int
        Trained numbers.
    macs : float
        Multiply-accumulates of the network, as it was trained, per pixel of its
        input. Those beyond the image's border, resampling and projection do not count.
    """

    parameters: int = 0
    macs: float = 0.0

    @classmethod
    def of(cls, restorer: Predictor, *, ensemble: bool = False) -> "NetworkComplexity":
        """Count, by running the network once on a small image."""
        passes = NUM_TRANSFORMS if ensemble else 1
        parameters = sum(parameter.numel() for parameter in restorer.network.parameters())
        return cls(parameters, passes * count_macs(restorer.network, restorer.device) / _PROBE**2)


def count_macs(network: nn.Module, device: torch.device) -> int:
    """Count the multiply-accumulates of one pass over a 64x64 image.

    Parameters
    ----------
    network : torch.nn.Module
        Maps ``(1, 1, H, W)`` float32 to a larger image.
    device : torch.device
        Where it is.

    Returns
    -------
    int
        Half the operations that PyTorch's own counter sees: of convolutions,
        matrix products and attention. Additions, activations and the like,
        which are few, are not seen.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, _PROBE, _PROBE, device=device))
    return int(counter.get_total_flops()) // 2


@dataclass(slots=True)
class ResourceUsage:
    """Time and memory of a piece of work.

    Attributes
    ----------
    seconds : float
        Wall time.
    peak_bytes : int or None
        On a CUDA device the most that tensors held on it, weights included.
        Elsewhere by how much the resident memory of the process rose above
        where it stood when the work began, after what was free had been given
        back; weights are not in it. None where the system does not tell.
    """

    seconds: float = 0.0
    peak_bytes: int | None = None

    def combined_with(self, later: "ResourceUsage") -> "ResourceUsage":
        """Add work that was done after this."""
        peaks = [peak for peak in (self.peak_bytes, later.peak_bytes) if peak is not None]
        return ResourceUsage(self.seconds + later.seconds, max(peaks, default=None))


@contextmanager
def measure_usage(device: torch.device) -> Iterator[ResourceUsage]:
    """Measure the block; the usage is filled in when it ends."""
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
    if hasattr(_C, "malloc_trim"):  # glibc: else what it keeps for reuse would hide new use
        _C.malloc_trim(0)
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
        return _resident("VmRSS")
    except (OSError, StopIteration):
        return None


def _resident(field: str) -> int:
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
