"""One association, from the A-ASSOCIATE-RQ to its end, in one thread (PS3.8 7 and 9.2).

Messages are served one after the other, as PS3.7 D.3.3.3 has it where no window of
asynchronous operations is negotiated: what a peer sends ahead stays in its
connection, and takes no memory here.
"""

import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from cxrsr_cli.serve.arrival import Arrival
from cxrsr_cli.serve.command import Command, Field
from cxrsr_cli.serve.connection import Connection, Kind, Pdu, Waited
from cxrsr_cli.serve.contexts import LARGEST_PDU, Negotiated, Supported, negotiate
from cxrsr_cli.serve.listener import Listener
from cxrsr_cli.serve.pace import Pace
from cxrsr_cli.serve.refusal import (
    ABORTS,
    REJECTIONS,
    BrokenOffError,
    Reason,
    Refusal,
    cleaned,
    is_title,
)
from cxrsr_cli.serve.status import Status
from cxrsr_cli.serve.storing import Sender, Storing, Verdict

_LARGEST_REQUEST = 1 << 18
"""Bytes of an A-ASSOCIATE-RQ: 128 contexts with all transfer syntaxes of the standard fit."""

_LARGEST_TAKEN = 8 * LARGEST_PDU
"""Bytes; some peers send longer PDUs than was negotiated, and mean no harm."""

_LARGEST_COMMAND = 1 << 14
_TITLES = struct.Struct(">H2x16s16s")
_VERSION = 1
_VALUE = struct.Struct(">IBB")
_COMMAND_FRAGMENT, _LAST_FRAGMENT = 1, 2
_SMALLEST_PDU = 64
_OUT_OF_THE_DOOR = 5.0
"""Seconds in which a peer that is rejected anyway may say who it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What all associations share.

    Attributes
    ----------
    listener : Listener
        Titles, peers and limits.
    folder : Path
        Where files are received.
    accept, said : callable
        Take instances and refusals.
    contexts : Supported
        What may be sent.
    pace : Pace
        Counts associations.
    stopping : Event
        Set when no new message is to be served.
    """

    listener: Listener
    folder: Path
    accept: Callable[[Arrival], Status]
    said: Callable[[Refusal], None]
    contexts: Supported
    pace: Pace
    stopping: Event

    def say(self, reason: Reason, address: str, title: str = "") -> None:
        """Tell of a refusal; nobody's trouble with it may reach a peer."""
        with suppress(Exception):
            self.said(Refusal(reason, address, cleaned(title)))


