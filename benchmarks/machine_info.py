"""Where and when something was measured."""

import platform
from datetime import datetime
from pathlib import Path

import torch


def machine(device: torch.device) -> str:
    """Say where and when this is measured, in one sentence."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return (
        f"{where}, {torch.get_num_threads()} threads, {datetime.now().astimezone().date()}, "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}."
    )


def processor() -> str:
    """Name the CPU as the system does."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
