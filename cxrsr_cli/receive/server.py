"""pynetdicom's server: who gets a thread, and an association in it."""

import contextlib
import socket
import ssl
import threading
import time
from typing import Any, cast

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RQ, A_RELEASE_RQ, P_DATA_TF
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from cxrsr_cli import __version__
from cxrsr_cli.dicom.identifiers import IMPLEMENTATION_CLASS_UID
from cxrsr_cli.receive.bounded_transport import BoundedDulProvider, BoundedSocket
from cxrsr_cli.receive.connection import PeerConnection
from cxrsr_cli.receive.context import ScpContext
from cxrsr_cli.receive.dimse_provider import BoundedDimseProvider
from cxrsr_cli.receive.presentation_contexts import (
    APPLICATION_CONTEXT_NAME,
    MAX_PDU_BYTES,
    accept_first_proposed_syntax,
)
from cxrsr_cli.receive.refusal import REJECTIONS, RefusalReason

_MAX_PENDING_REJECTIONS = 128
"""Connections beyond the associations that are told why before they are closed."""

_BACKLOG = 128
_ACCEPT_RETRY_SECONDS = 0.1
"""Seconds until a connection is accepted again where the system had no room for one."""

_CLOSE_TIMEOUT = 2.0
"""Seconds in which a peer may close after us: else the kernel could drop our last words."""

_REJECT_TIMEOUT = 5.0
"""Seconds in which a peer that is rejected anyway may say who it is."""

_EXPECTED = {
    "Sta1": (A_ASSOCIATE_RQ, A_ABORT_RQ),  # a moment before the next
    "Sta2": (A_ASSOCIATE_RQ, A_ABORT_RQ),
    "Sta6": (P_DATA_TF, A_RELEASE_RQ, A_ABORT_RQ),
}
"""What a peer may send, by state of the machine (PS3.8 table 9-10)."""

# Its handlers would write all that is sent into its log, which is silenced all the same.
_config.LOG_HANDLER_LEVEL = "none"


class ScpServer(ThreadedAssociationServer):
    """Listens, with one thread for each connection.

    Parameters
    ----------
    node : Node
        What associations share.
    tls : ssl.SSLContext or None
        Of a server. pynetdicom is not told of it: it does the handshake of one peer
        while all others wait.
    """

    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(self, node: ScpContext, tls: ssl.SSLContext | None) -> None:
        self.node = node
        self.tls = tls
        self._changed = threading.Condition()
        self._callers: dict[socket.socket, PeerConnection] = {}
        listener = node.config
        ae = AE(ae_title=listener.ae_title)
        ae.maximum_pdu_size = MAX_PDU_BYTES
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = f"CXRSR_{__version__}"[:16]
        # Associations are counted here, and as of the connection: where many come at once,
        # its own count rejects all of them.
        super().__init__(
            ae,
            (listener.address, listener.port),
            listener.ae_title,
            node.contexts,
            request_handler=ConnectionHandler,
        )
        # A peer that is gone again must not keep `accept` waiting.
        cast("socket.socket", self.socket).setblocking(False)

    def server_bind(self) -> None:
        """Bind; to both families if that is what was asked for."""
        if self.node.config.address == "::" and socket.has_dualstack_ipv6():
            listening = cast("socket.socket", self.socket)
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        try:
            return super().get_request()
        except OSError:  # no descriptors left, or the peer is gone already
            time.sleep(_ACCEPT_RETRY_SECONDS)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Tell whether a connection is to be looked at."""
        address = str(client_address[0])
        reason = None if self.node.config.address_allowed(address) else RefusalReason.ADDRESS
        if len(self._callers) >= self.node.config.limits.max_associations + _MAX_PENDING_REJECTIONS:
            reason = reason or RefusalReason.CROWDED
        if reason is not None:
            request.close()
            self.node.report(reason, address)
        return reason is None

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread."""
        address = str(client_address[0])
        with self._changed:
            served = sum(c.unwelcome is None and not c.is_over for c in self._callers.values())
            unwelcome = (
                RefusalReason.LIMIT if served >= self.node.config.limits.max_associations else None
            )
            if self.node.stopping.is_set():
                unwelcome = RefusalReason.STOPPING
            self._callers[request] = PeerConnection(self.node, address, request, unwelcome)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has no more threads
            self._leave(request)
            request.close()
            self.node.report(RefusalReason.CROWDED, address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end."""
        threading.current_thread().name = "association"
        caller = self._callers[request]
        try:
            self.finish_request(request, client_address)
        # A defect; its text could quote what the peer sent.
        except Exception:
            caller.set_end_reason(RefusalReason.INTERNAL)
        finally:
            self.shutdown_request(caller.connection)
            if caller.reason is not None:
                caller.report(caller.reason)
            self._leave(request)

    def _leave(self, request: socket.socket) -> None:
        with self._changed:
            del self._callers[request]
            self._changed.notify_all()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, after the peer had a little time to read what was sent last."""
        with contextlib.suppress(OSError, ValueError):
            deadline = time.monotonic() + _CLOSE_TIMEOUT
            request.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                request.settimeout(left)
                if not request.recv(1 << 16):
                    break
        request.close()

    def service_actions(self) -> None:
        """Leave the garbage to Python, which collects it as associations come and go."""

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Tell of a defect, in our own words."""
        self.node.report(RefusalReason.INTERNAL, str(client_address[0]))

    def caller(self, request: socket.socket) -> PeerConnection:
        """Return who made a connection."""
        return self._callers[request]

    def wait_until_idle(self, patience: float) -> None:
        """Wait until there is no connection left, for some seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._callers, patience)

    def shut_down(self, how: int) -> None:
        """Shut all connections down."""
        with self._changed:
            for caller in self._callers.values():
                caller.shut_down(how)


