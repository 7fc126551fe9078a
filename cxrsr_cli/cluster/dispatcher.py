"""Send errands to a cluster, and bring an answer back whatever workers do."""

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TypeVar
from uuid import uuid4

from distributed import Client, Future, KilledWorker

from cxrsr_cli import __version__
from cxrsr_cli.cluster.envelope import VersionedPickle, handle_packed_request, pack, unpack
from cxrsr_cli.cluster.messages import (
    FileResponse,
    ProfileResponse,
    RequestRejected,
    WeightsMissing,
    WorkRequest,
)
from cxrsr_cli.errors import CxrsrError, ModelError, NetworkError, UsageError, WorkerCrashedError
from cxrsr_cli.networks.model_files import ModelFile

_LOG = logging.getLogger(__name__)


class SharedExclusiveLock:
    """Lets many in together, or one alone; who wants to be alone comes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._waiting = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Enter when nobody is alone inside or wants to be."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
            self._inside += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Enter when nobody is inside, and keep all others out."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._inside)
            self._inside = 1
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= 1
            self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()


_MAX_SHARED_CRASHES = 2
"""Deaths on a file with others at work; then it is done alone, to see if it is to blame."""
_POLL_SECONDS = 1.0
"""Seconds after which who waits looks whether there is still something to wait for."""
_RESULT_TIMEOUT = 600.0
"""Seconds in which an answer must have come once it is ready."""

_T = TypeVar("_T")


class RunCancelledError(Exception):
    """The run has ended; nobody waits for this answer any more."""


class _WeightsMissingError(Exception):
    """The worker has not the weights."""


class Dispatcher:
    """Asks workers, for many threads at once.

    Parameters
    ----------
    client : distributed.Client
        Connected.
    at_once : int
        Errands that are in this process at a time on their way out, and answers.

    Attributes
    ----------
    failure : CxrsrError or None
        What ended the run.
    """

    def __init__(self, client: Client, at_once: int = 1) -> None:
        self.failure: CxrsrError | None = None
        self._client = client
        self._making = threading.BoundedSemaphore(max(1, at_once))
        self._taking = threading.BoundedSemaphore(max(1, at_once))
        self._gate = SharedExclusiveLock()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._under_way: set[Future[VersionedPickle]] = set()

    def submit_and_wait(
        self,
        make: Callable[[], WorkRequest],
        take: Callable[[WorkRequest, ProfileResponse | FileResponse], _T],
        *,
        patience: float = math.inf,
    ) -> _T:
        """Have an errand done.

        Parameters
        ----------
        make : callable
            Makes the errand; again if it has to be sent again, so that no
            content is kept while a worker has it.
        take : callable
            Is given the errand without content and its answer, at most
            `at_once` at a time.
        patience : float
            Seconds after which the whole run ends for want of an answer.

        Returns
        -------
        object
            What `take` returned.

        Raises
        ------
        WorkerDiedError
            If workers died on it, in the end with nothing else at work.
        EndedError
            If the run has ended: `failure` says why, or it was cancelled.
        """
        deaths, with_weights = 0, False
        deadline = time.monotonic() + patience
        while True:
            alone = deaths >= _MAX_SHARED_CRASHES
            with self._gate.exclusive() if alone else self._gate.shared():
                try:
                    return self._send(make, take, deadline, with_weights=with_weights)
                except _WeightsMissingError:
                    if with_weights:
                        error = ModelError("a worker did not get the weights as they were sent")
                        raise self.fail(error) from None
                    with_weights = True
                    _LOG.info("a worker lacks the weights; sending them")
                except KilledWorker as error:
                    deaths += error.allowed_failures + 1
                    _LOG.info("workers died %d times with a file", deaths)
                    if alone:
                        message = f"the worker died {deaths} times on it, at last with nothing else"
                        raise WorkerCrashedError(message) from None

    def check(self) -> None:
        """Raise EndedError if the run has ended."""
        if self._ended.is_set():
            raise RunCancelledError
        if self._client.status == "closed":
            raise self._lost()

    def fail(self, error: CxrsrError) -> RunCancelledError:
        """End the run for a reason that is no file's; return what is to be raised."""
        with self._lock:
            if not self._ended.is_set():
                self.failure = error
        self.cancel()
        return RunCancelledError()

    def cancel(self) -> None:
        """Let workers drop what is under way, and nobody wait for it."""
        self._ended.set()
        with self._lock:
            under_way = list(self._under_way)
        with suppress(Exception):  # which a client raises that lost its scheduler
            self._client.cancel(under_way, reason="the run has ended")

    def _send(
        self,
        make: Callable[[], WorkRequest],
        take: Callable[[WorkRequest, ProfileResponse | FileResponse], _T],
        deadline: float,
        *,
        with_weights: bool,
    ) -> _T:
        future, errand = self._submit(make, with_weights=with_weights)
        done = threading.Event()
        try:
            future.add_done_callback(lambda _: done.set())
            while not done.wait(_POLL_SECONDS):
                self.check()
                if time.monotonic() > deadline:
                    raise self.fail(NetworkError("no worker of the cluster answered in time"))
            with self._taking:
                self.check()
                return take(errand, self._open(future))
        finally:
            with self._lock:
                self._under_way.discard(future)
            if errand.transfer:
                errand.transfer.discard()

    def _lost(self) -> RunCancelledError:
        return self.fail(NetworkError("the connection to the cluster's scheduler was lost"))

    def _submit(
        self, make: Callable[[], WorkRequest], *, with_weights: bool
    ) -> tuple[Future[VersionedPickle], WorkRequest]:
        """Send an errand; return it without the content of file and weights."""
        with self._making:
            self.check()
            errand = make()
            kept = replace(errand, transfer=errand.transfer and errand.transfer.without_content())
            if with_weights:
                errand = replace(errand, weights=self._weights(errand.model))
            try:
                # A name that says nothing: dashboards and logs show it.
                future = self._client.submit(
                    handle_packed_request, pack(errand), key=f"cxrsr-{uuid4().hex}"
                )
            except Exception as error:  # closed, or about to be
                raise self._lost() from error
        with self._lock:
            self._under_way.add(future)
        return future, kept

    def _weights(self, model: ModelFile) -> bytes:
        try:
            return model.path.read_bytes()
        except OSError as error:
            message = f"cannot read the weights to send them: {error.strerror}"
            raise self.fail(ModelError(message)) from None

    def _open(self, future: Future[VersionedPickle]) -> ProfileResponse | FileResponse:
        try:
            sealed: VersionedPickle = future.result(_RESULT_TIMEOUT)
        except KilledWorker:
            raise
        except Exception as error:
            # What the task raised may be an OSError, too: a library that is missing.
            if future.status != "error" and isinstance(error, CancelledError | OSError):
                raise self._lost() from None
            message = (
                f"a worker cannot do cxrsr's work ({type(error).__name__}); install cxrsr "
                f"{__version__} with its extra 'cluster', and a PyTorch that can be imported, "
                "for scheduler and workers, too"
            )
            raise self.fail(UsageError(message)) from None
        if sealed.version != __version__:
            theirs = re.fullmatch(r"[0-9A-Za-z.+-]{1,40}", sealed.version)
            message = (
                f"a worker runs cxrsr {theirs[0] if theirs else 'of another version'}, this is "
                f"{__version__}; outputs would differ: install one version everywhere"
            )
            raise self.fail(UsageError(message))
        match unpack(sealed):
            case ProfileResponse() | FileResponse() as answer:
                return answer
            case WeightsMissing():
                raise _WeightsMissingError
            case RequestRejected(reason):
                raise self.fail(reason)
        # Unwanted: dropped, so somebody had told the worker to.
        raise self._lost()
