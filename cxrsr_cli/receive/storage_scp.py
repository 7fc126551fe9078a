"""The SCP of the Verification and Storage services (PS3.4 annexes A and B)."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

from pydicom.uid import UID

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.errors import NetworkError, OutputError
from cxrsr_cli.receive.config import ScpConfig
from cxrsr_cli.receive.connection import PeerConnection, RateLimiter, ScpContext
from cxrsr_cli.receive.presentation_contexts import storage_classes, supported_contexts
from cxrsr_cli.receive.pynetdicom_association import address_family, run_association
from cxrsr_cli.receive.refusal import RefusalEvent, RefusalReason
from cxrsr_cli.receive.store_sink import ReceivedInstance, remove_partial_files

_POLL_SECONDS = 0.1
"""Wait between two checks whether to stop."""

_ABORT_TIMEOUT = 5.0
"""Seconds in which aborted associations end."""

_MAX_PENDING_REJECTIONS = 128
"""Connections above the limit that get a rejection before they are closed."""

_RESERVED_SHARE = 8
"""One in so many associations, and connections, is left to other addresses."""

_BACKLOG = 128
_ACCEPT_RETRY_SECONDS = 0.1
"""Wait before the next accept when the system had no resources for a connection."""

_CLOSE_TIMEOUT = 2.0
"""Seconds for a peer to close first; otherwise the kernel may drop our last PDU."""

_REJECT_TIMEOUT = 5.0
"""Seconds for a request that will be rejected in any case."""


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
        self._exit_stack = contextlib.ExitStack()

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


class ScpServer(ThreadingTCPServer):
    """Listens, and serves each connection, with its TLS handshake, in a thread."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = _BACKLOG

    def __init__(self, context: ScpContext, tls: ssl.SSLContext | None) -> None:
        self.context = context
        self.tls = tls
        self._changed = threading.Condition()
        self._connections: dict[socket.socket, PeerConnection] = {}
        address = (context.config.address, context.config.port)
        self.address_family = address_family(address)
        # Connections are served by `process_request_thread`, without a handler.
        super().__init__(address, BaseRequestHandler)
        # A peer that already closed the connection must not block `accept`.
        self.socket.setblocking(False)

    def server_bind(self) -> None:
        """Bind the socket; `::` stands for the addresses of IPv6 and IPv4."""
        if self.context.config.address == "::" and socket.has_dualstack_ipv6():
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        try:
            return self.socket.accept()
        except OSError:  # no file descriptors left, or the peer closed the connection
            time.sleep(_ACCEPT_RETRY_SECONDS)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Tell whether a connection is served at all."""
        address = str(client_address[0])
        config = self.context.config
        reason = None if config.address_allowed(address) else RefusalReason.ADDRESS
        max_connections = config.limits.max_associations + _MAX_PENDING_REJECTIONS
        with self._changed:
            if not _has_room(address, self._connections.values(), max_connections):
                reason = reason or RefusalReason.CROWDED
        if reason is not None:
            request.close()
            self.context.report(reason, address)
        return reason is None

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the thread of a connection.

        Associations are counted from the connection on: pynetdicom's own count rejects
        all of many that come at once.
        """
        address = str(client_address[0])
        with self._changed:
            served = [
                connection
                for connection in self._connections.values()
                if connection.initial_rejection is None and not connection.is_closing
            ]
            has_room = _has_room(address, served, self.context.config.limits.max_associations)
            rejection = None if has_room else RefusalReason.LIMIT
            if self.context.stopping.is_set():
                rejection = RefusalReason.STOPPING
            self._connections[request] = PeerConnection(self.context, address, request, rejection)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has no more threads
            self._remove(request)
            request.close()
            self.context.report(RefusalReason.CROWDED, address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection until it ends."""
        threading.current_thread().name = "association"
        connection = self._connections[request]
        try:
            if self.tls is None or self._tls_handshake(connection, self.tls):
                run_association(
                    connection,
                    self.server_address,  # type: ignore[arg-type]
                    client_address,
                    _seconds_left(connection),
                )
        # A defect. The text of the error could quote what the peer sent.
        except Exception:
            connection.set_end_reason(RefusalReason.INTERNAL)
        finally:
            self.shutdown_request(connection.socket)
            if connection.end_reason is not None:
                connection.report(connection.end_reason)
            self._remove(request)

    def _tls_handshake(self, connection: PeerConnection, tls: ssl.SSLContext) -> bool:
        try:
            secured = tls.wrap_socket(
                connection.socket, server_side=True, do_handshake_on_connect=False
            )
            connection.socket = secured
            secured.settimeout(_seconds_left(connection))
            secured.do_handshake()
        except TimeoutError:
            connection.set_end_reason(RefusalReason.SLOW)
        except (OSError, ValueError):
            connection.set_end_reason(RefusalReason.TLS)
        return connection.end_reason is None

    def _remove(self, request: socket.socket) -> None:
        with self._changed:
            del self._connections[request]
            self._changed.notify_all()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection after the peer had time to read our last PDU."""
        with contextlib.suppress(OSError, ValueError):
            deadline = time.monotonic() + _CLOSE_TIMEOUT
            request.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                request.settimeout(left)
                if not request.recv(1 << 16):
                    break
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Report a defect without the text of the error."""
        self.context.report(RefusalReason.INTERNAL, str(client_address[0]))

    def wait_until_idle(self, timeout: float) -> None:
        """Wait until no connection is left, at most `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, timeout)

    def shut_down_connections(self, how: int) -> None:
        """Shut all connections down, as `PeerConnection.shut_down`."""
        with self._changed:
            for connection in self._connections.values():
                connection.shut_down(how)


def _has_room(address: str, connections: Collection[PeerConnection], limit: int) -> bool:
    """Tell whether a peer may have another of at most `limit` connections.

    No address gets all of them, so that one peer cannot shut out the others.
    """
    own = sum(connection.address == address for connection in connections)
    return len(connections) < limit and own < limit - limit // _RESERVED_SHARE


def _seconds_left(connection: PeerConnection) -> float:
    """Return the seconds left for the association request of a peer."""
    timeout = connection.context.config.limits.idle_timeout
    if connection.initial_rejection is not None:
        timeout = min(timeout, _REJECT_TIMEOUT)
    return max(connection.connected_at + timeout - time.monotonic(), _ACCEPT_RETRY_SECONDS)
