"""Deliver outputs to one destination, and retry until they arrive."""

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from cxrsr_cli.batch.result import to_reportable_error
from cxrsr_cli.connections.destination import Destination, SendOutcome, SendResult
from cxrsr_cli.serve.events import Event, EventKind
from cxrsr_cli.serve.maintenance import remove_files_if_finished
from cxrsr_cli.serve.node_context import NodeContext
from cxrsr_cli.serve.queue import Delivery, ItemState

_LOG = logging.getLogger(__name__)

_BATCH_SIZE = 32
"""Outputs sent over one association."""


@dataclass(slots=True, kw_only=True)
class DeliveryWorker:
    """Sends the pending outputs of one destination.

    While the destination is down, one output at a time is sent at increasing intervals.
    The other outputs wait, and do not use up their attempts.
    """

    name: str
    destination: Destination
    context: NodeContext
    _failures: int = field(default=0, init=False)
    """Consecutive rounds in which nothing arrived."""
    _backoff_until: float = field(default=0.0, init=False)

    def run_once(self) -> bool:
        """Send what is due; tell whether anything was."""
        if time.monotonic() < self._backoff_until:
            return False
        limit = 1 if self._failures else _BATCH_SIZE
        deliveries = self.context.queue.due_deliveries(self.name, limit)
        if not deliveries:
            return False
        files = [self.context.spool.output(delivery.key) for delivery in deliveries]
        outcomes: list[SendOutcome] = []

        def should_stop() -> bool:
            return self.context.is_stopping() or outcomes == [SendOutcome.FAILED]

        with closing(self._send(files, should_stop)) as results:
            for delivery, result in zip(deliveries, results, strict=False):
                # With storage commitment, further outputs were already sent.
                if result.is_stored or outcomes != [SendOutcome.FAILED]:
                    outcomes.append(self._record_outcome(delivery, result))
        self._update_backoff(outcomes)
        return True

    def _send(
        self, files: Sequence[Path], should_stop: Callable[[], bool]
    ) -> Generator[SendResult, None, None]:
        """Yield the result of each file; an error is the result of those that are left."""
        left = list(files)
        try:
            # Closing a destination's generator early releases its association.
            with closing(self.destination.send(files, should_stop)) as results:
                for result in results:
                    left.pop(0)
                    yield result
        except Exception as error:
            failure = to_reportable_error(error)
            for path in left:
                yield SendResult(path, SendOutcome.FAILED, str(failure))

    def _update_backoff(self, outcomes: Sequence[SendOutcome]) -> None:
        """Pause if nothing arrived."""
        if set(outcomes) != {SendOutcome.FAILED}:
            self._failures = 0
            return
        self._failures += 1
        retry = self.context.retry
        delay = retry.delay_after(self._failures) or retry.max_delay
        self._backoff_until = time.monotonic() + delay
        _LOG.info("nothing arrives at %s; next attempt in %.0f s", self.name, delay)

    def _record_outcome(self, delivery: Delivery, result: SendResult) -> SendOutcome:
        """Record the result of a delivery; return how it counts for the destination."""
        queue, spool = self.context.queue, self.context.spool
        if result.is_stored:
            state = queue.mark_sent(delivery)
            self._report(EventKind.SENT, delivery, result)
            if state is ItemState.DONE:
                remove_files_if_finished(queue, spool, delivery.key)
            return result.outcome
        # A destination that rejects the sender, such as its AE title, would refuse all outputs.
        is_final = result.outcome is SendOutcome.REFUSED and not result.sender_rejected
        delay = None if is_final else self.context.retry.delay_after(delivery.attempts + 1)
        with queue.transaction():
            state = queue.mark_failed(delivery, result.message, delay)
            if state is ItemState.DEAD:
                spool.write_dead_letter(delivery.key, f"{self.name}: {result.message}")
        self._report(EventKind.DEAD if delay is None else EventKind.RETRY, delivery, result)
        return SendOutcome.REFUSED if is_final else SendOutcome.FAILED

    def _report(self, kind: EventKind, delivery: Delivery, result: SendResult) -> None:
        self.context.report(
            Event(kind=kind, key=delivery.key, destination=self.name, reason=result.message)
        )
