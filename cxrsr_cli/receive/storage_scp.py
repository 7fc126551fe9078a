"""A DICOM node that receives: the SCP of Verification and Storage (PS3.4 annexes A and B)."""

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from socketserver import BaseServer

from pydicom.uid import UID

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.errors import NetworkError, OutputError
from cxrsr_cli.receive.config import ScpConfig
from cxrsr_cli.receive.context import ReceivedInstance, ScpContext
from cxrsr_cli.receive.part10_writer import remove_partial_files
from cxrsr_cli.receive.presentation_contexts import storage_classes, supported_contexts
from cxrsr_cli.receive.rate_limiter import RateLimiter
from cxrsr_cli.receive.refusal import RefusalEvent
from cxrsr_cli.receive.server import ScpServer

_POLL_SECONDS = 0.1
"""Seconds between looks whether to stop."""

_ABORT_TIMEOUT = 5.0
"""Seconds in which aborted associations end."""


def _say_nothing(_: RefusalEvent) -> None:
    pass


class StorageScp:
    """Receives instances from peers, each straight to a file.

    Every association has two threads, and takes bounded memory: a PDU of at most
    1 MiB at a time, and beside that what reading one file takes, of which one
    is read at a time.

    Parameters
    ----------
    listener : Listener
        Where to listen, to whom, and within which limits.
    folder : Path
        Where files are received; made if it is not there. It must belong to this
        process alone, since what is left in it by one that was killed is removed.
    accept : callable
        Is given each `ReceivedInstance` whose file is whole, checked and closed, but not
        flushed to the disk: flush it, and the folder that it is moved to, before
        `Status.SUCCESS` is returned, after which the peer may delete its own. Upon
        success the file is the callable's; upon any other status, which the peer is
        answered with, or an exception, which it learns as out of resources, the
        file is removed. Called from several threads at once.
    said : callable, optional
        Is given each `RefusalEvent`; from several threads at once. What it raises is lost.
    tls : ssl.SSLContext, optional
        Of a server. Without one, connections are plain.
    sop_classes : sequence of UID, optional
        Storage SOP Classes that are received.
    """

    def __init__(
        self,
        listener: ScpConfig,
        folder: Path,
        accept: Callable[[ReceivedInstance], DimseStatus],
        said: Callable[[RefusalEvent], None] = _say_nothing,
        *,
        tls: ssl.SSLContext | None = None,
        sop_classes: Sequence[UID] | None = None,
    ) -> None:
        self._tls = tls
        self._node = ScpContext(
            config=listener,
            folder=folder,
            accept=accept,
            on_refusal=said,
            contexts=supported_contexts(storage_classes() if sop_classes is None else sop_classes),
            rate_limiter=RateLimiter(listener.limits.max_associations_per_minute),
            stopping=threading.Event(),
        )
        self._server: ScpServer | None = None
        self._thread: threading.Thread | None = None
        self._silence = ExitStack()

    @property
    def port(self) -> int:
        """Port that is listened on."""
        if self._server is None:
            raise NetworkError("the receiver is not listening")
        return int(self._server.server_address[1])

    @property
    def is_alive(self) -> bool:
        """Whether peers are served: not before `start`, nor if a defect ended it."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listen, and serve peers from now on, in threads.

        Until `stop`, the warnings of the whole process are silenced: pynetdicom's and
        pydicom's quote what peers send, in threads that are not ours.

        Raises
        ------
        NetworkError
            If the address and port cannot be listened on.
        OutputError
            If the folder cannot be made or cleared.
        """
        try:
            self._node.folder.mkdir(parents=True, exist_ok=True)
            remove_partial_files(self._node.folder)
        except OSError as error:
            raise OutputError(
                f"cannot receive to {self._node.folder}: {error.strerror or 'I/O error'}"
            ) from None
        address, port = self._node.config.address, self._node.config.port
        try:
            self._server = ScpServer(self._node, self._tls)
        except OSError as error:
            raise NetworkError(
                f"cannot listen on {address} port {port}: {error.strerror or 'I/O error'}"
            ) from None
        self._silence.enter_context(quiet_libraries())
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="receiver", daemon=True
        )
        self._thread.start()

    def stop(self, patience: float) -> None:
        """End all associations and listen no more; for good.

        From now on associations are rejected as transient, and those that are idle
        are aborted; a message that is being received is finished and answered first.

        Parameters
        ----------
        patience : float
            Seconds after which such messages are aborted.
        """
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._node.stopping.set()
        server.wait_until_idle(patience)
        # That of pynetdicom also looks for the server among those that its AE started.
        BaseServer.shutdown(server)
        thread.join()
        server.server_close()
        for how in (socket.SHUT_RD, socket.SHUT_RDWR):
            server.shut_down(how)
            server.wait_until_idle(_ABORT_TIMEOUT)
        # A thread that is left works for `accept`.
        self._silence.close()
        self._server = self._thread = None
