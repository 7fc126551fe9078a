"""Bring outputs to one destination, and be stubborn about it."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from cxrsr_cli.batch.failure import as_failure
from cxrsr_cli.send.destination import Destination, Outcome, Sent
from cxrsr_cli.serve.events import Event, EventKind
from cxrsr_cli.serve.housekeeping import clear_if_over
from cxrsr_cli.serve.means import Means
from cxrsr_cli.serve.state import Delivery, State

_TOGETHER = 32
"""Outputs sent in one go, over one association."""


@dataclass(slots=True, kw_only=True)
class Courier:
    """Sends what waits for a destination.

    While nothing arrives there, it is tried with one output at a time, less and less
    often; the others wait without being counted as failed.

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
    _failures: int = field(default=0, init=False)
    """Rounds in a row in which nothing arrived."""
    _rests_until: float = field(default=0.0, init=False)

    def round(self) -> bool:
        """Send what is due; tell whether anything was."""
        if time.monotonic() < self._rests_until:
            return False
        limit = 1 if self._failures else _TOGETHER
        waiting = self.means.queue.due_at(self.name, limit)
        if not waiting:
            return False
        files = [self.means.spool.output(delivery.key) for delivery in waiting]
        outcomes: list[Outcome] = []

        def stop() -> bool:
            return self.means.stop() or outcomes == [Outcome.FAILED]

        with closing(self._sending(files, stop)) as sending:
            for delivery, sent in zip(waiting, sending, strict=False):
                # With storage commitment the rest was under way already.
                if sent.arrived or outcomes != [Outcome.FAILED]:
                    outcomes.append(self._settle(delivery, sent))
        self._look_at(outcomes)
        return True

    def _sending(
        self, files: Sequence[Path], stop: Callable[[], bool]
    ) -> Generator[Sent, None, None]:
        """Send, whatever goes wrong."""
        left = list(files)
        try:
            # Closed early, a destination ends its association in order.
            with closing(
                cast("Generator[Sent, None, None]", self.destination.send(files, stop))
            ) as sending:
                for sent in sending:
                    left.pop(0)
                    yield sent
        except Exception as error:
            failure = as_failure(error)
            for path in left:
                yield Sent(path, Outcome.FAILED, str(failure))

    def _look_at(self, outcomes: Sequence[Outcome]) -> None:
        """Rest if nothing arrived."""
        if set(outcomes) != {Outcome.FAILED}:
            self._failures = 0
            return
        self._failures += 1
        retry = self.means.retry
        self._rests_until = time.monotonic() + (retry.after(self._failures) or retry.longest)

    def _settle(self, delivery: Delivery, sent: Sent) -> Outcome:
        """Write down what became of an output; return it as it is seen here."""
        queue, name = self.means.queue, self.name
        if sent.arrived:
            state = queue.delivered(delivery)
            self._say(EventKind.SENT, delivery, sent)
            if state is State.DONE:
                clear_if_over(queue, self.means.spool, delivery.key)
            return sent.outcome
        # Refused for what we are, such as an unknown title, all outputs would be.
        for_good = sent.outcome is Outcome.REFUSED and not sent.about_us
        wait = None if for_good else self.means.retry.after(delivery.attempts + 1)
        with queue.held():
            state = queue.undelivered(delivery, sent.message, wait)
            if state is State.DEAD:
                self.means.spool.lay_out(delivery.key, f"{name}: {sent.message}")
        self._say(EventKind.DEAD if wait is None else EventKind.POSTPONED, delivery, sent)
        return Outcome.REFUSED if for_good else Outcome.FAILED

    def _say(self, kind: EventKind, delivery: Delivery, sent: Sent) -> None:
        self.means.said(
            Event(kind=kind, key=delivery.key, destination=self.name, reason=sent.message)
        )
