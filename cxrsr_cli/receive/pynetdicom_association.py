"""An association of pynetdicom with bounded memory and time (PS3.7 6.3, PS3.8 9.2).

pynetdicom keeps everything that a peer sends ahead in memory, collects as many
bytes as a PDU claims to have, waits for them without end, and polls its sockets a
thousand times a second. The three classes below replace the parts that do so.

This is the only module of the package that uses internals of pynetdicom, which is
why it is long: `tests/receive/test_pynetdicom_contract.py` lists and checks them.
"""

import queue
import select
import socket
import ssl
import time
from contextlib import suppress
from copy import deepcopy
from typing import Any, NoReturn, cast

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE, DimseServiceType
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RQ, A_RELEASE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket

from cxrsr_cli import __version__
from cxrsr_cli.dicom.identifiers import IMPLEMENTATION_CLASS_UID
from cxrsr_cli.receive.connection import PeerConnection
from cxrsr_cli.receive.presentation_contexts import (
    APPLICATION_CONTEXT_NAME,
    MAX_PDU_BYTES,
    VERIFICATION,
    accept_first_proposed_syntax,
)
from cxrsr_cli.receive.refusal import (
    ABORTS,
    REJECTIONS,
    STATUSES,
    AbortReason,
    ProtocolViolationError,
    RefusalReason,
)
from cxrsr_cli.receive.store_sink import StoreRequest, StoreResult, StoreSink, is_uid

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""Address of IPv4 or IPv6, as the socket module has it."""

_MAX_REQUEST_BYTES = 1 << 18
"""Limit of an A-ASSOCIATE-RQ: 128 contexts with all standard transfer syntaxes fit."""

_MAX_RECEIVED_PDU_BYTES = 8 * MAX_PDU_BYTES
"""Some peers send longer PDUs than negotiated, without bad intent."""

_MAX_COMMAND_BYTES = 1 << 14
_MAX_COMMENT_LENGTH = 64

_PDU_TYPES = range(1, 8)
_REJECTION, _RELEASE, _ABORT = 3, 6, 7
_ABORT_PDU = bytes((_ABORT, 0, 0, 0, 0, 4, 0, 0, 2, 0))

_COMMAND_FRAGMENT, _LAST_FRAGMENT = 1, 2
_COMMAND_GROUP = 0x0000
_RESPONSE = 0x8000
_STORE, _ECHO, _CANCEL = 0x0001, 0x0030, 0x0FFF

_CLOSE_TIMEOUT = 1.0
"""Seconds for a peer to close first, and for the rest of a PDU after our last one."""

_MESSAGE_POLL_SECONDS = 0.2
"""Wait for a message before the deadlines are checked again."""

_LOCAL_TURN_STATES = ("Sta3", "Sta8")
"""States in which we must answer; what arrives is read after that (PS3.8 table 9-1)."""

_CLOSING_STATE = "Sta13"
_POLL_SECONDS = {"Sta2": 0.2, "Sta6": 0.2, _CLOSING_STATE: _CLOSE_TIMEOUT}
"""Wait for a peer, by state, when there is nothing else to do.

