"""Dask clusters of real processes to run batches on, and a client whose workers are the test."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distributed import KilledWorker

from cxrsr_cli.batch.ledger import LEDGER_NAME, Ledger
from cxrsr_cli.batch.plan import plan_batch
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.result import Result
from cxrsr_cli.batch.runner import BatchRunner
from cxrsr_cli.cluster.address import ClusterAddress
from cxrsr_cli.cluster.connect import connected_cluster
from cxrsr_cli.cluster.envelope import VersionedPickle, pack, unpack
from cxrsr_cli.cluster.executor import ClusterExecutor
from cxrsr_cli.cluster.file_transfer import TransferMode
from cxrsr_cli.cluster.messages import WorkRequest, WorkResponse
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import ROOT
from tests.helpers.waiting import HANG_SECONDS, wait_until

DERIVED_AT = datetime(2026, 11, 25, tzinfo=UTC)


@dataclass(frozen=True)
class Cluster:
    """A scheduler and workers that run.

    Attributes
    ----------
    file : Path
        The scheduler file.
    logs : list of Path
        Standard output and error of each process.
    scheduler : subprocess.Popen
        The scheduler.
    """

    file: Path
    logs: list[Path]
    scheduler: "subprocess.Popen[bytes]"

    @property
    def address(self) -> ClusterAddress:
        """Return the scheduler's address."""
        return ClusterAddress.parse(str(self.file))


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """Start a scheduler and workers of one process each, as an administrator would."""
    file = folder / "scheduler.json"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        "DASK_TEMPORARY_DIRECTORY": str(folder),
    }
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    lines = [["scheduler", "--host", "127.0.0.1", "--port", "0", *common]]
    lines += [["worker", *common, "--nthreads", "2", "--preload", "tests.helpers.cluster_workers"]]
    lines[1] += ["--nworkers", str(workers), "--host", "127.0.0.1", "--memory-limit", "0"]
    processes, logs = [], []
    with ExitStack() as stack:
        for line in lines:
            logs.append(folder / f"{line[0]}.log")
            log = stack.enter_context(logs[-1].open("wb"))
            command = [sys.executable, "-m", "dask", *line]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            stack.callback(_end, process)
            processes.append(process)
            wait_until(lambda: file.exists() and bool(file.read_text()), f"{file} is written")
        yield Cluster(file, logs, processes[0])


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(HANG_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(HANG_SECONDS)


def run_on_cluster(
    address: ClusterAddress,
    weights: Path,
    sources: Path,
    out: Path,
    *,
    transfer_mode: TransferMode = TransferMode.PATHS,
    quarantine: Path | None = None,
    dry_run: bool = False,
) -> list[Result]:
    """Run with the ledger in the output folder, as the command does; in the plan's order."""
    ledger, model = Ledger(out / LEDGER_NAME, read_only=dry_run), find_model(str(weights), 2)
    jobs = plan_batch([sources], out).jobs
    try:
        with connected_cluster(
            address,
            model,
            UpscaleOptions(device="cpu"),
            clock=lambda: DERIVED_AT,
            transfer_mode=transfer_mode,
            io_workers=2,
        ) as executor:
            copies = Quarantine(quarantine, out) if quarantine else None
            results = list(BatchRunner(executor, ledger, copies, dry_run=dry_run).run(jobs))
    finally:
        ledger.close()
    return sorted(results, key=lambda result: jobs.index(result.job))


class FakeFuture(Future[Any]):
    """A future as Dask's: it has a status, and no exception if it is cancelled."""

    @property
    def status(self) -> str:
        """Return a word of Dask."""
        if self.cancelled():
            return "cancelled"
        return "pending" if not self.done() else "error" if self.exception() else "finished"

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait, and return what the task raised."""
        try:
            return super().exception(timeout)
        except CancelledError:
            return None


class FakeClient:
    """A client of Dask with one worker, which is the test; it keeps nothing of a request.

    Parameters
    ----------
    respond : callable, optional
        Is given each request, and returns a response or raises what the task raises. Without it
        no response comes.
    """

    def __init__(self, respond: Callable[[WorkRequest], WorkResponse] | None = None) -> None:
        self.futures: list[FakeFuture] = []
        self.sources: list[bytes] = []
        """SHA-256 of the files that came as bytes."""
        self._respond = respond

    def submit(
        self, _function: object, packed: VersionedPickle, _weights: object, *, pure: bool
    ) -> FakeFuture:
        """Take a request."""
        assert not pure
        request, future = unpack(packed), FakeFuture()
        if request.transfer and isinstance(request.transfer.source, bytes):
            self.sources.append(hashlib.sha256(request.transfer.source).digest())
        self.futures.append(future)
        if self._respond:
            try:
                future.set_result(pack(self._respond(request)))
            except KilledWorker as error:
                future.set_exception(error)
        return future

    def cancel(self, futures: list[FakeFuture], *, reason: str) -> None:
        """Cancel tasks."""
        assert reason
        for future in futures:
            future.cancel()

    def nthreads(self, *, callback_timeout: float) -> dict[str, int]:
        """Return the threads of each worker."""
        assert callback_timeout
        return {"tcp://127.0.0.1:1": 2}


def fake_executor(client: FakeClient, upscaler: Upscaler, io_workers: int = 1) -> ClusterExecutor:
    """Return an executor that sends bytes to a test's workers."""
    return ClusterExecutor(
        client=client,  # type: ignore[arg-type]
        weights=FakeFuture(),  # type: ignore[arg-type]
        request=WorkRequest(
            model=upscaler.model, options=UpscaleOptions(device="cpu"), derived_at=DERIVED_AT
        ),
        parameters=upscaler.parameters,
        clock=lambda: DERIVED_AT,
        transfer_mode=TransferMode.BYTES,
        io_workers=io_workers,
    )


def killed_worker() -> KilledWorker:
    """Return what Dask raises for a task whose worker died."""
    return KilledWorker("task", None, 0)  # type: ignore[arg-type]


def raise_os_error(_packed: VersionedPickle, _weights: bytes) -> VersionedPickle:
    """Do what a worker does that lacks one of PyTorch's libraries."""
    raise OSError("libtorch_cpu.so: cannot open shared object file")
