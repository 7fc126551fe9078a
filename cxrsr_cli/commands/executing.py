"""Who does the work of a run: this process, or a cluster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from cxrsr_cli.batch.batch import Executor
from cxrsr_cli.cluster.address import Address
from cxrsr_cli.cluster.shipping import Shipping
from cxrsr_cli.restore.registry import Model
from cxrsr_cli.settings import Settings

if TYPE_CHECKING:
    from cxrsr_cli.upscale import Upscaler


@contextmanager
def executing(
    address: Address | None,
    model: Model,
    settings: Settings,
    *,
    overwrite: bool,
    clock: Callable[[], datetime],
    shipping: Shipping | None,
    io_workers: int,
) -> "Iterator[Upscaler | Executor]":
    """Load the model here, or join the cluster at an address, for the time of a run."""
    if address is None:
        yield settings.load(model, overwrite=overwrite, clock=clock)
        return
    from cxrsr_cli.cluster.joining import joined

    with joined(
        address,
        model,
        settings,
        overwrite=overwrite,
        clock=clock,
        shipping=shipping,
        io_workers=io_workers,
    ) as executor:
        yield executor
