"""Acknowledge an instance: only when neither a kill nor a power cut can lose it."""

from collections.abc import Callable

from cxrsr_cli.common.files import fsync_path
from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.errors import OutputError
from cxrsr_cli.receive.context import ReceivedInstance
from cxrsr_cli.serve.events import Event, EventKind, Say
from cxrsr_cli.serve.queue import ItemState, Queue
from cxrsr_cli.serve.spool import Spool, instance_key

_KNOWN = (ItemState.RECEIVED, ItemState.SENDING, ItemState.DONE)


class InstanceAcceptor:
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

    def accept(self, arrival: ReceivedInstance) -> DimseStatus:
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
            key = instance_key(arrival)
            fsync_path(arrival.path)
            is_new = self._take(key, arrival)
            arrival.path.unlink(missing_ok=True)
        except (OutputError, OSError) as error:
            reason = error.strerror or "I/O error" if isinstance(error, OSError) else str(error)
            self._said(Event(kind=EventKind.ERROR, peer=peer, reason=reason))
            return DimseStatus.OUT_OF_RESOURCES
        kind = EventKind.RECEIVED if is_new else EventKind.DUPLICATE
        self._said(Event(kind=kind, key=key, peer=peer))
        self._wake()
        return DimseStatus.SUCCESS

    def _take(self, key: str, arrival: ReceivedInstance) -> bool:
        """Take an instance, if it is not here already; tell whether it was not.

        Its file is never removed again here: the same one may have been there before,
        and the next start makes something of a file without an entry.
        """
        with self._queue.transaction():
            state = self._queue.state_of(key)
            if state in _KNOWN:
                return False
            if state is ItemState.DEAD and self._is_made(key):
                # Made again it would be another file, and go twice to who has it.
                self._spool.remove_dead_letter(key)
                self._queue.requeue(key)
                return False
            self._spool.move_to_received(arrival.path, key)
            self._queue.enqueue(key, arrival.calling_ae, arrival.called_ae, arrival.address)
            self._spool.reset(key)
        return True

    def _is_made(self, key: str) -> bool:
        return self._queue.has_deliveries(key) and self._spool.output(key).exists()
