"""PDUs of a peer that may send anything (PS3.8 9.3).

pynetdicom's own server collects as many bytes as a PDU claims to have, waits for
them without end, does the TLS handshake of one peer while all others wait, and
queues messages as fast as they come. Its classes that decode and encode are
used; between them and the socket stands this module, where all is bounded.
"""

import select
import socket
import ssl
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from cxrsr_cli.serve.refusal import Abort, BrokenOffError, Reason, Rejection

_HEADER = struct.Struct(">BxI")
_LINGER = 2.0
"""Seconds in which a peer may close after us: else the kernel could drop our last words."""


class Kind(IntEnum):
    """PDU-type."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class Waited(StrEnum):
    """What ended the wait for a peer."""

    READY = "ready"
    WOKEN = "woken"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Pdu:
    """A protocol data unit.

    Attributes
    ----------
    kind : Kind
        Its type.
    body : bytearray
        What follows the six bytes of its header.
    """

    kind: Kind
    body: bytearray

    def encode(self) -> bytes:
        """Return all of it."""
        return _HEADER.pack(self.kind, len(self.body)) + self.body


class Connection:
    """A connection from a peer.

    Parameters
    ----------
    accepted : socket.socket
        As accepted; owned from now on.
    idle : float
        Seconds that sending may take.
    wake : int
        A file descriptor that becomes readable to end `wait`.
    """

    def __init__(self, accepted: socket.socket, idle: float, wake: int) -> None:
        self._socket = accepted
        self._idle = idle
        self._wake = wake
        self._silenced = False

    def secure(self, context: ssl.SSLContext, deadline: float) -> None:
        """Do the TLS handshake.

        Raises
        ------
        BrokenOffError
            If it fails, or does not end in time.
        """
        try:
            self._socket = context.wrap_socket(
                self._socket, server_side=True, do_handshake_on_connect=False
            )
            self._socket.settimeout(_left(deadline))
            self._socket.do_handshake()
        except TimeoutError:
            raise BrokenOffError(Reason.SLOW) from None
        except (OSError, ValueError):
            raise BrokenOffError(Reason.TLS) from None

    def wait(self, seconds: float) -> Waited:
        """Wait for the peer to send, or for `wake`."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return Waited.READY
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._socket, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(max(seconds, 0) * 1000)]
        if self._wake in ready:
            return Waited.WOKEN
        return Waited.READY if ready else Waited.IDLE

    def read(self, largest: int, deadline: float) -> Pdu | None:
        """Read a PDU.

        Parameters
        ----------
        largest : int
            Bytes of its body.
        deadline : float
            Of `time.monotonic`; by then all of it must be there.

        Returns
        -------
        Pdu or None
            None if the peer closed instead.

        Raises
        ------
        BrokenOffError
            If it is none, too long, late or cut off.
        """
        header = self._fill(_HEADER.size, deadline, may_end=True)
        if not header:
            return None
        number, length = _HEADER.unpack(header)
        try:
            kind = Kind(number)
        except ValueError:
            raise BrokenOffError(Reason.NOT_DICOM) from None
        if length > largest:
            raise BrokenOffError(Reason.TOO_LONG)
        return Pdu(kind, self._fill(length, deadline))

    def _fill(self, size: int, deadline: float, *, may_end: bool = False) -> bytearray:
        filled = bytearray(size)
        view = memoryview(filled)
        at = 0
        while at < size:
            try:
                self._socket.settimeout(_left(deadline))
                count = self._socket.recv_into(view[at:])
            except TimeoutError:
                raise BrokenOffError(Reason.SLOW) from None
            except (OSError, ValueError):  # closed under the hands of this thread
                count = 0
            if not count or self._silenced:
                if may_end and not at:
                    return bytearray()
                raise BrokenOffError(Reason.BROKEN_OFF)
            at += count
        return filled

    def send(self, encoded: bytes) -> None:
        """Send a PDU.

        Raises
        ------
        BrokenOffError
            If the peer does not take it in time.
        """
        try:
            self._socket.settimeout(self._idle)
            self._socket.sendall(encoded)
        except TimeoutError:
            raise BrokenOffError(Reason.SLOW) from None
        except (OSError, ValueError):
            raise BrokenOffError(Reason.BROKEN_OFF) from None

    def reject(self, rejection: Rejection) -> None:
        """Send an A-ASSOCIATE-RJ."""
        fields = (0, rejection.result, rejection.source, rejection.diagnostic)
        self.send(Pdu(Kind.ASSOCIATE_RJ, bytearray(fields)).encode())

    def abort(self, reason: Abort) -> None:
        """Send an A-ABORT of the service provider."""
        self.send(Pdu(Kind.ABORT, bytearray((0, 0, 2, reason))).encode())

    def silence(self) -> None:
        """Take no more of what the peer sends; may be called from another thread."""
        # What has come, and what still comes, could be read all the same (Linux).
        self._silenced = True
        with suppress(OSError):
            # Not that of ssl, which drops the session that the other thread uses.
            socket.socket.shutdown(self._socket, socket.SHUT_RD)

    def cut(self) -> None:
        """End sending as well; may be called from another thread."""
        with suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close, after the peer had a little time to read what was sent last."""
        with suppress(OSError, ValueError):
            deadline = time.monotonic() + min(_LINGER, self._idle)
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket.settimeout(_left(deadline))
                self._socket.unwrap()
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            dropped = bytearray(1 << 16)
            while True:
                self._socket.settimeout(_left(deadline))
                if not self._socket.recv_into(dropped):
                    break
        self._socket.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
