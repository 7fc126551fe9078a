"""Bring outputs to one destination, and be stubborn about it."""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import cast

from cxrsr_cli.batch.failure import as_failure
from cxrsr_cli.send.destination import Destination, Outcome, Sent
from cxrsr_cli.serve.events import Event, EventKind, Say
from cxrsr_cli.serve.queue import Queue
from cxrsr_cli.serve.retry import Retry
from cxrsr_cli.serve.spool import Spool
from cxrsr_cli.serve.state import Delivery, State

_TOGETHER = 32
"""Outputs sent in one go, over one association."""


class Courier:
    """Sends what waits for a destination.

    Parameters
    ----------
    name : str
        Of the destination in the configuration.
    destination : Destination
        Where to.
    spool, queue
        Where files and accounts are.
    retry : Retry
        When what failed is tried again.
    said : callable
        Is told.
    stop : callable
        Asked between files.
    """

    def __init__(
        self,
        name: str,
        destination: Destination,
        spool: Spool,
        queue: Queue,
        retry: Retry,
        said: Say,
        stop: Callable[[], bool],
    ) -> None:
        self.name = name
        self._destination = destination
        self._spool = spool
        self._queue = queue
        self._retry = retry
        self._said = said
        self._stop = stop

    def round(self) -> bool:
        """Send what is due; tell whether anything was."""
        deliveries = self._queue.due_at(self.name, _TOGETHER)
        if not deliveries:
            return False
        waiting = list(deliveries)
        files = [self._spool.output(delivery.key) for delivery in deliveries]
        try:
            # Closed early, a destination ends its association in order.
            with closing(cast("Generator[Sent]", self._destination.send(files))) as sending:
                for sent in sending:
                    self._settle(waiting.pop(0), sent)
                    if self._stop():
                        break
        except Exception as error:
            failure = as_failure(error)
            for delivery in waiting:
                path = self._spool.output(delivery.key)
                self._settle(delivery, Sent(path, Outcome.FAILED, str(failure)))
        return True

    def _settle(self, delivery: Delivery, sent: Sent) -> None:
        key, name = delivery.key, self.name
        if sent.arrived:
            state = self._queue.delivered(delivery)
            self._said(Event(kind=EventKind.SENT, key=key, destination=name, reason=sent.message))
        else:
            wait = self._retry.after(delivery.attempts + 1)
            if sent.outcome is Outcome.REFUSED:
                wait = None
            due = None if wait is None else time.time() + wait
            state = self._queue.undelivered(delivery, sent.message, due)
            kind = EventKind.DEAD if due is None else EventKind.POSTPONED
            self._said(Event(kind=kind, key=key, destination=name, reason=sent.message))
        if state is State.DONE:
            self._spool.clear(key)
        elif state is State.DEAD:
            self._spool.lay_out(key, f"{name}: {sent.message}")
