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

from cxrsr_cli.cluster.address import ClusterAddress
from cxrsr_cli.cluster.client import ClusterRunConfig
from cxrsr_cli.cluster.dispatcher import Dispatcher, RunCancelledError
from cxrsr_cli.cluster.executor import ClusterExecutor
from cxrsr_cli.cluster.file_transfer import TransferMode
from cxrsr_cli.cluster.messages import FileResponse, ProfileResponse, WorkRequest
from cxrsr_cli.common.quiet_libraries import quiet_dask
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.errors import NetworkError, WorkerCrashedError
from cxrsr_cli.networks.model_files import ModelFile
from cxrsr_cli.options import UpscaleOptions

_CONNECT_TIMEOUT = 10
"""Seconds to wait for the scheduler."""
_WORKERS_TIMEOUT = 60
"""Seconds to wait for the first worker."""
_HANDSHAKE_TIMEOUT = 300
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
def connected_cluster(
    address: ClusterAddress,
    model: ModelFile,
    options: UpscaleOptions,
    *,
    clock: Callable[[], datetime],
    transfer_mode: TransferMode | None = None,
    io_workers: int = 1,
) -> Iterator[ClusterExecutor]:
    """Join a cluster for the time of a run.

    Parameters
    ----------
    address : Address
        Where it is, or how many processes to start.
    model : Model
        The weights here; workers that have them not get them.
    options : UpscaleOptions
        How they are run.
    clock : callable
        Gives the time of derivation.
    transfer_mode : TransferMode, optional
        How files get to the workers; if not given, as bytes, but to processes
        of this machine by path.
    io_workers : int
        Files that this process reads at a time, and writes.

    Yields
    ------
    ClusterExecutor
        For a `BatchRunner`.

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
        transfer_mode = transfer_mode or TransferMode.PATHS
    with ExitStack() as stack:
        stack.enter_context(quiet_dask())
        stack.enter_context(dask.config.set(_CONFIGURATION))
        scheduler = address.scheduler or stack.enter_context(_local(address.processes))
        client = stack.enter_context(_client(scheduler))
        parameters = _handshake(client, model, options, clock)
        orders = ClusterRunConfig(
            model=model,
            options=options,
            parameters=replace(
                parameters, options=replace(parameters.options, overwrite=options.overwrite)
            ),
            clock=clock,
            transfer_mode=transfer_mode or TransferMode.BYTES,
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
                preload=["cxrsr_cli.cluster.dask_preload"],
            )
        except (OSError, RuntimeError) as error:
            raise NetworkError("the local worker processes did not start") from error
        with cluster:
            yield str(cluster.scheduler_address)


@contextmanager
def _client(scheduler: str) -> Iterator[Client]:
    try:
        client = Client(scheduler, timeout=_CONNECT_TIMEOUT, set_as_default=False, name="cxrsr")
    except (OSError, ValueError, TypeError) as error:
        raise NetworkError(
            f"no Dask scheduler answers at {scheduler} within {_CONNECT_TIMEOUT} s"
        ) from error
    try:
        try:
            client.wait_for_workers(1, timeout=_WORKERS_TIMEOUT)
        except TimeoutError:
            raise NetworkError(
                f"the scheduler at {scheduler} has no worker; none came within {_WORKERS_TIMEOUT} s"
            ) from None
        yield client
    finally:
        client.close(timeout=_CONNECT_TIMEOUT)


def _handshake(
    client: Client, model: ModelFile, options: UpscaleOptions, clock: Callable[[], datetime]
) -> DerivationParameters:
    """Ask a worker what it would do; its answer binds all others."""
    dispatcher = Dispatcher(client)

    def make() -> WorkRequest:
        return WorkRequest(
            model=model, options=options, parameters=None, transfer=None, derived_at=clock()
        )

    def take(_: WorkRequest, answer: ProfileResponse | FileResponse) -> DerivationParameters:
        assert isinstance(answer, ProfileResponse)  # noqa: S101
        return answer.parameters

    try:
        return dispatcher.submit_and_wait(make, take, patience=_HANDSHAKE_TIMEOUT)
    except WorkerCrashedError:
        # No file is to blame: none was sent.
        raise NetworkError(
            "workers die while they load the model; do they have the memory for it?"
        ) from None
    except RunCancelledError:
        raise dispatcher.failure or NetworkError("the cluster did not answer") from None
