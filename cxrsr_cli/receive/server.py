"""The TCP server of the SCP: which connections are served, each in its own thread."""

import contextlib
import socket
import ssl
import threading
import time
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

from cxrsr_cli.receive.connection import PeerConnection, ScpContext
from cxrsr_cli.receive.pynetdicom_association import address_family, run_association
from cxrsr_cli.receive.refusal import RefusalReason

_MAX_PENDING_REJECTIONS = 128
"""Connections above the limit that get a rejection before they are closed."""

_BACKLOG = 128
_ACCEPT_RETRY_SECONDS = 0.1
"""Wait before the next accept when the system had no resources for a connection."""

_CLOSE_TIMEOUT = 2.0
"""Seconds for a peer to close first; otherwise the kernel may drop our last PDU."""

_REJECT_TIMEOUT = 5.0
"""Seconds for a request that will be rejected in any case."""


class ScpServer(ThreadingTCPServer):
    """Listens, and serves each connection in a thread.

    Parameters
    ----------
    context : ScpContext
        What the associations share.
    tls : ssl.SSLContext or None
        TLS context of a server; None for plain connections. Handshakes run in the
        thread of the connection, so that a slow one does not delay others.
    """

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
        if len(self._connections) >= config.limits.max_associations + _MAX_PENDING_REJECTIONS:
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
            served = sum(
                connection.initial_rejection is None and not connection.is_closing
                for connection in self._connections.values()
            )
            is_full = served >= self.context.config.limits.max_associations
            rejection = RefusalReason.LIMIT if is_full else None
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
                    self.socket.getsockname(),
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


def _seconds_left(connection: PeerConnection) -> float:
    """Return the seconds left for the association request of a peer."""
    timeout = connection.context.config.limits.idle_timeout
    if connection.initial_rejection is not None:
        timeout = min(timeout, _REJECT_TIMEOUT)
    return max(connection.connected_at + timeout - time.monotonic(), _ACCEPT_RETRY_SECONDS)
