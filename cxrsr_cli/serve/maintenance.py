"""What a start, people and time do to a queue and its files, which others use at that moment."""

import time
from collections.abc import Iterable, Sequence

from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.serve.queue import FINAL, Delivery, ItemState, Queue
from cxrsr_cli.serve.queue_view import QueueView
from cxrsr_cli.serve.spool import Spool

_DAY = 86400.0
_EVERYTHING = 1 << 30


def reconcile(queue: Queue, spool: Spool) -> int:
    """Make files and queue agree after a process that was killed, or a queue that was lost.

    Returns
    -------
    int
        Instances that are taken in anew: whole files that no entry is of. Perhaps their
        senders were told of success.

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


def write_missing_dead_letters(queue: Queue, survey: QueueView, spool: Spool) -> None:
    """Write the dead letters that a full disk or a kill prevented."""
    for item in survey.items(ItemState.DEAD):
        if not spool.has_dead_letter(item.key):
            with queue.transaction():
                if queue.state_of(item.key) is ItemState.DEAD:
                    spool.write_dead_letter(item.key, item.reason)


def remove_files_if_finished(queue: Queue, spool: Spool, key: str) -> None:
    """Remove the files of an instance that needs none; it may have come again meanwhile."""
    with queue.transaction():
        if queue.state_of(key) in (None, *FINAL):
            spool.clear(key)


def delete_history(queue: Queue, ledger: Ledger, spool: Spool, days: float) -> int:
    """Forget what was done or ignored so many days ago; return how many."""
    keys = queue.delete_finished_before(time.time() - days * _DAY)
    ledger.delete([spool.output(key) for key in keys])
    return len(keys)


def retry_dead(queue: Queue, spool: Spool, keys: Iterable[str]) -> int:
    """Have dead instances tried again from where they died; return how many."""
    count = 0
    for key in keys:
        with queue.transaction():
            if queue.state_of(key) is ItemState.DEAD:
                spool.remove_dead_letter(key)
                queue.requeue(key)
                count += 1
    return count


def purge_dead(queue: Queue, spool: Spool, keys: Iterable[str]) -> int:
    """Remove dead instances with their files; return how many.

    They are known as ignored for a while, so that a kill in the middle brings none back.
    """
    count = 0
    for key in keys:
        with queue.transaction():
            dead = queue.state_of(key) is ItemState.DEAD
            queue.discard(key, "removed by hand")
        remove_files_if_finished(queue, spool, key)
        count += dead
    return count


def give_up_removed_destination(queue: Queue, spool: Spool, name: str) -> int:
    """Make dead letters of what waits for a destination that is none any more."""
    deliveries: list[Delivery] = queue.due_deliveries(name, _EVERYTHING)
    for delivery in deliveries:
        reason = f"{name} is no destination any more"
        with queue.transaction():
            if queue.mark_failed(delivery, reason, None) is ItemState.DEAD:
                spool.write_dead_letter(delivery.key, reason)
    return len(deliveries)


def find_dead(survey: QueueView, beginnings: Sequence[str]) -> list[str]:
    """Return the keys of dead instances that begin as given, of all if nothing is."""
    keys = [item.key for item in survey.items(ItemState.DEAD)]
    if not beginnings:
        return keys
    return [key for key in keys if key.startswith(tuple(beginnings))]
