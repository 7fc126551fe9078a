"""The device and the arithmetic of a network."""

import torch

from cxrsr_cli.errors import DeviceError
from cxrsr_cli.networks.config import Precision

_DTYPES = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}


def choose_device(name: str) -> torch.device:
    """Resolve ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises
    ------
    DeviceError
        If the name is none of these, or this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and (kind != "cuda" or not index.isdigit())):
        raise DeviceError(f"no device '{name}'; use auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"no device '{name}': this machine has {torch.cuda.device_count()} GPUs")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("no device 'mps' on this machine")
    return torch.device(name)


def choose_precision(precision: Precision, device: torch.device) -> Precision:
    """Resolve `Precision.AUTO`, and check that the device supports the precision.

    ``auto`` is float32 everywhere, because half precision changes stored values.

    Raises
    ------
    DeviceError
        For fp16 on a CPU, where PyTorch's convolutions are slow and inexact.
    """
    if precision is Precision.AUTO:
        return Precision.FP32
    if precision is Precision.FP16 and device.type == "cpu":
        raise DeviceError("fp16 needs a GPU; use fp32 or bf16 on a CPU")
    return precision


def dtype_of(precision: Precision) -> torch.dtype:
    """Return the PyTorch type of a resolved precision."""
    return _DTYPES[precision]
