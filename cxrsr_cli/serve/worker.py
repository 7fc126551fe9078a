"""Upscale what was received, as its rule says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

from cxrsr_cli.batch.batch import Batch
from cxrsr_cli.batch.failure import as_failure
from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.result import Result
from cxrsr_cli.errors import CxrsrError, ModelError
from cxrsr_cli.job import Job
from cxrsr_cli.read.acceptance import is_own_output
from cxrsr_cli.read.dataset import read_source
from cxrsr_cli.serve.events import Event, EventKind
from cxrsr_cli.serve.housekeeping import clear_if_over
from cxrsr_cli.serve.means import Means
from cxrsr_cli.serve.rules import Rule, Upscaling, first_that_holds
from cxrsr_cli.serve.state import Item
from cxrsr_cli.upscale import Upscaler

_TOGETHER = 8
"""Instances taken at once, so that reading and writing run beside the network."""
_DEADLY = 5
"""Unfinished beginnings after which it is given up: it may be what kills the process."""
_NO_RULE = "no rule holds for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Takes instances from the queue, and puts outputs into it.

    Attributes
    ----------
    rules : sequence of Rule
        The first that holds is followed.
    upscalers : mapping of Upscaling to Upscaler
        Loaded, for every rule.
    ledger : Ledger
        Knows what was upscaled before a kill.
    means : Means
        What it works with.
    begun : set of str
        Keys of what is in work, and counted as begun.
    """

    rules: Sequence[Rule]
    upscalers: Mapping[Upscaling, Upscaler]
    ledger: Ledger
    means: Means
    begun: set[str] = field(default_factory=set)

    def round(self) -> bool:
        """Work on what is there; tell whether anything was."""
        queue = self.means.queue
        items = queue.pending(_TOGETHER)
        if not items:
            return False
        # A suspect alone: what is worked on beside it would be suspected, too.
        items = [item for item in items if item.begun][:1] or items
        # Once by each process: what only this one failed over is nobody's fault.
        queue.begin([item.key for item in items if item.key not in self.begun])
        self.begun.update(item.key for item in items)
        chosen = []
        for item in items:
            rule = self._triage(item)
            if rule:
                chosen.append((rule, item))
        for rule, group in groupby(chosen, itemgetter(0)):
            self._upscale(rule, [item for _, item in group])
        queue.give_back(list(self.begun))
        self.begun.clear()
        return True

    def _triage(self, item: Item) -> Rule | None:
        """Find an instance's rule, or be done with it."""
        if item.begun >= _DEADLY:
            self._bury(item, f"the process ended {item.begun} times while this was in work")
            return None
        # Objects are odd in more ways than their readers know of.
        try:
            dataset = read_source(self.means.spool.received(item.key), leave_pixels=0).dataset
            is_ours = is_own_output(dataset)
            rule = first_that_holds(self.rules, item, dataset)
        except Exception as error:
            self._failed(item, as_failure(error))
            return None
        if is_ours:
            self._ignore(item, "", "it is an output of cxrsr already")
            return None
        if rule is None or rule.ignore:
            self._ignore(item, rule.name if rule else "", "by its rule" if rule else _NO_RULE)
            return None
        return rule

    def _upscale(self, rule: Rule, items: Sequence[Item]) -> None:
        batch = Batch(self.upscalers[rule.upscale], self.ledger)
        jobs = [
            Job(self.means.spool.received(i.key), self.means.spool.output(i.key)) for i in items
        ]
        # Fewer results than jobs if asked to stop.
        for result, item in zip(batch.run(jobs, stop=self.means.stop), items, strict=False):
            self._settle(item, rule, result)

    def _settle(self, item: Item, rule: Rule, result: Result) -> None:
        if result.error:
            self._failed(item, result.error)
            return
        self.means.queue.dispatch(item.key, rule.name, rule.send_to)
        self._ended(
            item,
            EventKind.UPSCALED,
            "; ".join((*result.warnings, *result.troubles)),
            rule=rule.name,
            seconds=result.timing.total,
        )

    def _failed(self, item: Item, error: CxrsrError) -> None:
        reason = str(error)
        wait = self.means.retry.after(item.attempts + 1)
        if Quarantine.concerns(error) or isinstance(error, ModelError) or wait is None:
            self._bury(item, reason)
            return
        # An output of other options can be there if the configuration changed after a kill.
        self.means.spool.remove_output(item.key)
        self.means.queue.postpone(item.key, wait, reason)
        self._ended(item, EventKind.POSTPONED, reason)

    def _bury(self, item: Item, reason: str) -> None:
        with self.means.queue.held():
            self.means.spool.lay_out(item.key, reason)
            self.means.queue.bury(item.key, reason)
        self._ended(item, EventKind.DEAD, reason)

    def _ignore(self, item: Item, rule: str, reason: str) -> None:
        self.means.queue.ignore(item.key, rule, reason)
        self._ended(item, EventKind.IGNORED, reason, rule=rule)
        clear_if_over(self.means.queue, self.means.spool, item.key)

    def _ended(
        self,
        item: Item,
        kind: EventKind,
        reason: str,
        *,
        rule: str = "",
        seconds: float | None = None,
    ) -> None:
        self.begun.discard(item.key)
        self.means.said(Event(kind=kind, key=item.key, rule=rule, reason=reason, seconds=seconds))
