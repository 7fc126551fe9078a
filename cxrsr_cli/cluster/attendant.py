"""Who attends to a file on its way through a cluster, in a thread of the client."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from threading import BoundedSemaphore

from cxrsr_cli.batch.accounts import Accounts
from cxrsr_cli.batch.failure import as_failure
from cxrsr_cli.batch.result import Result, Timing, failed
from cxrsr_cli.cluster.dispatch import Dispatcher, EndedError
from cxrsr_cli.cluster.errand import Errand, Introduced, Worked
from cxrsr_cli.cluster.parcel import pack
from cxrsr_cli.cluster.shipping import Shipping
from cxrsr_cli.errors import CxrsrError
from cxrsr_cli.job import Job
from cxrsr_cli.profile import Profile
from cxrsr_cli.restore.registry import Model
from cxrsr_cli.settings import Settings
from cxrsr_cli.write.dicom import check_target


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What workers are asked to do with every file.

    Attributes
    ----------
    model : Model
        The weights here.
    settings : Settings
        How they are run.
    profile : Profile
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

    model: Model
    settings: Settings
    profile: Profile
    clock: Callable[[], datetime]
    shipping: Shipping
    io_workers: int = 1
    threads: int | None = None


class Attendant:
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

    def __init__(self, orders: Orders, accounts: Accounts, dispatcher: Dispatcher) -> None:
        self._orders = orders
        self._accounts = accounts
        self._dispatcher = dispatcher
        self._reading = BoundedSemaphore(max(1, orders.io_workers))

    def attend(self, job: Job) -> Result | None:
        """Return the result of a job; None if the run ended before."""
        orders, started = self._orders, time.monotonic()
        when = orders.clock()

        def make() -> Errand:
            with self._reading:
                self._dispatcher.check()
                return Errand(
                    model=orders.model,
                    settings=orders.settings,
                    recipe=orders.profile.recipe,
                    parcel=pack(job, orders.shipping),
                    when=when,
                    dry_run=self._accounts.dry_run,
                    threads=orders.threads,
                )

        def take(errand: Errand, answer: Introduced | Worked) -> Result:
            assert isinstance(answer, Worked)  # noqa: S101
            return self._delivered(job, errand, answer)

        try:
            with self._reading:
                # Who waited may have waited for the end.
                self._dispatcher.check()
                known = self._accounts.known(job)
            if known:
                return replace(known, timing=Timing(read=time.monotonic() - started))
            if job.refused:
                raise job.refused
            check_target(job.source, job.target, overwrite=orders.profile.overwrite)
            return self._dispatcher.ask(make, take)
        except EndedError:
            return None
        except Exception as error:
            return failed(job, error, Timing(read=time.monotonic() - started))

    def _delivered(self, job: Job, errand: Errand, answer: Worked) -> Result:
        result = replace(answer.result, job=job, error=_as_here(answer.result, job))
        sha256, source = result.output_sha256, result.source_sha256
        if not (errand.parcel and sha256 and source):
            return result
        try:
            errand.parcel.deliver(
                job.target,
                answer.content,
                sha256,
                lambda _: self._accounts.announce(job, source, sha256),
                overwrite=self._orders.profile.overwrite,
            )
        except Exception as error:
            return replace(
                failed(job, error, result.timing),
                warnings=result.warnings,
                input_shape=result.input_shape,
                source_sha256=source,
            )
        return self._accounts.settle(result)


def _as_here(result: Result, job: Job) -> CxrsrError | None:
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
    return as_failure(type(error)(text))
