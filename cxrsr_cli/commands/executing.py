"""Who does the work of a run: this process, or a cluster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from cxrsr_cli.batch.batch import Executor
from cxrsr_cli.cluster.address import ClusterAddress
from cxrsr_cli.cluster.shipping import TransferMode
from cxrsr_cli.restore.registry import ModelFile
from cxrsr_cli.settings import UpscaleOptions

if TYPE_CHECKING:
    from cxrsr_cli.upscale import Upscaler


@contextmanager
def make_executor(
    address: ClusterAddress | None,
    model: ModelFile,
    settings: UpscaleOptions,
    *,
    overwrite: bool,
    clock: Callable[[], datetime],
    shipping: TransferMode | None,
    io_workers: int,
) -> "Iterator[Upscaler | Executor]":
    """Load the model here, or join the cluster at an address, for the time of a run."""
    if address is None:
        yield settings.load(model, overwrite=overwrite, clock=clock)
        return
    from cxrsr_cli.cluster.joining import connected_cluster

    with connected_cluster(
        address,
        model,
        settings,
        overwrite=overwrite,
        clock=clock,
        shipping=shipping,
        io_workers=io_workers,
    ) as executor:
        yield executor
