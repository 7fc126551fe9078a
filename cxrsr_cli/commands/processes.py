"""Join the processes that torchrun started, as its environment variables say."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from cxrsr_cli.learn.processes import ProcessGroup


@contextmanager
def init_distributed(device: str) -> "Iterator[tuple[ProcessGroup, torch.device]]":
    """Join the group, if there is one, and choose this process's device.

    Parameters
    ----------
    device : str
        As `choose_device`. With several processes on GPUs each gets its own
        for ``auto`` and ``cuda``.

    Yields
    ------
    tuple
        This process's part, and where it computes.

    Raises
    ------
    DeviceError
        If the device is not there.
    """
    import torch
    import torch.distributed as dist

    from cxrsr_cli.learn.processes import ProcessGroup
    from cxrsr_cli.restore.device import choose_device

    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ProcessGroup(), choose_device(device)
        return
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    yield ProcessGroup(dist.get_rank(), count), chosen
    # Not after a failure: this process then ends at once, and torchrun the others.
    dist.destroy_process_group()
