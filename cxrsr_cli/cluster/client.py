"""Who attends to a file on its way through a cluster, in a thread of the client."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from threading import BoundedSemaphore

from cxrsr_cli.batch.records import RunRecords
from cxrsr_cli.batch.result import Result, Timing, failed_result, to_reportable_error
from cxrsr_cli.cluster.dispatcher import Dispatcher, RunCancelledError
from cxrsr_cli.cluster.file_transfer import TransferMode, prepare_transfer
from cxrsr_cli.cluster.messages import FileResponse, ProfileResponse, WorkRequest
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.write import check_target
from cxrsr_cli.errors import CxrsrError
from cxrsr_cli.networks.model_files import ModelFile
from cxrsr_cli.options import Job, UpscaleOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRunConfig:
    """What workers are asked to do with every file.

    Attributes
    ----------
    model : Model
        The weights here.
    options : UpscaleOptions
        How they are run.
    parameters : DerivationParameters
        What the workers do with them, as the first of them said.
    clock : callable
        Gives the time of derivation.
    shipping : Shipping
        How files get to the workers.
    io_workers : int
        Files that this process reads at a time, and writes.
    threads : int or None
        Of a worker's network; as many as Dask gave it, if None.
    """

    model: ModelFile
    options: UpscaleOptions
    parameters: DerivationParameters
    clock: Callable[[], datetime]
    transfer_mode: TransferMode
    io_workers: int = 1
    threads: int | None = None


class ClientWorker:
    """Sees files through: known already, packed, done by a worker, delivered, recorded.

    Parameters
    ----------
    orders : Orders
        What the workers are asked to do.
    accounts : Accounts
        Of the run.
    dispatcher : Dispatcher
        Brings answers.
    """

    def __init__(
        self, orders: ClusterRunConfig, accounts: RunRecords, dispatcher: Dispatcher
    ) -> None:
        self._orders = orders
        self._accounts = accounts
        self._dispatcher = dispatcher
        self._reading = BoundedSemaphore(max(1, orders.io_workers))

    def run(self, job: Job) -> Result | None:
        """Return the result of a job; None if the run ended before."""
        orders, started = self._orders, time.monotonic()
        when = orders.clock()

        def make() -> WorkRequest:
            with self._reading:
                self._dispatcher.check()
                return WorkRequest(
                    model=orders.model,
                    options=orders.options,
                    parameters=orders.parameters,
                    transfer=prepare_transfer(job, orders.transfer_mode),
                    derived_at=when,
                    dry_run=self._accounts.dry_run,
                    threads=orders.threads,
                )

        def take(errand: WorkRequest, answer: ProfileResponse | FileResponse) -> Result:
            assert isinstance(answer, FileResponse)  # noqa: S101
            return self._delivered(job, errand, answer)

        try:
            with self._reading:
                # Who waited may have waited for the end.
                self._dispatcher.check()
                known = self._accounts.find_completed(job)
            if known:
                return replace(known, timing=Timing(read=time.monotonic() - started))
            if job.error:
                raise job.error
            check_target(job.source, job.target, overwrite=orders.options.overwrite)
            return self._dispatcher.submit_and_wait(make, take)
        except RunCancelledError:
            return None
        except Exception as error:
            return failed_result(job, error, Timing(read=time.monotonic() - started))

    def _delivered(self, job: Job, errand: WorkRequest, answer: FileResponse) -> Result:
        result = replace(answer.result, job=job, error=_localize_paths(answer.result, job))
        sha256, source = result.output_sha256, result.source_sha256
        if not (errand.transfer and sha256 and source):
            return result
        try:
            errand.transfer.save_output(
                job.target,
                answer.content,
                sha256,
                lambda _: self._accounts.mark_pending(job, source, sha256),
                overwrite=self._orders.options.overwrite,
            )
        except Exception as error:
            return replace(
                failed_result(job, error, result.timing),
                warnings=result.warnings,
                input_shape=result.input_shape,
                source_sha256=source,
            )
        return self._accounts.finalize(result)


def _localize_paths(result: Result, job: Job) -> CxrsrError | None:
    """Name files in an error as this process does."""
    error, seen = result.error, result.job
    if error is None or not seen.target.name:
        return error
    text = str(error)
    for theirs, ours in (
        (seen.target, job.target),
        (seen.source, job.source),
        (seen.target.parent, job.target.parent),
    ):
        text = text.replace(str(theirs), str(ours))
    return to_reportable_error(type(error)(text))
