"""pynetdicom's application entity, with what it leaves open closed.

Importing this sets two things for the process: C-STORE of a path sends the
file in pieces as it is, and pynetdicom does not put what passes into words.
"""

import queue
import socket
from contextlib import suppress
from typing import Any

from pynetdicom import _config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from cxrsr_cli.connections.destination import SendOutcome
from cxrsr_cli.errors import NetworkError, UnreadableFileError


class AssociationLostError(NetworkError):
    """The association ended before the peer answered."""


class PartialSendError(UnreadableFileError):
    """A file failed while it was under way: the association can carry nothing more."""


class AssociationFailedError(NetworkError):
    """There is no association; `outcome` is what that makes of the files."""

    def __init__(self, outcome: SendOutcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


_config.STORE_SEND_CHUNKED_DATASET = True
_config.LOG_HANDLER_LEVEL = "none"

_AT_ONCE: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux only, and forgotten by it after a while."""
_QUEUED = 16
"""PDUs that wait for the network; some 16 KiB each with most peers."""


class _Socket(AssociationSocket):
    """Does not wait for acknowledgements, and is closed in every case."""

    def send(self, bytestream: bytes) -> None:
        """Send, and acknowledge the answer at once: a peer may hold back its rest until then."""
        super().send(bytestream)
        if self.socket is not None and _AT_ONCE is not None:
            with suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_TCP, _AT_ONCE, 1)

    def _shutdown_socket(self) -> None:
        super()._shutdown_socket()
        if self.socket is not None:
            self.socket.close()


class PatchedAE(ApplicationEntity):
    """An application entity whose associations are quick, and leave no socket behind."""

    def _create_socket(self, assoc: Association, address: Any, tls_args: Any) -> AssociationSocket:  # noqa: ANN401
        connection = _Socket(assoc, address=address)
        connection.tls_args = tls_args
        if connection.socket is not None:
            # A request is several small packets; each would wait for the peer's delayed ACK.
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


class _ResponseQueue(queue.Queue[Any]):
    """What the peer answers, for who waits for it.

    pynetdicom's thread of the association looks for requests in the same queue, and
    is not always paused when it should be. We get none there: an N-EVENT-REPORT
    takes another way.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ANN401
        """Wait for an answer; nothing for who does not wait."""
        if not block:
            raise queue.Empty
        return super().get(block, timeout)


class _BoundedPduQueue(queue.Queue[Any]):
    """PDUs for pynetdicom's thread to send, no more of them than the network takes.

    Its own queue takes a whole object of any size, for ever, and its thread
    fails over what is left in it when the peer breaks off.
    """

    def __init__(self, patience: float) -> None:
        super().__init__()
        self._patience = patience
        self._closed = self._gone = False

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ANN401
        if isinstance(item, P_DATA):
            with self.not_full:
                room = self.not_full.wait_for(self._has_room, self._patience)
                if self._closed or not room:
                    raise AssociationLostError("it takes nothing more")
        if not self._gone:
            super().put(item, block, timeout)

    def close(self) -> None:
        """Forget what waits, and take nothing more: the connection is gone."""
        self.reject_new_data()
        self._gone = True

    def reject_new_data(self) -> bool:
        """Forget what waits, and take no more data; tell whether something waited."""
        with self.not_full:
            self._closed, waited = True, bool(self.queue)
            self.queue.clear()
            self.not_full.notify_all()
        return waited

    def _has_room(self) -> bool:
        return self._closed or self._qsize() < _QUEUED


def harden_association(association: Association, timeout: float) -> None:
    """Bound the memory and the time that sending takes, and let no answer get lost."""
    association.dimse.msg_queue = _ResponseQueue()
    association.dul.to_provider_queue = _BoundedPduQueue(timeout)
    connection = association.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.settimeout(timeout)


def drop_pending_pdus(event: Event) -> None:
    """Take it that the connection is gone."""
    outgoing = event.assoc.dul.to_provider_queue
    if isinstance(outgoing, _BoundedPduQueue):
        outgoing.close()


def abort_association(association: Association) -> None:
    """Abort, without what still waits to be sent."""
    outgoing = association.dul.to_provider_queue
    if not (association.is_established and isinstance(outgoing, _BoundedPduQueue)):
        return
    if outgoing.reject_new_data():
        # The thread may be held up by a peer that does not read; an A-ABORT would be, too.
        connection = association.dul.socket
        with suppress(OSError, AttributeError):
            connection.socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
    association.abort()
