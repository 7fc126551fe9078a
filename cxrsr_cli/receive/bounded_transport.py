"""pynetdicom's upper layer, with bounds (PS3.8 9.2).

Its own socket collects as many bytes as a PDU claims to have, and waits for them
without end; it is asked a thousand times a second whether something came.
"""

import select
import socket
import ssl
import time
from contextlib import suppress
from typing import NoReturn

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationSocket

from cxrsr_cli.receive.connection import PeerConnection
from cxrsr_cli.receive.dimse_provider import BoundedDimseProvider
from cxrsr_cli.receive.presentation_contexts import MAX_PDU_BYTES
from cxrsr_cli.receive.refusal import ABORTS, AbortReason, RefusalReason

_MAX_REQUEST_BYTES = 1 << 18
"""Bytes of an A-ASSOCIATE-RQ: 128 contexts with all transfer syntaxes of the standard fit."""

_MAX_PDU_BYTES = 8 * MAX_PDU_BYTES
"""Bytes; some peers send longer PDUs than was negotiated, and mean no harm."""

_TYPES = range(1, 8)
_REJECTION, _RELEASE, _ABORT = 3, 6, 7

_ABORT_PDU = bytes((_ABORT, 0, 0, 0, 0, 4, 0, 0, 2, 0))

_CLOSE_TIMEOUT = 1.0
"""Seconds in which a peer may close first, and in which the rest of a PDU may come meanwhile."""

_LOCAL_TURN_STATES = ("Sta3", "Sta8")
"""States in which it is for us to answer; what comes meanwhile is read after that."""

_CLOSING_STATE = "Sta13"
_POLL_SECONDS = {"Sta2": 0.2, "Sta6": 0.2, _CLOSING_STATE: _CLOSE_TIMEOUT}
"""Seconds to wait for a peer, by state of the machine, where there is nothing else to do.

In the last state it is the peer who closes: else the kernel could drop our last words.
"""

_INVALID = "Evt19"
_CLOSED = "Evt17"


class BoundedSocket(AssociationSocket):
    """The connection of an association.

    Parameters
    ----------
    association : Association
        Whose it is.
    messages : Messages
        Those of the association; as long as one is served, nothing is read.
    caller : Caller
        The peer; its connection is used.
    """

    def __init__(
        self, association: Association, messages: BoundedDimseProvider, caller: PeerConnection
    ) -> None:
        super().__init__(association, client_socket=caller.connection)
        self._messages = messages
        self._caller = caller
        self._idle = caller.node.config.limits.idle_timeout
        self._deadline = 0.0
        self._within = False

    @property
    def ready(self) -> bool:
        """Tell whether there is something to read, after a while if not yet."""
        dul = self.assoc.dul
        state = dul.state_machine.current_state
        if self.socket is None or self._messages.is_busy or state in _LOCAL_TURN_STATES:
            return False
        if not dul.event_queue.empty() and state != _CLOSING_STATE:
            return False  # what came before may be the end
        # Answers are queued before the messages are no longer busy.
        wait = _POLL_SECONDS.get(state, 0.0) if dul.to_provider_queue.empty() else 0.0
        try:
            if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
                return True
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            return bool(poll.poll(wait * 1000))
        except (OSError, ValueError):
            self.event_queue.put(_CLOSED)
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Read the header of a PDU, or the rest of the PDU whose header was read last.

        Raises
        ------
        OSError
            If it is too long, or not all there in time. The peer is told first.
        """
        within, self._within = self._within, False
        if within:
            requested = self.assoc.requestor.primitive is not None
            if nr_bytes > (_MAX_PDU_BYTES if requested else _MAX_REQUEST_BYTES):
                self._abort(RefusalReason.TOO_LONG)
            return self._fill(nr_bytes)
        self._deadline = (
            time.monotonic() + _CLOSE_TIMEOUT
            if self._caller.is_over
            else self._messages.pdu_deadline()
        )
        header = self._fill(nr_bytes)
        self._acknowledge()
        if header and header[0] not in _TYPES:
            self._caller.set_end_reason(RefusalReason.NOT_DICOM)
        else:
            self._within = len(header) == nr_bytes
        return header

    def _fill(self, size: int) -> bytearray:
        filled = bytearray(size)
        view = memoryview(filled)
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
            if self._caller.cut:
                self._abort(RefusalReason.STOPPING)
            if not count:
                if at:
                    self._caller.set_end_reason(RefusalReason.BROKEN_OFF)
                return filled[:at]
            at += count
            self._messages.note_activity()
        return filled

    def _acknowledge(self) -> None:
        """Acknowledge at once, where the system can.

        A command and its data set are small packets in a row, of which many peers
        send the second only when the first is acknowledged, 40 ms later (RFC 896, RFC 1122).
        """
        if self.socket is not None and hasattr(socket, "TCP_QUICKACK"):
            with suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _abort(self, reason: RefusalReason) -> NoReturn:
        self._caller.set_end_reason(reason)
        self.event_queue.put(_INVALID)  # so that an A-ABORT is sent before all is closed
        raise OSError

    def send(self, bytestream: bytes) -> None:
        """Send a PDU, within the time that a peer may be idle."""
        if bytestream[0] == _ABORT:
            if self._caller.is_over:  # it would be repeated for all that is no PDU
                return
            # Nobody else said why: pynetdicom could not decode what came.
            self._caller.set_end_reason(RefusalReason.MALFORMED)
            reason = self._caller.reason or RefusalReason.MALFORMED
            bytestream = bytes((*bytestream[:8], 2, ABORTS.get(reason, AbortReason.NOT_SPECIFIED)))
        if bytestream[0] in (_REJECTION, _RELEASE, _ABORT):
            self._caller.is_over = True
        if self.socket is not None:
            with suppress(OSError):
                self.socket.settimeout(self._idle)
        super().send(bytestream)


class BoundedDulProvider(DULServiceProvider):
    """The provider of the upper layer, whose thread ends in order whatever a peer did."""

    def __init__(
        self, association: Association, messages: BoundedDimseProvider, caller: PeerConnection
    ) -> None:
        super().__init__(association)
        self.name = "association"
        self.daemon = True
        self._messages = messages
        self._caller = caller

    def run_reactor(self) -> None:
        """Run until the connection is closed."""
        try:
            super().run_reactor()
        # pynetdicom lets out what a PDU without the items that it needs, or an event
        # that its state does not know, raises.
        except Exception:
            if self.socket is not None and self.socket.socket is not None:
                self.socket.send(_ABORT_PDU)
        finally:
            self._messages.discard_partial()
            # Who waits for a request waits no longer.
            self.to_user_queue.put(None)