class Association:
    """An association with a peer, or the refusal of one.

    Parameters
    ----------
    node : Node
        What it shares with others.
    connection : Connection
        Of the peer; after the TLS handshake.
    address : str
        IP address of the peer.
    """

    def __init__(self, node: Node, connection: Connection, address: str) -> None:
        self._node = node
        self._limits = node.listener.limits
        self._connection = connection
        self._address = address
        self._title = ""
        self._negotiated = Negotiated({}, 0, b"")
        self._sender = Sender(calling_ae="", called_ae="", address=address)
        # The message that is being received.
        self._deadline: float | None = None
        self._context_id = 0
        self._command = bytearray()
        self._request: Command | None = None
        self._storing: Storing | None = None

    def refuse(self, reason: Reason, deadline: float) -> None:
        """Reject whatever is requested."""
        with suppress(BrokenOffError):
            deadline = min(deadline, time.monotonic() + _OUT_OF_THE_DOOR)
            request = self._connection.read(_LARGEST_REQUEST, deadline)
            if request is not None and request.kind is Kind.ASSOCIATE_RQ:
                self._read_titles(request)
                self._connection.reject(REJECTIONS[reason])
        self._node.say(reason, self._address, self._title)

    def serve(self, deadline: float) -> None:
        """Serve the peer until it is done, or broken off.

        Parameters
        ----------
        deadline : float
            Of `time.monotonic`; by then it must have requested the association.
        """
        try:
            if self._establish(deadline):
                self._serve_messages()
        except BrokenOffError as error:
            self._break_off(Reason.STOPPING if self._node.stopping.is_set() else error.reason)
        # A defect; its text could quote what the peer sent.
        except Exception:
            self._break_off(Reason.INTERNAL)
        finally:
            if self._storing is not None:
                self._storing.abandon()

    def _break_off(self, reason: Reason) -> None:
        with suppress(BrokenOffError):
            self._connection.abort(ABORTS[reason])
        self._node.say(reason, self._address, self._title)

    def _establish(self, deadline: float) -> bool:
        request = self._connection.read(_LARGEST_REQUEST, deadline)
        if request is None:  # somebody looked whether the port is open
            return False
        if request.kind is Kind.ABORT:
            return False
        if request.kind is not Kind.ASSOCIATE_RQ:
            raise BrokenOffError(Reason.UNEXPECTED)
        version, called, calling = self._read_titles(request)
        reason = self._objection(version, called, calling)
        if reason is None:
            try:
                self._negotiated = negotiate(request.encode(), self._node.contexts)
            except BrokenOffError as error:
                if error.reason not in REJECTIONS:
                    raise
                reason = error.reason
        if reason is not None:
            self._connection.reject(REJECTIONS[reason])
            self._node.say(reason, self._address, calling)
            return False
        self._sender = Sender(calling_ae=calling, called_ae=called, address=self._address)
        self._connection.send(self._negotiated.reply)
        return True

    def _read_titles(self, request: Pdu) -> tuple[int, str, str]:
        """Return protocol version, called and calling AE title (PS3.8 table 9-11)."""
        if len(request.body) < _TITLES.size:
            raise BrokenOffError(Reason.MALFORMED)
        version, *padded = _TITLES.unpack_from(request.body)
        called, calling = (title.decode("latin-1").strip("\0 ") for title in padded)
        self._title = calling
        return version, called, calling

    def _objection(self, version: int, called: str, calling: str) -> Reason | None:
        listener = self._node.listener
        if not version & _VERSION:
            return Reason.VERSION
        if not is_title(calling) or not listener.knows(self._address, calling):
            return Reason.CALLING_AE
        wrong = called != listener.ae_title and not listener.any_called_ae
        if wrong or not is_title(called):
            return Reason.CALLED_AE
        # A title that nobody listed could be another one each time.
        name = calling if listener.names(calling) else ""
        return None if self._node.pace.admits((self._address, name)) else Reason.RATE

    def _serve_messages(self) -> None:
        ends = time.monotonic() + self._limits.association_seconds
        while True:
            deadline = time.monotonic() + self._limits.idle
            if self._deadline is None:
                self._wait(min(deadline, ends))
                deadline = time.monotonic() + self._limits.idle
            else:
                deadline = min(deadline, self._deadline)
            pdu = self._connection.read(_LARGEST_TAKEN, deadline)
            if pdu is None or pdu.kind is Kind.ABORT:
                if self._deadline is not None:
                    self._node.say(Reason.BROKEN_OFF, self._address, self._title)
                return
            if pdu.kind is Kind.RELEASE_RQ and self._deadline is None:
                self._connection.send(Pdu(Kind.RELEASE_RP, bytearray(4)).encode())
                return
            if pdu.kind is not Kind.P_DATA:
                raise BrokenOffError(Reason.UNEXPECTED)
            self._take(pdu.body)

    def _wait(self, until: float) -> None:
        """Wait for the next message."""
        waited = self._connection.wait(until - time.monotonic())
        if self._node.stopping.is_set():
            raise BrokenOffError(Reason.STOPPING)
        if waited is not Waited.READY:
            raise BrokenOffError(Reason.SLOW)

    def _take(self, body: bytearray) -> None:
        """Take the presentation data values of a P-DATA-TF (PS3.8 9.3.5 and annex E.2)."""
        view = memoryview(body)
        at = 0
        while True:
            if len(body) - at < _VALUE.size:
                raise BrokenOffError(Reason.MALFORMED)
            length, context_id, control = _VALUE.unpack_from(body, at)
            begins, at = at + _VALUE.size, at + 4 + length
            if length < 2 or at > len(body):
                raise BrokenOffError(Reason.MALFORMED)
            self._take_value(context_id, control, view[begins:at])
            if at == len(body):
                return

    def _take_value(self, context_id: int, control: int, piece: memoryview) -> None:
        if self._deadline is None:
            self._deadline = time.monotonic() + self._limits.instance_seconds
            self._context_id = context_id
        is_command = bool(control & _COMMAND_FRAGMENT)
        if (
            context_id != self._context_id
            or context_id not in self._negotiated.contexts
            or is_command is not (self._storing is None)
        ):
            raise BrokenOffError(Reason.UNEXPECTED)
        if self._storing is not None:
            self._storing.take(piece)
        else:
            self._command += piece
            if len(self._command) > _LARGEST_COMMAND:
                raise BrokenOffError(Reason.TOO_LONG)
        if not control & _LAST_FRAGMENT:
            return
        if self._storing is None:
            self._begin(Command.decode(bytes(self._command)))
        else:
            self._answer(self._storing.end(self._node.accept))

    def _begin(self, request: Command) -> None:
        self._request = request
        if request.field == Field.C_CANCEL and not request.has_data_set:
            self._forget()  # there is nothing that it could cancel
        elif request.field == Field.C_ECHO and not request.has_data_set:
            self._answer(Verdict(Status.SUCCESS))
        else:
            context = self._negotiated.contexts[self._context_id]
            self._storing = Storing(request, context, self._sender, self._node.folder, self._limits)
            if not request.has_data_set:
                self._answer(self._storing.end(self._node.accept))

    def _answer(self, verdict: Verdict) -> None:
        if self._request is None:
            raise BrokenOffError(Reason.INTERNAL)
        if verdict.reason is not None:
            self._node.say(verdict.reason, self._address, self._title)
        encoded = self._request.response(verdict.status, verdict.reason or "")
        self._send(encoded)
        self._forget()

    def _send(self, encoded: bytes) -> None:
        """Send a command set in PDUs that the peer takes."""
        context_id = self._context_id
        largest = max(self._negotiated.largest_pdu or LARGEST_PDU, _SMALLEST_PDU) - _VALUE.size
        for at in range(0, len(encoded), largest):
            piece = encoded[at : at + largest]
            last = _LAST_FRAGMENT if at + largest >= len(encoded) else 0
            value = _VALUE.pack(len(piece) + 2, context_id, _COMMAND_FRAGMENT | last) + piece
            self._connection.send(Pdu(Kind.P_DATA, bytearray(value)).encode())

    def _forget(self) -> None:
        self._deadline = self._request = self._storing = None
        self._command.clear()