class ConnectionHandler(RequestHandler):
    """Serves one connection, in a thread of its own."""

    server: ScpServer

    def handle(self) -> None:
        """Do the TLS handshake, and run the association."""
        self._caller = self.server.caller(self.request)
        if self.server.tls is not None and not self._tls_handshake(self.server.tls):
            return
        self._create_association().run()

    def _tls_handshake(self, tls: ssl.SSLContext) -> bool:
        caller = self._caller
        try:
            secured = tls.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
            caller.connection = self.request = secured
            secured.settimeout(self._left())
            secured.do_handshake()
        except TimeoutError:
            caller.set_end_reason(RefusalReason.SLOW)
        except (OSError, ValueError):
            caller.set_end_reason(RefusalReason.TLS)
        return caller.reason is None

    def _left(self) -> float:
        """Return the seconds until the peer must have requested its association."""
        patience = self.server.node.config.limits.idle_timeout
        if self._caller.unwelcome is not None:
            patience = min(patience, _REJECT_TIMEOUT)
        return max(self._caller.began + patience - time.monotonic(), _ACCEPT_RETRY_SECONDS)

    def _create_association(self) -> Association:
        association = super()._create_association()
        association.dimse = self._messages = BoundedDimseProvider(association, self._caller)
        association.dul = BoundedDulProvider(association, self._messages, self._caller)
        association.set_socket(BoundedSocket(association, self._messages, self._caller))
        association.acse_timeout = self._left()
        association.network_timeout = None  # `BoundedDimseProvider` looks at the time
        association.bind(evt.EVT_REQUESTED, self._on_request)
        association.bind(evt.EVT_PDU_RECV, self._on_pdu)
        association.bind(evt.EVT_FSM_TRANSITION, self._on_transition)
        association.bind(evt.EVT_C_STORE, self._messages.store)
        return association

    def _on_request(self, event: evt.Event) -> None:
        """Reject a request, or leave in it only what may be accepted."""
        association = event.assoc
        # An exception would be logged by pynetdicom, and the association accepted.
        try:
            reason = self._rejection_reason(association)
        except Exception:
            reason = RefusalReason.INTERNAL
        if reason is not None:
            self._caller.set_end_reason(reason)
            rejection = REJECTIONS[reason]
            association.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
            association.kill()

    def _rejection_reason(self, association: Association) -> RefusalReason | None:
        request = association.requestor.primitive
        if request is None:
            return RefusalReason.INTERNAL
        reason = self._caller.rejection_reason(
            request.calling_ae_title.strip(), request.called_ae_title.strip()
        )
        if reason is None and request.application_context_name != APPLICATION_CONTEXT_NAME:
            reason = RefusalReason.APPLICATION
        accept_first_proposed_syntax(
            request.presentation_context_definition_list, self.server.node.contexts
        )
        return reason

    def _on_pdu(self, event: evt.Event) -> None:
        """Look at the order of PDUs before the state machine does, which knows no messages."""
        state = event.assoc.dul.state_machine.current_state
        if state in _EXPECTED and not isinstance(event.pdu, _EXPECTED[state]):
            self._caller.set_end_reason(RefusalReason.UNEXPECTED)
        if isinstance(event.pdu, A_RELEASE_RQ) and self._messages.message is not None:
            self._messages.abort_association(RefusalReason.UNEXPECTED)

    def _on_transition(self, event: evt.Event) -> None:
        """Keep what the state machine ended an association for."""
        match event.action, event.fsm_event:
            case "AE-6", _ if event.next_state == "Sta13":
                self._caller.set_end_reason(RefusalReason.VERSION)
            case "AR-2", _:
                self._messages.wake()
            case "AA-2", "Evt18" if event.current_state == "Sta2":
                self._caller.set_end_reason(RefusalReason.SLOW)
