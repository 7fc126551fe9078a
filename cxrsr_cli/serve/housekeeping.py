"""What people do to a queue, and what time does."""

import time
from collections.abc import Sequence

from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.serve.queue import Queue
from cxrsr_cli.serve.spool import Spool
from cxrsr_cli.serve.state import State

_DAY = 86400.0


def forget_old(queue: Queue, ledger: Ledger, spool: Spool, days: float) -> int:
    """Forget what was done or ignored so many days ago; return how many.

    Raises
    ------
    OutputError
        If the queue cannot be written.
    """
    keys = queue.ended_before(time.time() - days * _DAY)
    ledger.forget([spool.output(key) for key in keys])
    queue.forget(keys)
    return len(keys)


def retry_dead(queue: Queue, spool: Spool, keys: Sequence[str]) -> None:
    """Have dead instances tried again from where they died.

    Parameters
    ----------
    queue, spool
        Of the node, which may run.
    keys : sequence of str
        Of instances that are dead.

    Raises
    ------
    OutputError
        If the queue cannot be written.
    """
    for key in keys:
        queue.revive(key)
        spool.take_back(key)


def purge_dead(queue: Queue, ledger: Ledger, spool: Spool, keys: Sequence[str]) -> None:
    """Remove dead instances with their files.

    Raises
    ------
    OutputError
        If the queue cannot be written.
    """
    ledger.forget([spool.output(key) for key in keys])
    queue.forget(keys)
    for key in keys:
        spool.clear(key)


def dead_keys(queue: Queue, beginnings: Sequence[str]) -> list[str]:
    """Return the keys of dead instances that begin as given, of all if nothing is."""
    keys = [item.key for item in queue.items(State.DEAD)]
    if not beginnings:
        return keys
    return [key for key in keys if key.startswith(tuple(beginnings))]
