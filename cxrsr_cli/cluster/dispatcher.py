"""Send requests to the workers, receive responses, and end the run if the cluster fails."""

import re
import threading
from concurrent.futures import CancelledError
from contextlib import suppress

from distributed import Client, Future, KilledWorker

from cxrsr_cli import __version__
from cxrsr_cli.cluster.envelope import VersionedPickle, handle_packed_request, pack, unpack
from cxrsr_cli.cluster.messages import FileResponse, WorkRequest
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.errors import CxrsrError, NetworkError, UsageError

_RESULT_TIMEOUT = 600.0
"""Seconds in which a response that is ready must arrive."""


class Dispatcher:
    """Sends requests for many threads at once.

    Attributes
    ----------
    failure : CxrsrError or None
        What ended the run.
    """

    def __init__(self, client: Client, weights: Future[bytes]) -> None:
        self.failure: CxrsrError | None = None
        self._client = client
        self._weights = weights
        self._is_cancelled = threading.Event()
        self._lock = threading.Lock()
        self._futures: set[Future[VersionedPickle]] = set()

    def check(self) -> None:
        """Raise CancelledError if the run has ended."""
        if self._is_cancelled.is_set():
            raise CancelledError

    def fail(self, error: CxrsrError) -> CancelledError:
        """End the run for a reason that is no file's; return the exception to raise."""
        with self._lock:
            if not self._is_cancelled.is_set():
                self.failure = error
        self.cancel()
        return CancelledError()

    def cancel(self) -> None:
        """Cancel all tasks; threads that wait for one stop waiting."""
        self._is_cancelled.set()
        with self._lock:
            futures = list(self._futures)
        with suppress(Exception):  # the client may have lost its scheduler
            self._client.cancel(futures, reason="the run has ended")

    def submit(self, request: WorkRequest) -> Future[VersionedPickle]:
        """Send a request; nothing of it is kept in this process."""
        try:
            if self._weights.status == "error":  # another run's file killed the worker
                self._weights.retry()
            # The key is random: dashboards and logs show it.
            future = self._client.submit(
                handle_packed_request, pack(request), self._weights, pure=False
            )
        except Exception as error:  # the client is closed, or about to be
            raise self._fail_lost() from error
        with self._lock:
            self._futures.add(future)
        if self._is_cancelled.is_set():  # the run ended meanwhile, without this task
            self.cancel()
        return future

    def wait(self, future: Future[VersionedPickle], timeout: float | None = None) -> None:
        """Wait until a response is ready, the task has failed, or the run has ended.

        Dask ends the wait if its connection to the scheduler is lost. No response within
        `timeout` seconds ends the run.
        """
        try:
            future.exception(timeout)
        except TimeoutError:
            raise self.fail(NetworkError("no worker of the cluster answered in time")) from None
        except Exception as error:  # the client was closed
            raise self._fail_lost() from error

    def receive(self, future: Future[VersionedPickle]) -> DerivationParameters | FileResponse:
        """Return a response.

        Raises
        ------
        distributed.KilledWorker
            If the worker died.
        CancelledError
            If the run has ended: `failure` says why, or it was cancelled.
        """
        self.check()
        try:
            packed = future.result(_RESULT_TIMEOUT)
        except KilledWorker:
            raise
        except Exception as error:
            # A task can raise an OSError, too, for example if a library is missing.
            if future.status != "error":
                raise self._fail_lost() from None
            message = (
                f"a worker cannot run cxrsr ({type(error).__name__}); install cxrsr "
                f"{__version__} with its extra 'cluster' and a working PyTorch for scheduler and "
                "workers, too"
            )
            raise self.fail(UsageError(message)) from None
        finally:
            with self._lock:
                self._futures.discard(future)
        if packed.version != __version__:
            version = re.fullmatch(r"[0-9A-Za-z.+-]{1,40}", packed.version)
            message = (
                f"a worker runs cxrsr {version[0] if version else 'of another version'}, this is "
                f"{__version__}; outputs would differ: install one version everywhere"
            )
            raise self.fail(UsageError(message))
        response = unpack(packed)
        if isinstance(response, DerivationParameters | FileResponse):
            return response
        # A worker drops a task only if the scheduler told it to.
        raise self.fail(response) if response else self._fail_lost()

    def _fail_lost(self) -> CancelledError:
        return self.fail(NetworkError("the connection to the cluster's scheduler was lost"))
