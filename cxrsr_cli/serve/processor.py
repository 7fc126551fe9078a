"""Upscale received instances according to the rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.records import MAX_CRASHES
from cxrsr_cli.batch.result import Result, to_reportable_error
from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.dicom.acceptance import is_cxrsr_output
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import CxrsrError, ModelError
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.serve.events import Event, EventKind
from cxrsr_cli.serve.maintenance import remove_files_if_finished
from cxrsr_cli.serve.node_context import NodeContext
from cxrsr_cli.serve.queue import QueueItem
from cxrsr_cli.serve.routing import RoutingRule, first_match
from cxrsr_cli.upscaler import Upscaler

_BATCH_SIZE = 8
"""Instances in a batch, so that reading and writing overlap with upscaling."""
_NO_RULE = "no rule matches"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleWorker:
    """Upscales the received instances of the queue, and queues the deliveries.

    Attributes
    ----------
    rules : sequence of RoutingRule
        The first rule that matches counts.
    upscalers : mapping of UpscaleOptions to Upscaler
        A loaded upscaler for the options of every rule.
    ledger : Ledger
        Knows the outputs that were complete before a kill.
    context : NodeContext
        Spool, queue and observer.
    in_progress : set of str
        Keys of instances that are marked as started.
    """

    rules: Sequence[RoutingRule]
    upscalers: Mapping[UpscaleOptions, Upscaler]
    ledger: Ledger
    context: NodeContext
    in_progress: set[str] = field(default_factory=set)

    def run_once(self) -> bool:
        """Process a batch of received instances; tell whether there was any."""
        queue = self.context.queue
        items = queue.due_items(_BATCH_SIZE)
        if not items:
            return False
        # An instance that may cause crashes runs last, and alone: others would be suspected.
        items = [item for item in items if not item.crash_count] or items[:1]
        # Marked once by each process: an error that this process survives is no crash.
        queue.mark_started([item.key for item in items if item.key not in self.in_progress])
        self.in_progress.update(item.key for item in items)
        matches = [(rule, item) for item in items if (rule := self._find_rule(item))]
        for rule, group in groupby(matches, itemgetter(0)):
            self._upscale(rule, [item for _, item in group])
        self.leave_unfinished()
        return True

    def leave_unfinished(self) -> None:
        """Leave what was started to the next start, without a suspicion that it causes crashes."""
        self.context.queue.unmark_started(list(self.in_progress))
        self.in_progress.clear()

    def _find_rule(self, item: QueueItem) -> RoutingRule | None:
        """Return the rule of an instance; None if it was ignored, given up or left for a retry."""
        if item.crash_count >= MAX_CRASHES:
            self._give_up(item, f"the process ended {item.crash_count} times while processing it")
            return None
        # pydicom raises errors of many types for damaged objects.
        try:
            dataset = read_source(
                self.context.spool.received(item.key), min_deferred_bytes=0
            ).dataset
            is_own_output = is_cxrsr_output(dataset)
            rule = first_match(self.rules, item, dataset)
        except Exception as error:
            self._record_failure(item, to_reportable_error(error))
            return None
        if is_own_output:
            self._ignore(item, "", "it is an output of cxrsr")
            return None
        if rule is None or rule.ignore:
            self._ignore(
                item, rule.name if rule else "", "its rule ignores it" if rule else _NO_RULE
            )
            return None
        return rule

    def _upscale(self, rule: RoutingRule, items: Sequence[QueueItem]) -> None:
        batch = BatchRunner(
            LocalExecutor(self.upscalers[rule.upscale]),
            self.ledger,
            tracks_inputs=False,  # the queue counts them
        )
        jobs = [
            Job(self.context.spool.received(i.key), self.context.spool.output(i.key)) for i in items
        ]
        context = self.context
        running = batch.run(jobs, advance=context.raise_if_abandoned, stop=context.is_stopping)
        try:
            # A stop ends the results early.
            for result, item in zip(running, items, strict=False):
                self._record_outcome(item, rule, result)
        except KeyboardInterrupt:
            if not context.is_abandoning:
                raise

    def _record_outcome(self, item: QueueItem, rule: RoutingRule, result: Result) -> None:
        if result.error:
            self._record_failure(item, result.error)
            return
        self.context.queue.add_deliveries(item.key, rule.name, rule.send_to)
        self._report_end(
            item,
            EventKind.UPSCALED,
            "; ".join((*result.warnings, *result.record_errors)),
            rule=rule.name,
            seconds=result.timing.total,
        )

    def _record_failure(self, item: QueueItem, error: CxrsrError) -> None:
        reason = str(error)
        delay = self.context.retry.delay_after(item.attempts + 1)
        if Quarantine.should_quarantine(error) or isinstance(error, ModelError) or delay is None:
            self._give_up(item, reason)
            return
        # After a kill and a change of the configuration, the output may have other options.
        self.context.spool.remove_output(item.key)
        self.context.queue.retry_later(item.key, delay, reason)
        self._report_end(item, EventKind.RETRY, reason)

    def _give_up(self, item: QueueItem, reason: str) -> None:
        with self.context.queue.transaction():
            self.context.spool.write_dead_letter(item.key, reason)
            self.context.queue.mark_dead(item.key, reason)
        self._report_end(item, EventKind.DEAD, reason)

    def _ignore(self, item: QueueItem, rule: str, reason: str) -> None:
        self.context.queue.ignore(item.key, rule, reason)
        self._report_end(item, EventKind.IGNORED, reason, rule=rule)
        remove_files_if_finished(self.context.queue, self.context.spool, item.key)

    def _report_end(
        self,
        item: QueueItem,
        kind: EventKind,
        reason: str,
        *,
        rule: str = "",
        seconds: float | None = None,
    ) -> None:
        self.in_progress.discard(item.key)
        self.context.report(
            Event(kind=kind, key=item.key, rule=rule, reason=reason, seconds=seconds)
        )
