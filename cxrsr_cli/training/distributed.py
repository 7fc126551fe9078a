"""A training's part in a group of processes that train one network together."""

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
    """Which of how many this process is.

    With more than one, the default process group must be there.

    Attributes
    ----------
    rank : int
        From 0; only 0 writes.
    count : int
        Of all.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def shard(self, total: int) -> slice:
        """Return which of `total` things are this process's.

        Raises
        ------
        ConfigError
            If they cannot be shared out evenly.
        """
        if total % self.count:
            raise ConfigError(
                f"stages: a batch of {total} cannot be shared by {self.count} processes"
            )
        size = total // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def wrap(self, network: nn.Module) -> nn.Module:
        """Make every backward pass average the gradients of all processes."""
        if self.count == 1:
            return network
        return DistributedDataParallel(network)

    def all_reduce_sum(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        if self.count == 1:
            return value
        summed = value.detach().clone()
        dist.all_reduce(summed)
        return summed

    def all_reduce_values(self, values: list[float], device: torch.device) -> list[float]:
        """Return each value's sum over all processes, by way of a device they share."""
        if self.count == 1:
            return values
        summed: list[float] = self.all_reduce_sum(
            torch.tensor(values, dtype=torch.float64, device=device)
        ).tolist()
        return summed


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
