"""Bring outputs to one destination, and be stubborn about it."""

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from cxrsr_cli.batch.result import to_reportable_error
from cxrsr_cli.connections.destination import Destination, SendOutcome, SendResult
from cxrsr_cli.serve.events import Event, EventKind
from cxrsr_cli.serve.maintenance import remove_files_if_finished
from cxrsr_cli.serve.node_context import NodeContext
from cxrsr_cli.serve.queue import Delivery, ItemState

_LOG = logging.getLogger(__name__)

_BATCH_SIZE = 32
"""Outputs sent in one go, over one association."""


@dataclass(slots=True, kw_only=True)
class DeliveryWorker:
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
    context: NodeContext
    _failures: int = field(default=0, init=False)
    """Rounds in a row in which nothing arrived."""
    _backoff_until: float = field(default=0.0, init=False)

    def run_once(self) -> bool:
        """Send what is due; tell whether anything was."""
        if time.monotonic() < self._backoff_until:
            return False
        limit = 1 if self._failures else _BATCH_SIZE
        waiting = self.context.queue.due_deliveries(self.name, limit)
        if not waiting:
            return False
        files = [self.context.spool.output(delivery.key) for delivery in waiting]
        outcomes: list[SendOutcome] = []

        def stop() -> bool:
            return self.context.stop() or outcomes == [SendOutcome.FAILED]

        with closing(self._sending(files, stop)) as sending:
            for delivery, sent in zip(waiting, sending, strict=False):
                # With storage commitment the rest was under way already.
                if sent.is_stored or outcomes != [SendOutcome.FAILED]:
                    outcomes.append(self._record_outcome(delivery, sent))
        self._update_backoff(outcomes)
        return True

    def _sending(
        self, files: Sequence[Path], stop: Callable[[], bool]
    ) -> Generator[SendResult, None, None]:
        """Send, whatever goes wrong."""
        left = list(files)
        try:
            # Closed early, a destination ends its association in order.
            with closing(
                cast("Generator[SendResult, None, None]", self.destination.send(files, stop))
            ) as sending:
                for sent in sending:
                    left.pop(0)
                    yield sent
        except Exception as error:
            failure = to_reportable_error(error)
            for path in left:
                yield SendResult(path, SendOutcome.FAILED, str(failure))

    def _update_backoff(self, outcomes: Sequence[SendOutcome]) -> None:
        """Rest if nothing arrived."""
        if set(outcomes) != {SendOutcome.FAILED}:
            self._failures = 0
            return
        self._failures += 1
        retry = self.context.retry
        delay = retry.delay_after(self._failures) or retry.max_delay
        self._backoff_until = time.monotonic() + delay
        _LOG.info("nothing arrives at %s; next attempt in %.0f s", self.name, delay)

    def _record_outcome(self, delivery: Delivery, sent: SendResult) -> SendOutcome:
        """Write down what became of an output; return it as it is seen here."""
        queue, name = self.context.queue, self.name
        if sent.is_stored:
            state = queue.mark_sent(delivery)
            self._report(EventKind.SENT, delivery, sent)
            if state is ItemState.DONE:
                remove_files_if_finished(queue, self.context.spool, delivery.key)
            return sent.outcome
        # Refused for what we are, such as an unknown title, all outputs would be.
        for_good = sent.outcome is SendOutcome.REFUSED and not sent.sender_rejected
        wait = None if for_good else self.context.retry.delay_after(delivery.attempts + 1)
        with queue.transaction():
            state = queue.mark_failed(delivery, sent.message, wait)
            if state is ItemState.DEAD:
                self.context.spool.write_dead_letter(delivery.key, f"{name}: {sent.message}")
        self._report(EventKind.DEAD if wait is None else EventKind.RETRY, delivery, sent)
        return SendOutcome.REFUSED if for_good else SendOutcome.FAILED

    def _report(self, kind: EventKind, delivery: Delivery, sent: SendResult) -> None:
        self.context.on_event(
            Event(kind=kind, key=delivery.key, destination=self.name, reason=sent.message)
        )
