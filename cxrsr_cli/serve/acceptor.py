"""Acknowledge an instance once neither a kill nor a power cut can lose it."""

from contextlib import suppress

from cxrsr_cli.common.files import fsync_path
from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.errors import OutputError
from cxrsr_cli.receive.store_sink import ReceivedInstance
from cxrsr_cli.serve.events import Event, EventKind
from cxrsr_cli.serve.node_context import NodeContext
from cxrsr_cli.serve.queue import ItemState
from cxrsr_cli.serve.spool import instance_key

_KNOWN_STATES = (ItemState.RECEIVED, ItemState.SENDING, ItemState.DONE)


class InstanceAcceptor:
    """Moves received instances into spool and queue."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context

    def accept(self, instance: ReceivedInstance) -> DimseStatus:
        """Take an instance; on success, its file is moved or removed.

        Returns
        -------
        DimseStatus
            Success (PS3.4 B.2.3) once file and entry are flushed to the disk; otherwise
            out of resources, so that the sender tries again.
        """
        peer = f"{instance.calling_ae} {instance.address}"
        report = self._context.report
        try:
            key = instance_key(instance)
            fsync_path(instance.path)
            is_new = self._enqueue(key, instance)
            instance.path.unlink(missing_ok=True)
        except (OutputError, OSError) as error:
            reason = error.strerror or "I/O error" if isinstance(error, OSError) else str(error)
            report(Event(kind=EventKind.ERROR, peer=peer, reason=reason))
            return DimseStatus.OUT_OF_RESOURCES
        kind = EventKind.RECEIVED if is_new else EventKind.DUPLICATE
        report(Event(kind=kind, key=key, peer=peer))
        self._context.announce_work()
        return DimseStatus.SUCCESS

    def _enqueue(self, key: str, instance: ReceivedInstance) -> bool:
        """Move an instance into spool and queue; return false if it is there already.

        After a failure the file is removed, unless an earlier reception left it: the next start
        queues files without an entry, and the sender of this one is told that it was refused.
        """
        spool, queue = self._context.spool, self._context.queue
        is_refusable = False
        try:
            with queue.transaction():
                is_there = spool.received(key).exists()
                is_refusable = not is_there
                return self._enqueue_locked(key, instance, is_there=is_there)
        except (OutputError, OSError):
            if is_refusable:
                # Locked again, because the same instance may arrive twice at a time.
                with suppress(OutputError, OSError), queue.transaction():
                    if queue.state_of(key) is None:
                        spool.clear(key)
            raise

    def _enqueue_locked(self, key: str, instance: ReceivedInstance, *, is_there: bool) -> bool:
        spool, queue = self._context.spool, self._context.queue
        state = queue.state_of(key)
        if state in _KNOWN_STATES and (is_there or state is not ItemState.RECEIVED):
            return False
        if state is ItemState.DEAD and queue.has_deliveries(key) and spool.output(key).exists():
            # A second output would be a different file, which some destinations get twice.
            spool.remove_dead_letter(key)
            queue.requeue(key)
            return False
        spool.move_to_received(instance.path, key)
        queue.enqueue(key, instance.calling_ae, instance.called_ae, instance.address)
        spool.reset(key)
        return True
