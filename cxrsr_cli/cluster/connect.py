"""Connect to a cluster for one run, or start one here; its workers get the weights."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime

import dask
from dask.system import CPU_COUNT
from distributed import Client, Future, KilledWorker, LocalCluster

from cxrsr_cli.cluster.address import ClusterAddress
from cxrsr_cli.cluster.dispatcher import Dispatcher
from cxrsr_cli.cluster.executor import ClusterExecutor
from cxrsr_cli.cluster.file_transfer import TransferMode
from cxrsr_cli.cluster.messages import WorkRequest
from cxrsr_cli.common.files import scratch_folder
from cxrsr_cli.common.quiet_libraries import quiet_dask
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.errors import ModelError, NetworkError
from cxrsr_cli.networks.model_files import ModelFile
from cxrsr_cli.options import UpscaleOptions

_CONNECT_TIMEOUT = 10
"""Seconds to wait for the scheduler."""
_WORKERS_TIMEOUT = 60
"""Seconds to wait for the first worker."""
_HANDSHAKE_TIMEOUT = 300
"""Seconds in which the first worker must load the model."""
_MAX_HANDSHAKES = 3
"""Handshakes after which workers that die are no accident."""

_DASK_SETTINGS = {
    # Of a local scheduler: the executor counts the crashes.
    "distributed.scheduler.allowed-failures": 0,
    # By default Dask keeps the last thousand messages to the scheduler, with the files in them.
    "distributed.admin.low-level-log-length": 0,
    # Tasks hold files on purpose.
    "distributed.admin.large-graph-warning-threshold": "1TiB",
    # By default dashboards show the source lines that submit a task.
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
    """Connect to a cluster for one run.

    Parameters
    ----------
    address : ClusterAddress
        Its scheduler, or how many processes to start.
    model, options, clock
        As `Upscaler.load` takes them.
    transfer_mode : TransferMode, optional
        How files get to the workers. By default as bytes, but by path to local processes.
    io_workers : int
        Files that this process reads at a time, and writes.

    Yields
    ------
    ClusterExecutor
        For a `BatchRunner`.

    Raises
    ------
    NetworkError
        If no scheduler answers, or there is no worker.
    ModelError
        If the weights cannot be read.
    CxrsrError
        If the workers cannot do the work: another version, no such device.
    """
    threads = None
    if address.processes:
        threads = max(1, CPU_COUNT // address.processes)
        transfer_mode = transfer_mode or TransferMode.PATHS
    request = WorkRequest(model=model, options=options, derived_at=clock(), threads=threads)
    with ExitStack() as stack:
        stack.enter_context(quiet_dask())
        stack.enter_context(dask.config.set(_DASK_SETTINGS))
        scheduler = address.scheduler or stack.enter_context(_local_cluster(address.processes))
        client = stack.enter_context(_connected_client(scheduler))
        weights = _submit_weights(client, model)
        parameters = _handshake(client, weights, request)
        resolved = replace(parameters.options, overwrite=options.overwrite)
        parameters = replace(parameters, options=resolved)
        yield ClusterExecutor(
            client=client,
            weights=weights,
            request=replace(request, parameters=parameters),
            parameters=parameters,
            clock=clock,
            transfer_mode=transfer_mode or TransferMode.BYTES,
            io_workers=io_workers,
        )


@contextmanager
def _local_cluster(processes: int) -> Iterator[str]:
    """Start worker processes; they end with this process, however it ends."""
    with scratch_folder("cluster") as scratch:
        try:
            cluster = LocalCluster(
                n_workers=processes,
                threads_per_worker=2,  # one file in the network, another is read or written
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
                local_directory=str(scratch),
                memory_limit=0,  # Dask would kill a worker that exceeds its share of the memory
                preload=["cxrsr_cli.cluster.dask_preload"],
            )
        except (OSError, RuntimeError) as error:
            raise NetworkError("the local worker processes did not start") from error
        with cluster:
            yield str(cluster.scheduler_address)


@contextmanager
def _connected_client(scheduler: str) -> Iterator[Client]:
    try:
        client = Client(scheduler, timeout=_CONNECT_TIMEOUT, set_as_default=False, name="cxrsr")
    except (OSError, ValueError, TypeError) as error:
        raise NetworkError(
            f"no Dask scheduler answered at {scheduler} within {_CONNECT_TIMEOUT} s "
            "(check address and tls:// or tcp://)"
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


def _submit_weights(client: Client, model: ModelFile) -> Future[bytes]:
    """Submit a task that returns the weights; all others depend on it.

    Dask copies its result once to each worker, also to one that joins later, runs it again if
    all copies are lost, and forgets it when the client ends, however it ends. Scattered data
    would be lost with a worker; a plugin or an uploaded file would outlive a killed client.
    """
    try:
        return client.submit(bytes, model.path.read_bytes(), pure=False)
    except OSError as error:
        raise ModelError(f"cannot read the weights to send them: {error.strerror}") from None


def _handshake(
    client: Client, weights: Future[bytes], request: WorkRequest
) -> DerivationParameters:
    """Ask a worker what it would do; all others must do the same."""
    dispatcher = Dispatcher(client, weights)
    try:
        for _ in range(_MAX_HANDSHAKES):
            with suppress(KilledWorker):
                future = dispatcher.submit(request)
                dispatcher.wait(future, _HANDSHAKE_TIMEOUT)
                response = dispatcher.receive(future)
                assert isinstance(response, DerivationParameters)  # noqa: S101
                return response
    except CancelledError:
        raise dispatcher.failure or NetworkError("the cluster did not answer") from None
    # No file was sent that could be the reason.
    raise NetworkError("workers die while they load the model; do they have enough memory for it?")
