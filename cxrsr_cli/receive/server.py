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
from cxrsr_cli.derive.identity import IMPLEMENTATION_CLASS_UID
from cxrsr_cli.receive.caller import Caller
from cxrsr_cli.receive.contexts import APPLICATION, LARGEST_PDU, prefer_first
from cxrsr_cli.receive.messages import Messages
from cxrsr_cli.receive.node import Node
from cxrsr_cli.receive.refusal import REJECTIONS, Reason
from cxrsr_cli.receive.upper_layer import Provider, Socket

_DOORWAY = 128
"""Connections beyond the associations that are told why before they are closed."""

_BACKLOG = 128
_BREATH = 0.1
"""Seconds until a connection is accepted again where the system had no room for one."""

_LINGER = 2.0
"""Seconds in which a peer may close after us: else the kernel could drop our last words."""

_OUT_OF_THE_DOOR = 5.0
"""Seconds in which a peer that is rejected anyway may say who it is."""

_EXPECTED = {
    "Sta1": (A_ASSOCIATE_RQ, A_ABORT_RQ),  # a moment before the next
    "Sta2": (A_ASSOCIATE_RQ, A_ABORT_RQ),
    "Sta6": (P_DATA_TF, A_RELEASE_RQ, A_ABORT_RQ),
}
"""What a peer may send, by state of the machine (PS3.8 table 9-10)."""

# Its handlers would write all that is sent into its log, which is silenced all the same.
_config.LOG_HANDLER_LEVEL = "none"


class Server(ThreadedAssociationServer):
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

    def __init__(self, node: Node, tls: ssl.SSLContext | None) -> None:
        self.node = node
        self.tls = tls
        self._changed = threading.Condition()
        self._callers: dict[socket.socket, Caller] = {}
        listener = node.listener
        ae = AE(ae_title=listener.ae_title)
        ae.maximum_pdu_size = LARGEST_PDU
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = f"CXRSR_{__version__}"[:16]
        # Associations are counted here, and as of the connection: where many come at once,
        # its own count rejects all of them.
        super().__init__(
            ae,
            (listener.address, listener.port),
            listener.ae_title,
            node.contexts,
            request_handler=Handler,
        )
        # A peer that is gone again must not keep `accept` waiting.
        cast("socket.socket", self.socket).setblocking(False)

    def server_bind(self) -> None:
        """Bind; to both families if that is what was asked for."""
        if self.node.listener.address == "::" and socket.has_dualstack_ipv6():
            listening = cast("socket.socket", self.socket)
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        try:
            return super().get_request()
        except OSError:  # no descriptors left, or the peer is gone already
            time.sleep(_BREATH)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Tell whether a connection is to be looked at."""
        address = str(client_address[0])
        reason = None if self.node.listener.connectable_from(address) else Reason.ADDRESS
        if len(self._callers) >= self.node.listener.limits.associations + _DOORWAY:
            reason = reason or Reason.CROWDED
        if reason is not None:
            request.close()
            self.node.say(reason, address)
        return reason is None

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread."""
        address = str(client_address[0])
        with self._changed:
            served = sum(c.unwelcome is None and not c.is_over for c in self._callers.values())
            unwelcome = Reason.LIMIT if served >= self.node.listener.limits.associations else None
            if self.node.stopping.is_set():
                unwelcome = Reason.STOPPING
            self._callers[request] = Caller(self.node, address, request, unwelcome)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has no more threads
            self._leave(request)
            request.close()
            self.node.say(Reason.CROWDED, address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end."""
        threading.current_thread().name = "association"
        caller = self._callers[request]
        try:
            self.finish_request(request, client_address)
        # A defect; its text could quote what the peer sent.
        except Exception:
            caller.blame(Reason.INTERNAL)
        finally:
            self.shutdown_request(caller.connection)
            if caller.reason is not None:
                caller.say(caller.reason)
            self._leave(request)

    def _leave(self, request: socket.socket) -> None:
        with self._changed:
            del self._callers[request]
            self._changed.notify_all()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, after the peer had a little time to read what was sent last."""
        with contextlib.suppress(OSError, ValueError):
            deadline = time.monotonic() + _LINGER
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
        self.node.say(Reason.INTERNAL, str(client_address[0]))

    def caller(self, request: socket.socket) -> Caller:
        """Return who made a connection."""
        return self._callers[request]

    def wait_for_end(self, patience: float) -> None:
        """Wait until there is no connection left, for some seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._callers, patience)

    def sever(self, how: int) -> None:
        """Shut all connections down."""
        with self._changed:
            for caller in self._callers.values():
                caller.sever(how)


class Handler(RequestHandler):
    """Serves one connection, in a thread of its own."""

    server: Server

    def handle(self) -> None:
        """Do the TLS handshake, and run the association."""
        self._caller = self.server.caller(self.request)
        if self.server.tls is not None and not self._secure(self.server.tls):
            return
        self._create_association().run()

    def _secure(self, tls: ssl.SSLContext) -> bool:
        caller = self._caller
        try:
            secured = tls.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
            caller.connection = self.request = secured
            secured.settimeout(self._left())
            secured.do_handshake()
        except TimeoutError:
            caller.blame(Reason.SLOW)
        except (OSError, ValueError):
            caller.blame(Reason.TLS)
        return caller.reason is None

    def _left(self) -> float:
        """Return the seconds until the peer must have requested its association."""
        patience = self.server.node.listener.limits.idle
        if self._caller.unwelcome is not None:
            patience = min(patience, _OUT_OF_THE_DOOR)
        return max(self._caller.began + patience - time.monotonic(), _BREATH)

    def _create_association(self) -> Association:
        association = super()._create_association()
        association.dimse = self._messages = Messages(association, self._caller)
        association.dul = Provider(association, self._messages, self._caller)
        association.set_socket(Socket(association, self._messages, self._caller))
        association.acse_timeout = self._left()
        association.network_timeout = None  # `Messages` looks at the time
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
            reason = self._objection(association)
        except Exception:
            reason = Reason.INTERNAL
        if reason is not None:
            self._caller.blame(reason)
            rejection = REJECTIONS[reason]
            association.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
            association.kill()

    def _objection(self, association: Association) -> Reason | None:
        request = association.requestor.primitive
        if request is None:
            return Reason.INTERNAL
        reason = self._caller.objection(
            request.calling_ae_title.strip(), request.called_ae_title.strip()
        )
        if reason is None and request.application_context_name != APPLICATION:
            reason = Reason.APPLICATION
        prefer_first(request.presentation_context_definition_list, self.server.node.contexts)
        return reason

    def _on_pdu(self, event: evt.Event) -> None:
        """Look at the order of PDUs before the state machine does, which knows no messages."""
        state = event.assoc.dul.state_machine.current_state
        if state in _EXPECTED and not isinstance(event.pdu, _EXPECTED[state]):
            self._caller.blame(Reason.UNEXPECTED)
        if isinstance(event.pdu, A_RELEASE_RQ) and self._messages.message is not None:
            self._messages.break_off(Reason.UNEXPECTED)

    def _on_transition(self, event: evt.Event) -> None:
        """Keep what the state machine ended an association for."""
        match event.action, event.fsm_event:
            case "AE-6", _ if event.next_state == "Sta13":
                self._caller.blame(Reason.VERSION)
            case "AR-2", _:
                self._messages.wake()
            case "AA-2", "Evt18" if event.current_state == "Sta2":
                self._caller.blame(Reason.SLOW)
