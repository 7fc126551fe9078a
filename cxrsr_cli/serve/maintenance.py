"""Keep queue and files consistent: at the start, on request of a user, and as time passes.

Other threads and processes may use queue and spool at the same time.
"""

import time
from collections.abc import Iterable, Sequence

from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.serve.queue import FINAL, Delivery, ItemState, Queue, QueueView
from cxrsr_cli.serve.spool import Spool

_SECONDS_PER_DAY = 86400.0
_NO_LIMIT = 1 << 30


def reconcile(queue: Queue, spool: Spool) -> int:
    """Make files and queue agree after a process was killed or the queue was lost.

    Returns
    -------
    int
        Number of instances queued again: complete files without an entry. Their
        senders may have seen success.

    Raises
    ------
    OutputError
        If a file or the queue cannot be used.
    """
    spool.remove_partial_files()
    found = 0
    for key in spool.keys("received"):
        if queue.state_of(key) is None:
            queue.enqueue(key)
            found += 1
    for folder in ("received", "outputs", "dead"):
        for key in spool.keys(folder):
            remove_files_if_finished(queue, spool, key)
            if folder == "dead" and queue.state_of(key) is not ItemState.DEAD:
                spool.remove_dead_letter(key)
    return found


def write_missing_dead_letters(queue: Queue, view: QueueView, spool: Spool) -> None:
    """Write the dead letters that a full disk or a kill prevented."""
    for item in view.items(ItemState.DEAD):
        if not spool.has_dead_letter(item.key):
            with queue.transaction():
                if queue.state_of(item.key) is ItemState.DEAD:
                    spool.write_dead_letter(item.key, item.reason)


def remove_files_if_finished(queue: Queue, spool: Spool, key: str) -> None:
    """Remove the files of a finished instance, unless it was received again."""
    with queue.transaction():
        if queue.state_of(key) in (None, *FINAL):
            spool.clear(key)


def delete_history(queue: Queue, ledger: Ledger, spool: Spool, days: float) -> int:
    """Delete the entries of instances finished this many days ago; return their number."""
    keys = queue.delete_finished_before(time.time() - days * _SECONDS_PER_DAY)
    ledger.delete([spool.output(key) for key in keys])
    return len(keys)


def retry_dead(queue: Queue, spool: Spool, keys: Iterable[str]) -> int:
    """Queue dead instances again at the step that failed; return their number."""
    count = 0
    for key in keys:
        with queue.transaction():
            if queue.state_of(key) is ItemState.DEAD:
                spool.remove_dead_letter(key)
                queue.requeue(key)
                count += 1
    return count


def purge_dead(queue: Queue, spool: Spool, keys: Iterable[str]) -> int:
    """Remove dead instances with their files; return their number.

    Their entries stay as ignored, so that a kill halfway does not queue the files again.
    """
    count = 0
    for key in keys:
        with queue.transaction():
            is_dead = queue.state_of(key) is ItemState.DEAD
            queue.discard(key, "removed by hand")
        remove_files_if_finished(queue, spool, key)
        count += is_dead
    return count


def give_up_removed_destination(queue: Queue, spool: Spool, name: str) -> int:
    """Give up the pending deliveries to a destination that the configuration lacks."""
    deliveries: list[Delivery] = queue.due_deliveries(name, _NO_LIMIT)
    for delivery in deliveries:
        reason = f"the configuration has no destination {name}"
        with queue.transaction():
            if queue.mark_failed(delivery, reason, None) is ItemState.DEAD:
                spool.write_dead_letter(delivery.key, reason)
    return len(deliveries)


def find_dead(view: QueueView, prefixes: Sequence[str]) -> list[str]:
    """Return the keys of dead instances with one of the prefixes; all without prefixes."""
    keys = [item.key for item in view.items(ItemState.DEAD)]
    if not prefixes:
        return keys
    return [key for key in keys if key.startswith(tuple(prefixes))]
