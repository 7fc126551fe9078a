"""Upscale what was received, as its rule says."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby

from cxrsr_cli.batch.batch import Batch
from cxrsr_cli.batch.failure import as_failure
from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.result import Result
from cxrsr_cli.errors import CxrsrError, ModelError, OutputError
from cxrsr_cli.job import Job
from cxrsr_cli.read.acceptance import is_own_output
from cxrsr_cli.read.dataset import read_source
from cxrsr_cli.serve.events import Event, EventKind
from cxrsr_cli.serve.means import Means
from cxrsr_cli.serve.rules import Rule, Upscaling, first_that_holds
from cxrsr_cli.serve.state import Item
from cxrsr_cli.upscale import Upscaler

_TOGETHER = 8
"""Instances taken at once, so that reading and writing run beside the network."""
_SUSPECT = 1
"""Unfinished beginnings after which an instance is worked on alone."""
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
        Keys of what was taken from the queue and not seen to end yet.
    """

    rules: Sequence[Rule]
    upscalers: Mapping[Upscaling, Upscaler]
    ledger: Ledger
    means: Means
    begun: set[str] = field(default_factory=set)

    def round(self) -> bool:
        """Work on what is there; tell whether anything was."""
        items = self.means.queue.begin(_TOGETHER)
        self.begun.clear()
        self.begun.update(item.key for item in items)
        try:
            self._work_on(items)
        except OutputError:
            # A full disk is not an instance's fault.
            with suppress(OutputError):
                self.means.queue.give_back(list(self.begun))
            raise
        self.means.queue.give_back(list(self.begun))
        return bool(items)

    def _work_on(self, items: Sequence[Item]) -> None:
        chosen = []
        for item in items:
            rule = self._triage(item)
            if rule:
                chosen.append((rule, item))
        # A suspect alone: what is worked on beside it would be suspected, too.
        for _, group in groupby(chosen, lambda pair: (pair[0], _alone(pair[1]))):
            pairs = list(group)
            self._upscale(pairs[0][0], [item for _, item in pairs])

    def _triage(self, item: Item) -> Rule | None:
        """Find an instance's rule, or be done with it."""
        if item.begun >= _DEADLY:
            self._bury(item, f"the process ended {item.begun} times while this was in work")
            return None
        try:
            dataset = read_source(self.means.spool.received(item.key), leave_pixels=0).dataset
        except Exception as error:
            self._failed(item, as_failure(error))
            return None
        if is_own_output(dataset):
            self._ignore(item, "", "it is an output of cxrsr already")
            return None
        rule = first_that_holds(self.rules, item, dataset)
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
        self.begun.discard(item.key)
        self.means.said(
            Event(
                kind=EventKind.UPSCALED,
                key=item.key,
                reason="; ".join((*result.warnings, *result.troubles)),
                seconds=result.timing.total,
            )
        )

    def _failed(self, item: Item, error: CxrsrError) -> None:
        reason = str(error)
        wait = self.means.retry.after(item.attempts + 1)
        if Quarantine.concerns(error) or isinstance(error, ModelError) or wait is None:
            self._bury(item, reason)
            return
        # An output of other options can be there if the configuration changed after a kill.
        self.means.spool.output(item.key).unlink(missing_ok=True)
        self.means.queue.postpone(item.key, time.time() + wait, reason)
        self.begun.discard(item.key)
        self.means.said(Event(kind=EventKind.POSTPONED, key=item.key, reason=reason))

    def _bury(self, item: Item, reason: str) -> None:
        self.means.queue.bury(item.key, reason)
        self.begun.discard(item.key)
        self.means.spool.lay_out(item.key, reason)
        self.means.said(Event(kind=EventKind.DEAD, key=item.key, reason=reason))

    def _ignore(self, item: Item, rule: str, reason: str) -> None:
        self.means.queue.ignore(item.key, rule, reason)
        self.begun.discard(item.key)
        self.means.spool.clear(item.key)
        self.means.said(Event(kind=EventKind.IGNORED, key=item.key, reason=reason))


def _alone(item: Item) -> str:
    return item.key if item.begun > _SUSPECT else ""
