"""Bring outputs to one destination, and be stubborn about it."""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import cast

from cxrsr_cli.batch.failure import as_failure
from cxrsr_cli.send.destination import Destination, Outcome, Sent
from cxrsr_cli.serve.events import Event, EventKind
from cxrsr_cli.serve.means import Means
from cxrsr_cli.serve.state import Delivery, State

_TOGETHER = 32
"""Outputs sent in one go, over one association."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Courier:
    """Sends what waits for a destination.

    Attributes
    ----------
    name : str
        Of the destination in the configuration.
    destination : Destination
        Where to.
    means : Means
        What it works with.
    """

    name: str
    destination: Destination
    means: Means

    def round(self) -> bool:
        """Send what is due; tell whether anything was."""
        deliveries = self.means.queue.due_at(self.name, _TOGETHER)
        if not deliveries:
            return False
        waiting = list(deliveries)
        files = [self.means.spool.output(delivery.key) for delivery in deliveries]
        try:
            # Closed early, a destination ends its association in order.
            with closing(cast("Generator[Sent]", self.destination.send(files))) as sending:
                for sent in sending:
                    self._settle(waiting.pop(0), sent)
                    if self.means.stop():
                        break
        except Exception as error:
            failure = as_failure(error)
            for delivery in waiting:
                path = self.means.spool.output(delivery.key)
                self._settle(delivery, Sent(path, Outcome.FAILED, str(failure)))
        return True

    def _settle(self, delivery: Delivery, sent: Sent) -> None:
        key, name = delivery.key, self.name
        if sent.arrived:
            state = self.means.queue.delivered(delivery)
            self.means.said(
                Event(kind=EventKind.SENT, key=key, destination=name, reason=sent.message)
            )
        else:
            wait = self.means.retry.after(delivery.attempts + 1)
            if sent.outcome is Outcome.REFUSED:
                wait = None
            due = None if wait is None else time.time() + wait
            state = self.means.queue.undelivered(delivery, sent.message, due)
            kind = EventKind.DEAD if due is None else EventKind.POSTPONED
            self.means.said(Event(kind=kind, key=key, destination=name, reason=sent.message))
        if state is State.DONE:
            self.means.spool.clear(key)
        elif state is State.DEAD:
            self.means.spool.lay_out(key, f"{name}: {sent.message}")
