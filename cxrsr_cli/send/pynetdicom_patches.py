"""Every use of undocumented members of pynetdicom for sending, behind plain functions.

tests/send/test_pynetdicom_contract.py checks these members of the installed pynetdicom.
"""

import errno
import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

_TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux only; the kernel turns it off again after a while."""
_MAX_QUEUED_PDUS = 16
"""PDUs that wait for the network; 16 KiB each with most peers."""
_MAX_END_SECONDS = 2.0
"""For the peer to take our A-ABORT or A-RELEASE when nobody needs its answer (PS3.8 9.2)."""
_MAX_PDU_BYTES = 1 << 20
"""Of a peer. We announce 16 KiB, but some send longer ones without bad intent."""
_MAX_MESSAGE_BYTES = 8 << 20
"""Of a peer; a result of storage commitment has 10,000 instances at most."""
_PDU_HEADER_BYTES = 6
_MIN_WAIT_SECONDS = 0.001
"""A timeout of 0 would mean a socket that does not wait."""
_INVALID_EVENT = "Evt19"
"""Makes the state machine abort the association (PS3.8 table 9-9)."""
_LOGGED_EVENTS = (evt.EVT_DIMSE_RECV, evt.EVT_DIMSE_SENT, evt.EVT_PDU_RECV, evt.EVT_PDU_SENT)


class _BoundedSocket(AssociationSocket):
    """A socket with limits of size and time, which acknowledges at once.

    It is closed even if its shutdown fails.
    """

    _deadline = 0.0

    def recv(self, nr_bytes: int) -> bytearray:
        """Read the header of a PDU, with which its time begins, or the rest of it.

        Raises
        ------
        OSError
            If the PDU is too long, or does not arrive in time.
        """
        timeout = self.assoc.ae.acse_timeout or 0.0
        if nr_bytes == _PDU_HEADER_BYTES:
            self._deadline = time.monotonic() + timeout
        if nr_bytes > _MAX_PDU_BYTES or self.socket is None:
            raise OSError(errno.EMSGSIZE, "a PDU beyond the limit")
        received = bytearray(nr_bytes)
        view, at = memoryview(received), 0
        try:
            while at < nr_bytes:
                self.socket.settimeout(max(self._deadline - time.monotonic(), _MIN_WAIT_SECONDS))
                count = self.socket.recv_into(view[at:])
                if not count:
                    break
                at += count
                if time.monotonic() > self._deadline:
                    raise TimeoutError
        finally:
            self.socket.settimeout(timeout)
            view.release()
        return received[:at]

    def send(self, bytestream: bytes) -> None:
        """Send, and acknowledge the answer at once: some peers wait for that."""
        super().send(bytestream)
        if self.socket is not None and _TCP_QUICKACK is not None:
            with suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)

    def _shutdown_socket(self) -> None:
        super()._shutdown_socket()
        if self.socket is not None:
            self.socket.close()


class PatchedAE(ApplicationEntity):
    """An application entity that requests associations without delay, log or leaked socket."""

    def _create_socket(self, assoc: Association, address: Any, tls_args: Any) -> AssociationSocket:  # noqa: ANN401
        # A process that ends does not wait for its associations.
        assoc.daemon = assoc.dul.daemon = True
        # The handlers that are bound now format every message for pynetdicom's log.
        for event in _LOGGED_EVENTS:
            bound = cast("list[tuple[Any, ...]]", assoc.get_handlers(event))
            for handler, *_ in list(bound):
                assoc.unbind(event, handler)
        assoc.dimse = _BoundedMessages(assoc)
        connection = _BoundedSocket(assoc, address=address)
        connection.tls_args = tls_args
        if connection.socket is not None:
            # A request is several small packets; each would wait for the peer's delayed ACK.
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def make_server(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        """Return a server whose peers are bounded as those that we call."""
        options |= {"server_class": _BoundedServer, "request_handler": _BoundedRequestHandler}
        return super().make_server(*arguments, **options)


class _BoundedMessages(DIMSEServiceProvider):
    """Receives messages of limited length."""

    _received = 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take a part of a message; abort the association if the message is too long."""
        self._received += sum(len(value) for _, value in primitive.presentation_data_value_list)
        if self._received > _MAX_MESSAGE_BYTES:
            self.dul.event_queue.put(_INVALID_EVENT)
            return
        super().receive_primitive(primitive)
        if self.message is None:
            self._received = 0


