"""A DICOM node that receives: the SCP of Verification and Storage (PS3.4 annexes A and B)."""

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pydicom.uid import UID

from cxrsr_cli.errors import NetworkError, OutputError
from cxrsr_cli.serve.arrival import Arrival
from cxrsr_cli.serve.association import Association, Node
from cxrsr_cli.serve.connection import Connection
from cxrsr_cli.serve.contexts import storage_classes, supported_contexts
from cxrsr_cli.serve.incoming import remove_leftovers
from cxrsr_cli.serve.listener import Listener
from cxrsr_cli.serve.pace import Pace
from cxrsr_cli.serve.refusal import BrokenOffError, Reason, Refusal
from cxrsr_cli.serve.status import Status

_DOORWAY = 128
"""Connections beyond the associations that are told why before they are closed."""

_BACKLOG = 128
_BREATH = 0.1
"""Seconds until a connection is accepted again where the system had no room for one."""

_LAST_WORDS = 5.0
"""Seconds in which aborted associations end."""


def _say_nothing(_: Refusal) -> None:
    pass


class Receiver:
    """Receives instances from peers, each straight to a file.

    Every association has a thread of its own, and takes bounded memory: a PDU of at
    most 1 MiB at a time, and beside that what reading one file takes, of which one
    is read at a time.

    Parameters
    ----------
    listener : Listener
        Where to listen, to whom, and within which limits.
    folder : Path
        Where files are received; made if it is not there. It must belong to this
        process alone, since what is left in it by one that was killed is removed.
    accept : callable
        Is given each `Arrival` whose file is whole, checked and closed, but not
        flushed to the disk: flush it, and the folder that it is moved to, before
        `Status.SUCCESS` is returned, after which the peer may delete its own. Upon
        success the file is the callable's; upon any other status, which the peer is
        answered with, or an exception, which it learns as out of resources, the
        file is removed. Called from several threads at once.
    said : callable, optional
        Is given each `Refusal`; from several threads at once. What it raises is lost.
    tls : ssl.SSLContext, optional
        Of a server. Without one, connections are plain.
    sop_classes : sequence of UID, optional
        Storage SOP Classes that are received.
    """

    def __init__(
        self,
        listener: Listener,
        folder: Path,
        accept: Callable[[Arrival], Status],
        said: Callable[[Refusal], None] = _say_nothing,
        *,
        tls: ssl.SSLContext | None = None,
        sop_classes: Sequence[UID] | None = None,
    ) -> None:
        self._listener = listener
        self._tls = tls
        self._stopping, self._closing = threading.Event(), threading.Event()
        self._node = Node(
            listener=listener,
            folder=folder,
            accept=accept,
            said=said,
            contexts=supported_contexts(storage_classes() if sop_classes is None else sop_classes),
            pace=Pace(listener.limits.per_minute),
            stopping=self._stopping,
        )
        self._changed = threading.Condition()
        self._served: dict[Connection, threading.Thread] = {}
        self._refused: dict[Connection, threading.Thread] = {}
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._wakes: list[_Wake] = []

    @property
    def port(self) -> int:
        """Port that is listened on."""
        if self._socket is None:
            raise NetworkError("the receiver is not listening")
        port: int = self._socket.getsockname()[1]
        return port

    def start(self) -> None:
        """Listen, and serve peers from now on, in threads.

        Raises
        ------
        NetworkError
            If the address and port cannot be listened on.
        OutputError
            If the folder cannot be made or cleared.
        """
        try:
            self._node.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self._node.folder)
        except OSError as error:
            raise OutputError(
                f"cannot receive to {self._node.folder}: {error.strerror or 'I/O error'}"
            ) from None
        self._socket = self._listen()
        self._wakes = [_Wake(), _Wake()]
        self._thread = threading.Thread(target=self._accept_all, name="receiver", daemon=True)
        self._thread.start()

    def _listen(self) -> socket.socket:
        address, port = self._listener.address, self._listener.port
        try:
            family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
            dualstack = address == "::" and socket.has_dualstack_ipv6()
            return socket.create_server(
                (address, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dualstack
            )
        except OSError as error:
            raise NetworkError(
                f"cannot listen on {address} port {port}: {error.strerror or 'I/O error'}"
            ) from None

    def stop(self, patience: float) -> None:
        """End all associations and listen no more.

        From now on associations are rejected as transient, and those that are idle
        are aborted; a message that is being received is finished and answered first.

        Parameters
        ----------
        patience : float
            Seconds after which such messages are aborted.
        """
        if self._thread is None or self._socket is None:
            return
        self._stopping.set()
        self._wakes[0].set()
        self._wait_for_end(patience)
        self._closing.set()
        self._wakes[1].set()
        self._thread.join(_LAST_WORDS)
        self._socket.close()
        for end in (Connection.silence, Connection.cut):
            for connection in self._connections():
                end(connection)
            self._wait_for_end(_LAST_WORDS)
        # A thread that is left works for `accept`, and looks at nothing of this.
        for wake in self._wakes:
            wake.close()
        self._thread = self._socket = None

    def _connections(self) -> list[Connection]:
        with self._changed:
            return [*self._served, *self._refused]

    def _wait_for_end(self, patience: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not (self._served or self._refused), patience)

    def _accept_all(self) -> None:
        assert self._socket is not None  # noqa: S101
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wakes[1].reader, select.POLLIN)
        while not self._closing.is_set():
            poll.poll()
            if self._closing.is_set():
                return
            try:
                accepted, place = self._socket.accept()
            except OSError:  # no descriptors left, or the peer is gone already
                self._closing.wait(_BREATH)
                continue
            self._admit(accepted, str(place[0]))

    def _admit(self, accepted: socket.socket, address: str) -> None:
        """Give a connection a thread, if it is to have one."""
        if not self._listener.connectable_from(address):
            accepted.close()
            self._node.say(Reason.ADDRESS, address)
            return
        connection = Connection(accepted, self._listener.limits.idle, wake=self._wakes[0].reader)
        with self._changed:
            reason = self._reason_to_refuse()
            threads = self._served if reason is None else self._refused
            if reason is not None and len(threads) >= _DOORWAY:
                accepted.close()
                self._node.say(Reason.CROWDED, address)
                return
            thread = threading.Thread(
                target=self._attend,
                args=(connection, address, reason, threads),
                name="association",
                daemon=True,
            )
            threads[connection] = thread
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads
                del threads[connection]
                accepted.close()
                self._node.say(Reason.CROWDED, address)

    def _reason_to_refuse(self) -> Reason | None:
        if self._stopping.is_set():
            return Reason.STOPPING
        if len(self._served) >= self._listener.limits.associations:
            return Reason.LIMIT
        return None

    def _attend(
        self,
        connection: Connection,
        address: str,
        reason: Reason | None,
        threads: dict[Connection, threading.Thread],
    ) -> None:
        """Serve or refuse one connection."""
        try:
            deadline = time.monotonic() + self._listener.limits.idle
            if self._tls is not None:
                connection.secure(self._tls, deadline)
            association = Association(self._node, connection, address)
            if reason is None:
                association.serve(deadline)
            else:
                association.refuse(reason, deadline)
        except BrokenOffError as error:
            self._node.say(error.reason, address)
        finally:
            connection.close()
            with self._changed:
                del threads[connection]
                self._changed.notify_all()


class _Wake:
    """A pipe whose reading end becomes readable once, for all who poll it."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()

    def set(self) -> None:
        with suppress(OSError):
            os.write(self._writer, b"!")

    def close(self) -> None:
        os.close(self._reader_end())
        os.close(self._writer)

    def _reader_end(self) -> int:
        reader, self.reader = self.reader, -1
        return reader