In the last state the peer closes the connection: otherwise the kernel may drop our last PDU.
"""

_CLOSED_EVENT, _INVALID_EVENT = "Evt17", "Evt19"

_EXPECTED_PDUS = {
    "Sta1": (A_ASSOCIATE_RQ, A_ABORT_RQ),  # shortly before Sta2
    "Sta2": (A_ASSOCIATE_RQ, A_ABORT_RQ),
    "Sta6": (P_DATA_TF, A_RELEASE_RQ, A_ABORT_RQ),
}
"""PDUs that a peer may send, by state (PS3.8 table 9-10)."""


def address_family(address: tuple[str, int]) -> socket.AddressFamily:
    """Return the family of an address to listen on."""
    return AddressInformation.from_tuple(address).address_family


def run_association(
    connection: PeerConnection,
    local: SocketAddress,
    remote: SocketAddress,
    request_timeout: float,
) -> None:
    """Serve a peer until its association ends; its request must come within `request_timeout`."""
    context = connection.context
    association = Association(AE(ae_title=context.config.ae_title), "acceptor")
    acceptor = association.acceptor
    acceptor.maximum_length = MAX_PDU_BYTES
    acceptor.ae_title = context.config.ae_title
    acceptor.address_info = AddressInformation.from_tuple(local)
    acceptor.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    acceptor.implementation_version_name = f"CXRSR_{__version__}"[:16]
    acceptor.supported_contexts = deepcopy(context.presentation_contexts)
    association.requestor.address_info = AddressInformation.from_tuple(remote)
    messages = BoundedDimseProvider(association, connection)
    association.dimse = messages
    association.dul = BoundedDulProvider(association, messages)
    association.set_socket(BoundedSocket(association, messages, connection))
    association.acse_timeout = request_timeout
    association.network_timeout = None  # `BoundedDimseProvider` checks the deadlines
    # pynetdicom's own handlers would log everything that a peer sends.
    for event in (evt.EVT_DIMSE_RECV, evt.EVT_DIMSE_SENT, evt.EVT_PDU_RECV, evt.EVT_PDU_SENT):
        for handler, _ in list(cast("list[tuple[Any, Any]]", association.get_handlers(event))):
            association.unbind(event, handler)
    association.bind(evt.EVT_REQUESTED, _on_request, [messages])
    association.bind(evt.EVT_PDU_RECV, _on_pdu, [messages])
    association.bind(evt.EVT_FSM_TRANSITION, _on_transition, [messages])
    association.bind(evt.EVT_C_STORE, _on_store, [messages])
    association.run()


class BoundedSocket(AssociationSocket):
    """The socket of an association, with limits of size and time.

    While a message is served, nothing is read.
    """

    def __init__(
        self,
        association: Association,
        messages: "BoundedDimseProvider",
        connection: PeerConnection,
    ) -> None:
        super().__init__(association, client_socket=connection.socket)
        self._messages = messages
        self._connection = connection
        self._send_timeout = connection.context.config.limits.idle_timeout
        self._deadline = 0.0
        self._has_header = False

    @property
    def ready(self) -> bool:
        """Whether there is something to read; waits a short time if not."""
        dul = self.assoc.dul
        state = dul.state_machine.current_state
        if self.socket is None or self._messages.is_busy or state in _LOCAL_TURN_STATES:
            return False
        if not dul.event_queue.empty() and state != _CLOSING_STATE:
            return False  # a queued event may end the association
        # A response is queued before the messages stop being busy.
        wait = _POLL_SECONDS.get(state, 0.0) if dul.to_provider_queue.empty() else 0.0
        try:
            if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
                return True
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            return bool(poll.poll(wait * 1000))
        except (OSError, ValueError):
            self.event_queue.put(_CLOSED_EVENT)
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Read the header of a PDU, or the rest of the PDU whose header was read last.

        Raises
        ------
        OSError
            If the PDU is too long, or does not arrive in time. The peer gets an A-ABORT.
        """
        has_header, self._has_header = self._has_header, False
        if has_header:
            is_requested = self.assoc.requestor.primitive is not None
            if nr_bytes > (_MAX_RECEIVED_PDU_BYTES if is_requested else _MAX_REQUEST_BYTES):
                self._abort(RefusalReason.TOO_LONG)
            return self._read(nr_bytes)
        self._deadline = (
            time.monotonic() + _CLOSE_TIMEOUT
            if self._connection.is_closing
            else self._messages.pdu_deadline()
        )
        header = self._read(nr_bytes)
        self._acknowledge()
        if header and header[0] not in _PDU_TYPES:
            self._connection.set_end_reason(RefusalReason.NOT_DICOM)
        else:
            self._has_header = len(header) == nr_bytes
        return header

    def _read(self, size: int) -> bytearray:
        received = bytearray(size)
        view = memoryview(received)
        at = 0
        while at < size:
            left = self._deadline - time.monotonic()
            if left <= 0 or self.socket is None:
                self._abort(RefusalReason.SLOW)
            try:
                self.socket.settimeout(left)
                count = self.socket.recv_into(view[at:])
            except TimeoutError:
                self._abort(RefusalReason.SLOW)
            if self._connection.is_severed:
                self._abort(RefusalReason.STOPPING)
            if not count:
                if at:
                    self._connection.set_end_reason(RefusalReason.BROKEN_OFF)
                return received[:at]
            at += count
            self._messages.note_activity()
        return received

    def _acknowledge(self) -> None:
        """Send the TCP acknowledgement at once, where the system can.

        Command and data set are small packets in a row. Many peers send the second only
        when the first is acknowledged, 40 ms later (RFC 896, RFC 1122).
        """
        if self.socket is not None and hasattr(socket, "TCP_QUICKACK"):
            with suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _abort(self, reason: RefusalReason) -> NoReturn:
        self._connection.set_end_reason(reason)
        self.event_queue.put(_INVALID_EVENT)  # sends an A-ABORT before the socket is closed
        raise OSError

    def send(self, bytestream: bytes) -> None:
        """Send a PDU within the idle timeout."""
        connection = self._connection
        if bytestream[0] == _ABORT:
            if connection.is_closing:  # pynetdicom repeats it for each invalid PDU
                return
            # Without another reason, pynetdicom could not decode what arrived.
            connection.set_end_reason(RefusalReason.MALFORMED)
            reason = connection.end_reason or RefusalReason.MALFORMED
            bytestream = bytes((*bytestream[:8], 2, ABORTS.get(reason, AbortReason.NOT_SPECIFIED)))
        if bytestream[0] in (_REJECTION, _RELEASE, _ABORT):
            connection.is_closing = True
        if self.socket is not None:
            with suppress(OSError):
                self.socket.settimeout(self._send_timeout)
        super().send(bytestream)


