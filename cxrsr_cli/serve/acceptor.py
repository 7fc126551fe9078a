"""Acknowledge an instance once neither a kill nor a power cut can lose it."""

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

        A failure after the move leaves the file: it may be that of an earlier reception,
        and the next start queues files without an entry.
        """
        spool, queue = self._context.spool, self._context.queue
        with queue.transaction():
            state = queue.state_of(key)
            if state in _KNOWN_STATES:
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
