"""Upscale what was received, as its rule says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.batch.quarantine import Quarantine
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
"""Instances taken at once, so that reading and writing run beside the network."""
_MAX_CRASHES = 5
"""Unfinished beginnings after which it is given up: it may be what kills the process."""
_NO_RULE = "no rule holds for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleWorker:
    """Takes instances from the queue, and puts outputs into it.

    Attributes
    ----------
    rules : sequence of Rule
        The first that holds is followed.
    upscalers : mapping of UpscaleOptions to Upscaler
        Loaded, for every rule.
    ledger : Ledger
        Knows what was upscaled before a kill.
    means : Means
        What it works with.
    begun : set of str
        Keys of what is in work, and counted as begun.
    """

    rules: Sequence[RoutingRule]
    upscalers: Mapping[UpscaleOptions, Upscaler]
    ledger: Ledger
    context: NodeContext
    in_progress: set[str] = field(default_factory=set)

    def run_once(self) -> bool:
        """Work on what is there; tell whether anything was."""
        queue = self.context.queue
        items = queue.due_items(_BATCH_SIZE)
        if not items:
            return False
        # A suspect alone: what is worked on beside it would be suspected, too.
        items = [item for item in items if item.crash_count][:1] or items
        # Once by each process: what only this one failed over is nobody's fault.
        queue.mark_started([item.key for item in items if item.key not in self.in_progress])
        self.in_progress.update(item.key for item in items)
        chosen = []
        for item in items:
            rule = self._triage(item)
            if rule:
                chosen.append((rule, item))
        for rule, group in groupby(chosen, itemgetter(0)):
            self._upscale(rule, [item for _, item in group])
        queue.unmark_started(list(self.in_progress))
        self.in_progress.clear()
        return True

    def _triage(self, item: QueueItem) -> RoutingRule | None:
        """Find an instance's rule, or be done with it."""
        if item.crash_count >= _MAX_CRASHES:
            self._give_up(
                item, f"the process ended {item.crash_count} times while this was in work"
            )
            return None
        # Objects are odd in more ways than their readers know of.
        try:
            dataset = read_source(
                self.context.spool.received(item.key), min_deferred_bytes=0
            ).dataset
            is_ours = is_cxrsr_output(dataset)
            rule = first_match(self.rules, item, dataset)
        except Exception as error:
            self._failed(item, to_reportable_error(error))
            return None
        if is_ours:
            self._ignore(item, "", "it is an output of cxrsr already")
            return None
        if rule is None or rule.ignore:
            self._ignore(item, rule.name if rule else "", "by its rule" if rule else _NO_RULE)
            return None
        return rule

    def _upscale(self, rule: RoutingRule, items: Sequence[QueueItem]) -> None:
        batch = BatchRunner(LocalExecutor(self.upscalers[rule.upscale]), self.ledger)
        jobs = [
            Job(self.context.spool.received(i.key), self.context.spool.output(i.key)) for i in items
        ]
        # Fewer results than jobs if asked to stop.
        for result, item in zip(batch.run(jobs, stop=self.context.stop), items, strict=False):
            self._record_outcome(item, rule, result)

    def _record_outcome(self, item: QueueItem, rule: RoutingRule, result: Result) -> None:
        if result.error:
            self._failed(item, result.error)
            return
        self.context.queue.add_deliveries(item.key, rule.name, rule.send_to)
        self._ended(
            item,
            EventKind.UPSCALED,
            "; ".join((*result.warnings, *result.record_errors)),
            rule=rule.name,
            seconds=result.timing.total,
        )

    def _failed(self, item: QueueItem, error: CxrsrError) -> None:
        reason = str(error)
        wait = self.context.retry.delay_after(item.attempts + 1)
        if Quarantine.should_quarantine(error) or isinstance(error, ModelError) or wait is None:
            self._give_up(item, reason)
            return
        # An output of other options can be there if the configuration changed after a kill.
        self.context.spool.remove_output(item.key)
        self.context.queue.retry_later(item.key, wait, reason)
        self._ended(item, EventKind.RETRY, reason)

    def _give_up(self, item: QueueItem, reason: str) -> None:
        with self.context.queue.transaction():
            self.context.spool.write_dead_letter(item.key, reason)
            self.context.queue.mark_dead(item.key, reason)
        self._ended(item, EventKind.DEAD, reason)

    def _ignore(self, item: QueueItem, rule: str, reason: str) -> None:
        self.context.queue.ignore(item.key, rule, reason)
        self._ended(item, EventKind.IGNORED, reason, rule=rule)
        remove_files_if_finished(self.context.queue, self.context.spool, item.key)

    def _ended(
        self,
        item: QueueItem,
        kind: EventKind,
        reason: str,
        *,
        rule: str = "",
        seconds: float | None = None,
    ) -> None:
        self.in_progress.discard(item.key)
        self.context.on_event(
            Event(kind=kind, key=item.key, rule=rule, reason=reason, seconds=seconds)
        )