class BoundedDulProvider(DULServiceProvider):
    """The upper layer, whose thread ends in order whatever a peer sends."""

    def __init__(self, association: Association, messages: "BoundedDimseProvider") -> None:
        super().__init__(association)
        self.name = "association"
        self.daemon = True
        self._messages = messages

    def run_reactor(self) -> None:
        """Run until the connection is closed."""
        try:
            super().run_reactor()
        # pynetdicom raises for a PDU without required items, and for an event that is
        # not allowed in the state.
        except Exception:
            if self.socket is not None and self.socket.socket is not None:
                self.socket.send(_ABORT_PDU)
        finally:
            self._messages.discard_partial()
            # Ends the wait for an association request.
            self.to_user_queue.put(cast("Any", None))


class BoundedDimseProvider(DIMSEServiceProvider):
    """The messages of an association, one at a time (PS3.7 6.3 and D.3.3.3).

    The thread of the upper layer receives them; the thread of the association serves
    them. A message is checked as it arrives, and its data set goes to a file.
    """

    def __init__(self, association: Association, connection: PeerConnection) -> None:
        super().__init__(association)
        self.connection = connection
        self._limits = connection.context.config.limits
        self._last_activity = self._message_start = time.monotonic()
        self._contexts: dict[int, PresentationContext] = {}
        self._context_id = 0
        self._sink: StoreSink | None = None
        self._refusal: RefusalReason | None = None
        # Each counter is written by one of the two threads only.
        self._enqueued = self._served = self._taken = 0

    @property
    def is_busy(self) -> bool:
        """Whether a message is being served, or waits to be served."""
        return self._enqueued > self._served

    def note_activity(self) -> None:
        """Note that the peer sent something."""
        self._last_activity = time.monotonic()

    def pdu_deadline(self) -> float:
        """Return the deadline of a PDU that begins now, by `time.monotonic`."""
        if self.assoc.requestor.primitive is None:
            return self.connection.connected_at + self._limits.idle_timeout
        deadline = time.monotonic() + self._limits.idle_timeout
        if self.message is None:
            return deadline
        return min(deadline, self._message_start + self._limits.instance_timeout)

    # Thread of the upper layer.

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Receive the presentation data values of a P-DATA-TF (PS3.8 9.3.5 and annex E.2)."""
        try:
            if not primitive.presentation_data_value_list:
                raise ProtocolViolationError(RefusalReason.MALFORMED)
            for context_id, value in primitive.presentation_data_value_list:
                self._on_pdv(context_id, value)
        except ProtocolViolationError as error:
            self.abort_association(error.reason)
        # Bytes that are no command set can raise any error, with their values in its text.
        except Exception:
            self.abort_association(RefusalReason.MALFORMED)

    def abort_association(self, reason: RefusalReason) -> None:
        """Make the state machine abort the association."""
        self.connection.set_end_reason(reason)
        self.dul.event_queue.put(_INVALID_EVENT)

    def _on_pdv(self, context_id: int, value: bytes) -> None:
        if not value:
            raise ProtocolViolationError(RefusalReason.MALFORMED)
        if not self._contexts:
            self._contexts = {cast("int", cx.context_id): cx for cx in self.assoc.accepted_contexts}
        if self.message is None:
            self.message = DIMSEMessage()
            self._context_id = context_id
            self._message_start = time.monotonic()
        is_command = bool(value[0] & _COMMAND_FRAGMENT)
        if (
            self.is_busy  # a peer must wait for the response to its last message
            or context_id != self._context_id
            or context_id not in self._contexts
            or is_command is not (self._sink is None)
        ):
            raise ProtocolViolationError(RefusalReason.UNEXPECTED)
        if self.message.encoded_command_set.tell() + is_command * len(value) > _MAX_COMMAND_BYTES:
            raise ProtocolViolationError(RefusalReason.TOO_LONG)
        single = P_DATA()
        single.presentation_data_value_list.append((context_id, value))
        is_complete = self.message.decode_msg(single, self.assoc)
        if is_command and value[0] & _LAST_FRAGMENT:
            self._on_command(self.message, self._contexts[context_id], has_data_set=not is_complete)
        if is_complete:
            self._enqueue(self.message)

    def _on_command(
        self, message: DIMSEMessage, context: PresentationContext, *, has_data_set: bool
    ) -> None:
        command = message.command_set
        if any(element.tag.group != _COMMAND_GROUP for element in command):
            raise ProtocolViolationError(RefusalReason.MALFORMED)
        if int(command.CommandField) & _RESPONSE:
            raise ProtocolViolationError(RefusalReason.UNEXPECTED)
        request = StoreRequest(
            sop_class=str(command.get("AffectedSOPClassUID") or ""),
            sop_instance=str(command.get("AffectedSOPInstanceUID") or ""),
            transfer_syntax=context.transfer_syntax[0],
        )
        self._refusal = _request_refusal(int(command.CommandField), request, context, has_data_set)
        # pynetdicom fails on invalid UIDs, and the response must not repeat them.
        for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"):
            if keyword in command and not is_uid(str(command[keyword].value)):
                del command[keyword]
        if has_data_set:
            folder = self.connection.context.folder
            self._sink = StoreSink(request, folder, self._limits, self._refusal)
            message.data_set = self._sink

    def _enqueue(self, message: DIMSEMessage) -> None:
        request = cast("DimseServiceType", message.message_to_primitive())
        if isinstance(request, C_CANCEL):  # no supported operation can be cancelled
            self.message = None
            return
        if request.MessageID is None or (self._refusal is None and not request.is_valid_request):
            raise ProtocolViolationError(RefusalReason.MALFORMED)
        self._enqueued += 1
        self.message = self._sink = None
        self.msg_queue.put((self._context_id, request))

    def discard_partial(self) -> None:
        """Remove the files of messages that will not be served."""
        if self.message is not None:
            self.connection.set_end_reason(RefusalReason.BROKEN_OFF)
        if self._sink is not None:
            self._sink.discard_partial()
        while not self.msg_queue.empty():
            try:
                _, request = self.msg_queue.get_nowait()
            except queue.Empty:  # the other thread took the message
                return
            if isinstance(request, C_STORE) and isinstance(request.DataSet, StoreSink):
                request.DataSet.discard_partial()

    # Thread of the association.

    def wake(self) -> None:
        """End the wait for a message."""
        self.msg_queue.put((None, None))

    def get_msg(self, block: bool = False) -> tuple[None, None] | tuple[int, DimseServiceType]:  # noqa: ARG002
        """Return the next message, or two None after a short wait.

        The caller has served the last message by then.
        """
        if self._taken > self._served:
            self._served = self._taken
            self.note_activity()  # the peer's idle time begins now
        reason = self._reason_to_end()
        if reason is not None:
            self.connection.set_end_reason(reason)
            self.assoc.abort()
            return None, None
        try:
            context_id, request = self.msg_queue.get(timeout=_MESSAGE_POLL_SECONDS)
        except queue.Empty:
            return None, None
        if context_id is None or request is None:
            return None, None
        self._taken = self._enqueued
        if self._refusal is None:
            return context_id, request
        self._refuse(request, context_id, self._refusal)
        return None, None

    def _reason_to_end(self) -> RefusalReason | None:
        if self.is_busy or not self.assoc.is_established:
            return None
        now = time.monotonic()
        if self.message is None and self.connection.context.stopping.is_set():
            return RefusalReason.STOPPING
        deadline = (
            self.connection.connected_at + self._limits.association_timeout
            if self.message is None
            else self._message_start + self._limits.instance_timeout
        )
        deadline = min(deadline, self._last_activity + self._limits.idle_timeout)
        return RefusalReason.SLOW if now > deadline else None

    def _refuse(self, request: DimseServiceType, context_id: int, reason: RefusalReason) -> None:
        """Answer a request without passing it to a service of pynetdicom."""
        self.connection.report(reason)
        response = type(request)()
        response.MessageIDBeingRespondedTo = request.MessageID
        for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"):
            if getattr(request, keyword, None) is not None:
                setattr(response, keyword, getattr(request, keyword))
        response.Status = int(STATUSES[reason])
        self.send_msg(response, context_id)


def _on_request(event: evt.Event, messages: BoundedDimseProvider) -> None:
    """Reject an association request, or reduce it to what can be accepted."""
    # pynetdicom would log an exception and accept the association.
    try:
        reason = _rejection_reason(event.assoc, messages.connection)
    except Exception:
        reason = RefusalReason.INTERNAL
    if reason is not None:
        messages.connection.set_end_reason(reason)
        rejection = REJECTIONS[reason]
        event.assoc.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
        event.assoc.kill()


def _rejection_reason(association: Association, connection: PeerConnection) -> RefusalReason | None:
    request = association.requestor.primitive
    if request is None:
        return RefusalReason.INTERNAL
    reason = connection.rejection_reason(
        request.calling_ae_title.strip(), request.called_ae_title.strip()
    )
    if reason is None and request.application_context_name != APPLICATION_CONTEXT_NAME:
        reason = RefusalReason.APPLICATION
    accept_first_proposed_syntax(
        request.presentation_context_definition_list, connection.context.presentation_contexts
    )
    return reason


def _on_pdu(event: evt.Event, messages: BoundedDimseProvider) -> None:
    """Check the order of PDUs before the state machine, which does not know about messages."""
    state = event.assoc.dul.state_machine.current_state
    if state in _EXPECTED_PDUS and not isinstance(event.pdu, _EXPECTED_PDUS[state]):
        messages.connection.set_end_reason(RefusalReason.UNEXPECTED)
    if isinstance(event.pdu, A_RELEASE_RQ) and messages.message is not None:
        messages.abort_association(RefusalReason.UNEXPECTED)


def _on_transition(event: evt.Event, messages: BoundedDimseProvider) -> None:
    """Note why the state machine ends an association."""
    match event.action, event.fsm_event:
        case "AE-6", _ if event.next_state == _CLOSING_STATE:
            messages.connection.set_end_reason(RefusalReason.VERSION)
        case "AR-2", _:
            messages.wake()
        case "AA-2", "Evt18" if event.current_state == "Sta2":
            messages.connection.set_end_reason(RefusalReason.SLOW)


def _on_store(event: evt.Event, messages: BoundedDimseProvider) -> Dataset:
    """Return the status of a C-STORE response."""
    connection = messages.connection
    data_set = cast("C_STORE", event.request).DataSet
    if isinstance(data_set, StoreSink):
        result = data_set.finish(
            connection.context.accept,
            calling_ae=connection.calling_ae,
            called_ae=connection.called_ae,
            address=connection.address,
        )
    else:
        result = StoreResult.refused(RefusalReason.NO_DATA_SET)
    status = Dataset()
    status.Status = int(result.status)
    if result.reason is not None:
        connection.report(result.reason)
        status.ErrorComment = result.reason[:_MAX_COMMENT_LENGTH]
    return status


def _request_refusal(
    field: int, request: StoreRequest, context: PresentationContext, has_data_set: bool
) -> RefusalReason | None:
    """Return why a request is refused; None to serve it."""
    if field == _CANCEL and not has_data_set:
        return None
    if field not in (_STORE, _ECHO) or (field == _ECHO and has_data_set):
        return RefusalReason.OPERATION
    if field == _STORE and not has_data_set:
        return RefusalReason.NO_DATA_SET
    if not is_uid(request.sop_class) or (field == _STORE and not is_uid(request.sop_instance)):
        return RefusalReason.ILLEGAL_UID
    expected = VERIFICATION if field == _ECHO else context.abstract_syntax
    return None if request.sop_class == expected else RefusalReason.SOP_CLASS