class _BoundedRequestHandler(RequestHandler):
    """Serves a peer that calls us."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        association.dul.event_queue.queue.clear()  # of the socket that is replaced
        association.dimse = _BoundedMessages(association)
        association.dul.socket = _BoundedSocket(association, client_socket=self.request)
        return association


class _BoundedServer(ThreadedAssociationServer):
    """Listens; a silent peer does not keep the others, or the end, waiting for its handshake."""

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection."""
        context, self.ssl_context = self.ssl_context, None
        try:
            plain, address = super().get_request()
        finally:
            self.ssl_context = context
        plain.settimeout(self.ae.acse_timeout)
        if context is None:
            return plain, address
        try:
            return context.wrap_socket(plain, server_side=True), address
        except OSError:
            plain.close()
            raise


class _ResponseQueue(queue.Queue[Any]):
    """Response queue for the waiting caller only.

    pynetdicom's thread polls the same queue for requests and could take a response away.
    It needs none from here: an N-EVENT-REPORT takes another way.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ANN401
        """Wait for a response; a caller that does not wait gets none."""
        if not block:
            raise queue.Empty
        return super().get(block, timeout)


class _BoundedPduQueue(queue.Queue[Any]):
    """A bounded queue of PDUs that pynetdicom's thread sends.

    pynetdicom's own queue is unbounded, so a whole object could wait in memory, and its
    thread fails over what is left in the queue when the peer closes the connection.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__()
        self._timeout = timeout
        self._rejects_data = self._is_closed = False

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ANN401
        """Add a PDU; raises queue.Full if the peer accepts no data in time."""
        if isinstance(item, P_DATA):
            with self.not_full:
                has_room = self.not_full.wait_for(self._has_room, self._timeout)
                if self._rejects_data or not has_room:
                    raise queue.Full
        if not self._is_closed:
            super().put(item, block, timeout)

    def close(self) -> None:
        """Drop the pending PDUs and take no more, as the connection is closed."""
        self.reject_new_data()
        self._is_closed = True

    def reject_new_data(self) -> bool:
        """Drop the pending PDUs and take no more data; return whether any was pending."""
        with self.not_full:
            self._rejects_data, had_pending = True, bool(self.queue)
            self.queue.clear()
            self.not_full.notify_all()
        return had_pending

    def _has_room(self) -> bool:
        return self._rejects_data or self._qsize() < _MAX_QUEUED_PDUS


class _ChunkedDatasets:
    """Lets C-STORE read files in chunks: a setting of the process, set while it is needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._original = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._original = _config.STORE_SEND_CHUNKED_DATASET
                _config.STORE_SEND_CHUNKED_DATASET = True
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                _config.STORE_SEND_CHUNKED_DATASET = self._original


_CHUNKED_DATASETS = _ChunkedDatasets()


def harden_association(association: Association, timeout: float) -> None:
    """Bound the memory and the time that sending takes, and let no response get lost."""
    association.dimse.msg_queue = _ResponseQueue()
    association.dul.to_provider_queue = _BoundedPduQueue(timeout)
    connection = association.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.settimeout(timeout)


def send_file(association: Association, path: Path, message_id: int) -> int | None:
    """Send a file's data set by C-STORE, byte for byte and read in chunks.

    Returns
    -------
    int or None
        The response's status; None without a response.

    Raises
    ------
    RuntimeError
        If the association has ended.
    queue.Full
        If the peer accepts no more data.
    OSError
        If the file cannot be read.
    """
    with _CHUNKED_DATASETS:
        status: int | None = association.send_c_store(path, message_id, 0).get("Status")
        return status


def drop_pending_pdus(event: Event) -> None:
    """Handle EVT_CONN_CLOSE: nothing more can be sent."""
    pending = event.assoc.dul.to_provider_queue
    if isinstance(pending, _BoundedPduQueue):
        pending.close()


def release_association(association: Association) -> None:
    """Release without waiting long for the peer, as the caller needs nothing more of it."""
    _end(association, association.release)


def abort_association(association: Association) -> None:
    """Abort without sending what is still pending, and without waiting long for the peer."""
    pending = association.dul.to_provider_queue
    if not (association.is_established and isinstance(pending, _BoundedPduQueue)):
        return
    if pending.reject_new_data():
        # pynetdicom's thread may wait for a peer that does not read, and so would an A-ABORT.
        _close_connection(association)
    _end(association, association.abort)


def _end(association: Association, end: Callable[[], None]) -> None:
    """End the association in a thread: an interrupt may have left a lock of pynetdicom's taken."""
    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    thread.join(_MAX_END_SECONDS)
    if thread.is_alive():
        _close_connection(association)
        thread.join(_MAX_END_SECONDS)


def _close_connection(association: Association) -> None:
    connection = association.dul.socket
    if connection is not None and (own := connection.socket) is not None:
        with suppress(OSError):
            own.shutdown(socket.SHUT_RDWR)
