"""The group of processes that train one network together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cxrsr_cli.errors import ConfigError
from cxrsr_cli.inference.device import choose_device


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The rank of this process and the number of all processes.

    With more than one process, PyTorch's default process group must be
    initialised.

    Attributes
    ----------
    rank : int
        From 0. Only process 0 writes files and messages.
    world_size : int
        Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def shard(self, total: int) -> slice:
        """Return this process's share of `total` items.

        Raises
        ------
        ConfigError
            If `total` is not a multiple of the number of processes.
        """
        if total % self.world_size:
            raise ConfigError(
                f"stages: batch_size {total} is not a multiple of {self.world_size} processes"
            )
        size = total // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network with gradients that are averaged over all processes."""
        if self.world_size == 1:
            return network
        return DistributedDataParallel(network)

    def all_reduce_sum(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        if self.world_size == 1:
            return value
        summed = value.detach().clone()
        dist.all_reduce(summed)
        return summed

    def all_reduce_values(self, values: list[float], device: torch.device) -> list[float]:
        """Return the sum of each value over all processes; they are exchanged on `device`."""
        if self.world_size == 1:
            return values
        summed: list[float] = self.all_reduce_sum(
            torch.tensor(values, dtype=torch.float64, device=device)
        ).tolist()
        return summed


@contextmanager
def init_distributed(device: str) -> Iterator[tuple[ProcessGroup, torch.device]]:
    """Join the process group, if torchrun started one, and choose the device.

    Parameters
    ----------
    device : str
        As for `choose_device`. With several processes, ``auto`` and ``cuda``
        give each process its own GPU.

    Yields
    ------
    tuple of ProcessGroup and torch.device
        The group, and the device of this process.

    Raises
    ------
    DeviceError
        If the device does not exist.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield ProcessGroup(), choose_device(device)
        return
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    yield ProcessGroup(dist.get_rank(), world_size), chosen
    # Not in a finally: after an error this process ends at once, and torchrun ends the others.
    dist.destroy_process_group()
