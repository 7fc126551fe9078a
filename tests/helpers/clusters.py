"""Dask clusters of real processes, to run batches on."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from distributed import KilledWorker

from cxrsr_cli.batch.ledger import LEDGER_NAME, Ledger
from cxrsr_cli.batch.plan import plan_batch
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.result import Result
from cxrsr_cli.batch.runner import BatchRunner
from cxrsr_cli.cluster.address import ClusterAddress
from cxrsr_cli.cluster.connect import connected_cluster
from cxrsr_cli.cluster.envelope import VersionedPickle, pack, unpack
from cxrsr_cli.cluster.file_transfer import BytesTransfer, TransferMode
from cxrsr_cli.cluster.messages import WorkRequest, WorkResponse
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import UpscaleOptions
from tests.conftest import ROOT
from tests.helpers.waiting import HANG_SECONDS, wait_until

WHEN = datetime(2026, 11, 25, tzinfo=UTC)


@dataclass(frozen=True)
class Cluster:
    """A scheduler and workers that run.

    Attributes
    ----------
    file : Path
        The scheduler's.
    logs : list of Path
        What each process said.
    scheduler : subprocess.Popen
        The scheduler.
    """

    file: Path
    logs: list[Path]
    scheduler: "subprocess.Popen[bytes]"

    @property
    def address(self) -> ClusterAddress:
        """Return where it is."""
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


def run_on(
    address: ClusterAddress,
    weights: Path,
    sources: Path,
    out: Path,
    *,
    shipping: TransferMode = TransferMode.PATHS,
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
            clock=lambda: WHEN,
            transfer_mode=shipping,
            io_workers=2,
        ) as executor:
            set_apart = Quarantine(quarantine, out) if quarantine else None
            results = list(BatchRunner(executor, ledger, set_apart, dry_run=dry_run).run(jobs))
    finally:
        ledger.close()
    return sorted(results, key=lambda result: jobs.index(result.job))


class Pretended:
    """A client of Dask whose workers are the test; keeps nothing of what it is given.

    Parameters
    ----------
    answer : callable, optional
        Is given each errand, and gives an answer, or raises what became of it;
        nothing comes back if there is none.
    """

    status = "running"

    def __init__(self, answer: Callable[[WorkRequest], WorkResponse] | None = None) -> None:
        self.futures: list[Future[VersionedPickle]] = []
        self.sources: list[bytes] = []
        """Of the files that came as bytes, the hashes."""
        self._answer = answer

    def submit(
        self, _run: object, sealed: VersionedPickle, *, key: str
    ) -> "Future[VersionedPickle]":
        """Take an errand."""
        assert key.startswith("cxrsr-")
        errand, future = unpack(sealed), Future[VersionedPickle]()
        if isinstance(errand.parcel, BytesTransfer):
            self.sources.append(hashlib.sha256(errand.parcel.source).digest())
        self.futures.append(future)
        if self._answer:
            try:
                future.set_result(pack(self._answer(errand)))
            except KilledWorker as error:
                future.set_exception(error)
        return future

    def cancel(self, _futures: object, *, reason: str) -> None:
        """Forget what is under way; nothing is."""
        assert reason


def lacking(_: VersionedPickle) -> VersionedPickle:
    """Do what `run` does on a worker that lacks one of PyTorch's libraries."""
    raise OSError("libtorch_cpu.so: cannot open shared object file")
