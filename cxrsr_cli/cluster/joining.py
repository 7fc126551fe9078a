"""Join a cluster, or start one on this machine, for the time of a run."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster

from cxrsr_cli.cluster.address import Address
from cxrsr_cli.cluster.attendant import Orders
from cxrsr_cli.cluster.dispatch import Dispatcher, EndedError
from cxrsr_cli.cluster.errand import Errand, Introduced, Worked
from cxrsr_cli.cluster.executor import ClusterExecutor
from cxrsr_cli.cluster.shipping import Shipping
from cxrsr_cli.cluster.silence import quiet_dask
from cxrsr_cli.errors import NetworkError, WorkerDiedError
from cxrsr_cli.profile import Profile
from cxrsr_cli.restore.registry import Model
from cxrsr_cli.settings import Settings

_CONNECTING = 10
"""Seconds to wait for the scheduler."""
_GATHERING = 60
"""Seconds to wait for the first worker."""
_INTRODUCTION = 300
"""Seconds in which it must have loaded the model."""

_CONFIGURATION = {
    # Who dies on what is counted by the dispatcher; of a local scheduler only.
    "distributed.scheduler.allowed-failures": 0,
    # Else the last thousand messages to the scheduler, with their files, are kept.
    "distributed.admin.low-level-log-length": 0,
    # A file in a task is meant.
    "distributed.admin.large-graph-warning-threshold": "1TiB",
    # Else the source lines that submit a task are shown on dashboards.
    "distributed.diagnostics.computations.nframes": 0,
}


@contextmanager
def joined(
    address: Address,
    model: Model,
    settings: Settings,
    *,
    overwrite: bool,
    clock: Callable[[], datetime],
    shipping: Shipping | None = None,
    io_workers: int = 1,
) -> Iterator[ClusterExecutor]:
    """Join a cluster for the time of a run.

    Parameters
    ----------
    address : Address
        Where it is, or how many processes to start.
    model : Model
        The weights here; workers that have them not get them.
    settings : Settings
        How they are run.
    overwrite : bool
        Whether existing outputs are replaced.
    clock : callable
        Gives the time of derivation.
    shipping : Shipping, optional
        How files get to the workers; if not given, as bytes, but to processes
        of this machine by path.
    io_workers : int
        Files that this process reads at a time, and writes.

    Yields
    ------
    ClusterExecutor
        For a `Batch`.

    Raises
    ------
    NetworkError
        If there is no scheduler, or no worker.
    CxrsrError
        If the workers cannot do it: of another version, without the device.
    """
    threads = None
    if address.processes:
        threads = max(1, CPU_COUNT // address.processes)
        shipping = shipping or Shipping.PATHS
    with ExitStack() as stack:
        stack.enter_context(quiet_dask())
        stack.enter_context(dask.config.set(_CONFIGURATION))
        scheduler = address.scheduler or stack.enter_context(_local(address.processes))
        client = stack.enter_context(_client(scheduler))
        profile = _introduced(client, model, settings, clock)
        orders = Orders(
            model=model,
            settings=settings,
            profile=replace(profile, overwrite=overwrite),
            clock=clock,
            shipping=shipping or Shipping.BYTES,
            io_workers=io_workers,
            threads=threads,
        )
        yield ClusterExecutor(client, orders)


@contextmanager
def _local(processes: int) -> Iterator[str]:
    """Start worker processes; they end with this one, however it ends."""
    with tempfile.TemporaryDirectory(prefix="cxrsr-") as scratch:
        try:
            cluster = LocalCluster(
                n_workers=processes,
                threads_per_worker=2,  # one file in the network, another read or written
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
                local_directory=scratch,
                memory_limit=0,  # Dask would kill a worker that takes its share of the machine
                preload=["cxrsr_cli.cluster.preload"],
            )
        except (OSError, RuntimeError) as error:
            raise NetworkError("the local worker processes did not start") from error
        with cluster:
            yield str(cluster.scheduler_address)


@contextmanager
def _client(scheduler: str) -> Iterator[Client]:
    try:
        client = Client(scheduler, timeout=_CONNECTING, set_as_default=False, name="cxrsr")
    except (OSError, ValueError, TypeError) as error:
        raise NetworkError(
            f"no Dask scheduler that is spoken to so answers at {scheduler} within {_CONNECTING} s"
        ) from error
    try:
        try:
            client.wait_for_workers(1, timeout=_GATHERING)
        except TimeoutError:
            raise NetworkError(
                f"the scheduler at {scheduler} has no worker; none came within {_GATHERING} s"
            ) from None
        yield client
    finally:
        client.close(timeout=_CONNECTING)


def _introduced(
    client: Client, model: Model, settings: Settings, clock: Callable[[], datetime]
) -> Profile:
    """Ask a worker what it would do; its answer binds all others."""
    dispatcher = Dispatcher(client)

    def make() -> Errand:
        return Errand(model=model, settings=settings, recipe=None, parcel=None, when=clock())

    def take(_: Errand, answer: Introduced | Worked) -> Profile:
        assert isinstance(answer, Introduced)  # noqa: S101
        return answer.profile

    try:
        return dispatcher.ask(make, take, patience=_INTRODUCTION)
    except WorkerDiedError:
        # No file is to blame: none was sent.
        raise NetworkError(
            "workers die while they load the model; do they have the memory for it?"
        ) from None
    except EndedError:
        raise dispatcher.failure or NetworkError("the cluster did not answer") from None
