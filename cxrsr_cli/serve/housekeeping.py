"""What a start, people and time do to a queue and its files, which others use at that moment."""

import time
from collections.abc import Iterable, Sequence

from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.serve.queue import Queue
from cxrsr_cli.serve.spool import Spool
from cxrsr_cli.serve.state import FINAL, Delivery, State
from cxrsr_cli.serve.survey import Survey

_DAY = 86400.0
_EVERYTHING = 1 << 30


def recover(queue: Queue, spool: Spool) -> int:
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
    spool.remove_half_written()
    found = 0
    for key in spool.keys("received"):
        if queue.state_of(key) is None:
            queue.admit(key)
            found += 1
    for folder in ("received", "outputs", "dead"):
        for key in spool.keys(folder):
            clear_if_over(queue, spool, key)
            if folder == "dead" and queue.state_of(key) is not State.DEAD:
                spool.take_back(key)
    return found


def lay_out_missing(queue: Queue, survey: Survey, spool: Spool) -> None:
    """Write the dead letters that a full disk or a kill prevented."""
    for item in survey.items(State.DEAD):
        if not spool.is_laid_out(item.key):
            with queue.held():
                if queue.state_of(item.key) is State.DEAD:
                    spool.lay_out(item.key, item.reason)


def clear_if_over(queue: Queue, spool: Spool, key: str) -> None:
    """Remove the files of an instance that needs none; it may have come again meanwhile."""
    with queue.held():
        if queue.state_of(key) in (None, *FINAL):
            spool.clear(key)


def forget_old(queue: Queue, ledger: Ledger, spool: Spool, days: float) -> int:
    """Forget what was done or ignored so many days ago; return how many."""
    keys = queue.forget_before(time.time() - days * _DAY)
    ledger.forget([spool.output(key) for key in keys])
    return len(keys)


def retry_dead(queue: Queue, spool: Spool, keys: Iterable[str]) -> int:
    """Have dead instances tried again from where they died; return how many."""
    count = 0
    for key in keys:
        with queue.held():
            if queue.state_of(key) is State.DEAD:
                spool.take_back(key)
                queue.revive(key)
                count += 1
    return count


def purge_dead(queue: Queue, spool: Spool, keys: Iterable[str]) -> int:
    """Remove dead instances with their files; return how many.

    They are known as ignored for a while, so that a kill in the middle brings none back.
    """
    count = 0
    for key in keys:
        with queue.held():
            dead = queue.state_of(key) is State.DEAD
            queue.drop(key, "removed by hand")
        clear_if_over(queue, spool, key)
        count += dead
    return count


def give_up_lost(queue: Queue, spool: Spool, name: str) -> int:
    """Make dead letters of what waits for a destination that is none any more."""
    deliveries: list[Delivery] = queue.due_at(name, _EVERYTHING)
    for delivery in deliveries:
        reason = f"{name} is no destination any more"
        with queue.held():
            if queue.undelivered(delivery, reason, None) is State.DEAD:
                spool.lay_out(delivery.key, reason)
    return len(deliveries)


def dead_keys(survey: Survey, beginnings: Sequence[str]) -> list[str]:
    """Return the keys of dead instances that begin as given, of all if nothing is."""
    keys = [item.key for item in survey.items(State.DEAD)]
    if not beginnings:
        return keys
    return [key for key in keys if key.startswith(tuple(beginnings))]
