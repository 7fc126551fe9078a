"""Acknowledge an instance: only when neither a kill nor a power cut can lose it."""

import threading
from collections.abc import Callable

from cxrsr_cli.errors import OutputError
from cxrsr_cli.receive.arrival import Arrival
from cxrsr_cli.receive.status import Status
from cxrsr_cli.serve.events import Event, EventKind, Say
from cxrsr_cli.serve.queue import Queue
from cxrsr_cli.serve.spool import Spool, key_of
from cxrsr_cli.serve.state import State

_KNOWN = (State.RECEIVED, State.SENDING, State.DONE)


class Intake:
    """Takes instances from the network into spool and queue.

    Parameters
    ----------
    spool : Spool
        Gets the files.
    queue : Queue
        Gets the entries.
    said : callable
        Is told.
    wake : callable
        Called when there is something to work on.
    """

    def __init__(self, spool: Spool, queue: Queue, said: Say, wake: Callable[[], None]) -> None:
        self._spool = spool
        self._queue = queue
        self._said = said
        self._wake = wake
        # Two associations may send one instance at once.
        self._lock = threading.Lock()

    def accept(self, arrival: Arrival) -> Status:
        """Take an instance.

        Parameters
        ----------
        arrival : Arrival
            Whole; its file is moved away or removed if this succeeds.

        Returns
        -------
        Status
            Success (PS3.4 B.2.3) once file and entry are flushed to the disk; or out of
            resources, so that the sender tries again.
        """
        peer = f"{arrival.calling_ae} {arrival.address}"
        try:
            key = key_of(arrival.sop_instance_uid, arrival.path)
            with self._lock:
                known = self._queue.state_of(key)
                if known in _KNOWN:
                    arrival.path.unlink(missing_ok=True)
                else:
                    self._take(key, arrival)
        except (OutputError, OSError) as error:
            reason = error.strerror or "I/O error" if isinstance(error, OSError) else str(error)
            self._said(Event(kind=EventKind.TROUBLE, peer=peer, reason=reason))
            return Status.OUT_OF_RESOURCES
        if known in _KNOWN:
            self._said(Event(kind=EventKind.DUPLICATE, key=key, peer=peer))
            return Status.SUCCESS
        self._said(Event(kind=EventKind.RECEIVED, key=key, peer=peer))
        self._wake()
        return Status.SUCCESS

    def _take(self, key: str, arrival: Arrival) -> None:
        self._spool.clear(key)
        self._spool.keep(arrival.path, key)
        try:
            self._queue.admit(key, arrival)
        except OutputError:
            self._spool.clear(key)
            raise
