"""The SCP of the Verification and Storage services (PS3.4 annexes A and B)."""

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydicom.uid import UID

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.errors import NetworkError, OutputError
from cxrsr_cli.receive.config import ScpConfig
from cxrsr_cli.receive.connection import RateLimiter, ScpContext
from cxrsr_cli.receive.presentation_contexts import storage_classes, supported_contexts
from cxrsr_cli.receive.refusal import RefusalEvent
from cxrsr_cli.receive.server import ScpServer
from cxrsr_cli.receive.store_sink import ReceivedInstance, remove_partial_files

_POLL_SECONDS = 0.1
"""Wait between two checks whether to stop."""

_ABORT_TIMEOUT = 5.0
"""Seconds in which aborted associations end."""


def _ignore(_: RefusalEvent) -> None:
    pass


class StorageScp:
    """Receives instances from peers, each directly into a file.

    Each association has two threads and takes bounded memory: one PDU of at most
    1 MiB, and the memory to read one file. One file is read at a time.

    Parameters
    ----------
    config : ScpConfig
        Address, allowed peers and limits.
    folder : Path
        Where files are received. It is created if it does not exist. No other process
        may use it: files that a killed process left in it are removed.
    accept : callable
        Called with each `ReceivedInstance` that is complete, checked and closed, but not
        flushed to the disk. Flush the file, and the folder that it is moved to, before
        returning `DimseStatus.SUCCESS`, after which the peer may delete its copy. On
        success, the callable owns the file. On any other status, which the peer gets,
        and on an exception, which the peer sees as out of resources, the file is
        removed. Called by several threads at once.
    on_refusal : callable, optional
        Called with each `RefusalEvent`, by several threads at once. Its errors are ignored.
    tls : ssl.SSLContext, optional
        TLS context of a server. Without it, connections are not encrypted.
    sop_classes : sequence of UID, optional
        Storage SOP Classes to receive.
    """

    def __init__(
        self,
        config: ScpConfig,
        folder: Path,
        accept: Callable[[ReceivedInstance], DimseStatus],
        on_refusal: Callable[[RefusalEvent], None] = _ignore,
        *,
        tls: ssl.SSLContext | None = None,
        sop_classes: Sequence[UID] | None = None,
    ) -> None:
        self._tls = tls
        self._context = ScpContext(
            config=config,
            folder=folder,
            accept=accept,
            on_refusal=on_refusal,
            presentation_contexts=supported_contexts(
                storage_classes() if sop_classes is None else sop_classes
            ),
            rate_limiter=RateLimiter(config.limits.max_associations_per_minute),
            stopping=threading.Event(),
        )
        self._server: ScpServer | None = None
        self._thread: threading.Thread | None = None
        self._exit_stack = ExitStack()

    @property
    def port(self) -> int:
        """Port that the SCP listens on."""
        if self._server is None:
            raise NetworkError("the receiver is not listening")
        return int(self._server.server_address[1])

    @property
    def is_alive(self) -> bool:
        """Whether peers are served: false before `start`, and after a defect."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listen, and serve peers in threads.

        Until `stop`, warnings of the whole process are silenced: those of pynetdicom and
        pydicom quote what peers send, and come from threads of these libraries.

        Raises
        ------
        NetworkError
            If the SCP cannot listen on the address and port.
        OutputError
            If the folder cannot be created or cleared.
        """
        folder, config = self._context.folder, self._context.config
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_partial_files(folder)
        except OSError as error:
            raise OutputError(
                f"cannot receive to {folder}: {error.strerror or 'I/O error'}"
            ) from None
        try:
            self._server = ScpServer(self._context, self._tls)
        except OSError as error:
            raise NetworkError(
                f"cannot listen on {config.address} port {config.port}: "
                f"{error.strerror or 'I/O error'}"
            ) from None
        self._exit_stack.enter_context(quiet_libraries())
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="receiver", daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End all associations and stop listening; the SCP cannot be started again.

        From now on, association requests get a transient rejection and idle associations
        are aborted. A message that is being received is completed and answered first.

        Parameters
        ----------
        timeout : float
            Seconds after which such messages are aborted, too.
        """
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._context.stopping.set()
        server.wait_until_idle(timeout)
        server.shutdown()
        thread.join()
        server.server_close()
        for how in (socket.SHUT_RD, socket.SHUT_RDWR):
            server.shut_down_connections(how)
            server.wait_until_idle(_ABORT_TIMEOUT)
        # A thread that is still alive waits for `accept`.
        self._exit_stack.close()
        self._server = self._thread = None
