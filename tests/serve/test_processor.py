"""Errors lose no instance, and no instance is blamed for another's crash."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.common.backoff import RetryPolicy
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.errors import MemoryLimitError, OutputError
from cxrsr_cli.serve.events import Event, EventKind
from cxrsr_cli.serve.node_context import NodeContext
from cxrsr_cli.serve.processor import UpscaleWorker
from cxrsr_cli.serve.queue import ItemState, Queue, QueueView
from cxrsr_cli.serve.routing import RoutingRule, RuleCondition
from cxrsr_cli.serve.spool import Spool
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import small_chest

FULL = OutputError("the disk is full")
FAILING = ("add_deliveries", "unmark_started")
RULE = RoutingRule(name="all", send_to=("share",))


class Bench:
    """An upscaling worker with its queue and spool."""

    def __init__(self, folder: Path, upscaler: Upscaler) -> None:
        self.spool = Spool(folder)
        self.spool.make()
        self.now = 1000.0
        self.queue = Queue(self.spool.ledger, lambda: self.now)
        self.queue.state_of("")  # makes the file
        self.view = QueueView(self.spool.ledger)
        self.ledger = Ledger(self.spool.ledger)
        self.events: list[Event] = []
        context = NodeContext(self.spool, self.queue, RetryPolicy(), self.events.append)
        self.context = context
        self.worker = UpscaleWorker(
            rules=[RULE], upscalers={RULE.upscale: upscaler}, ledger=self.ledger, context=context
        )

    def receive(self, count: int) -> list[str]:
        """Have instances acknowledged; return their keys."""
        keys = [f"{index:032d}" for index in range(count)]
        for index, key in enumerate(keys):
            small_chest(index).save_as(self.spool.received(key))
            self.queue.enqueue(key)
        return keys

    def kinds(self) -> list[EventKind]:
        """Return what it said."""
        return [event.kind for event in self.events]


@pytest.fixture
def bench(tmp_path: Path, upscaler: Upscaler) -> Iterator[Bench]:
    bench = Bench(tmp_path / "spool", upscaler)
    yield bench
    bench.queue.close()
    bench.view.close()
    bench.ledger.close()


def test_a_round_upscales_all_received_instances(bench: Bench) -> None:
    keys = bench.receive(3)
    assert bench.worker.run_once()
    assert bench.kinds() == [EventKind.UPSCALED] * 3
    assert [item.state for item in bench.view.items()] == [ItemState.SENDING] * 3
    assert all(bench.spool.output(key).exists() for key in keys)
    assert not bench.worker.run_once()


def test_a_queue_error_is_not_counted_as_a_crash_of_an_instance(bench: Bench) -> None:
    """The instances are tried again once the queue can be written."""
    bench.receive(2)
    for _ in range(7):
        failing = {name: patch.object(bench.queue, name, side_effect=FULL) for name in FAILING}
        with failing["add_deliveries"], failing["unmark_started"], pytest.raises(OutputError):
            bench.worker.run_once()
    assert {item.crash_count for item in bench.view.items(ItemState.RECEIVED)} == {1}
    while bench.worker.run_once():
        pass
    assert bench.kinds() == [EventKind.UPSCALED] * 2


def test_a_stop_leaves_unprocessed_instances_unchanged(bench: Bench) -> None:
    bench.receive(3)
    bench.context.stop()
    bench.worker.run_once()
    assert bench.events == []
    assert {(item.state, item.crash_count) for item in bench.view.items()} == {
        (ItemState.RECEIVED, 0)
    }


def test_an_image_that_a_stop_gives_up_is_no_crash(bench: Bench) -> None:
    """The next start does it."""
    bench.receive(3)
    bench.context.abandon()
    with patch.object(bench.context, "is_stopping", lambda: False):
        bench.worker.run_once()
    assert bench.events == []
    assert {(item.state, item.crash_count) for item in bench.view.items()} == {
        (ItemState.RECEIVED, 0)
    }
    assert not list((bench.spool.root / "outputs").iterdir())


@pytest.mark.parametrize(
    ("error", "state", "kind"),
    [
        (OutputError("disk full"), ItemState.RECEIVED, EventKind.RETRY),
        (MemoryLimitError("not enough memory"), ItemState.RECEIVED, EventKind.RETRY),
        (MemoryError(), ItemState.RECEIVED, EventKind.RETRY),
        (ZeroDivisionError(), ItemState.DEAD, EventKind.DEAD),
    ],
    ids=["disk", "planned memory", "memory", "defect"],
)
def test_an_error_that_may_be_temporary_is_retried(
    bench: Bench, error: Exception, state: ItemState, kind: EventKind
) -> None:
    (key,) = bench.receive(1)
    with patch("cxrsr_cli.upscaler.Upscaler.upscale", side_effect=error):
        bench.worker.run_once()
    assert bench.kinds() == [kind]
    assert bench.queue.state_of(key) is state
    assert bench.spool.dead(key).exists() is (state is ItemState.DEAD)


def test_an_output_with_other_options_is_made_again(bench: Bench) -> None:
    """A kill followed by a change of the configuration leaves such an output."""
    (key,) = bench.receive(1)
    bench.spool.output(key).write_bytes(b"made otherwise")
    bench.worker.run_once()
    assert bench.kinds() == [EventKind.RETRY]
    assert not bench.spool.output(key).exists()
    bench.now += 1e12
    bench.worker.run_once()
    assert bench.kinds()[-1] is EventKind.UPSCALED


@pytest.mark.parametrize(("begun", "kind"), [(4, EventKind.UPSCALED), (5, EventKind.DEAD)])
def test_an_instance_is_given_up_after_five_crashes(
    bench: Bench, begun: int, kind: EventKind
) -> None:
    keys = bench.receive(1)
    for _ in range(begun):
        bench.queue.mark_started(keys)
    bench.worker.run_once()
    assert bench.kinds() == [kind]


def test_only_the_instance_in_progress_is_suspected_of_a_crash(
    bench: Bench, upscaler: Upscaler
) -> None:
    """Instances behind it are processed however often the process ends."""
    keys = bench.receive(4)
    for _ in range(5):
        worker = replace(bench.worker, in_progress=set())  # of a new process
        with (
            patch.object(Upscaler, "upscale", side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            worker.run_once()
    while replace(bench.worker, in_progress=set()).run_once():
        pass
    assert [bench.queue.state_of(key) for key in keys] == [ItemState.DEAD, *[ItemState.SENDING] * 3]


ODD = [
    {"Rows": [24, 24]},
    {"Modality": ["CR", "DX"]},
    {"SeriesDescription": "pa" * 5000},
    {"ContributingEquipmentSequence": None},
]


@pytest.mark.parametrize("changes", ODD, ids=lambda changes: next(iter(changes)))
def test_a_damaged_object_does_not_affect_others(bench: Bench, changes: dict[str, object]) -> None:
    """The next instance is processed whatever happens to this one."""
    odd, _ = bench.receive(2)
    with quiet_libraries():
        dataset = small_chest(0)
        for keyword, value in changes.items():
            if value is None:
                dataset.add_new(keyword, "LO", "no sequence")
            else:
                setattr(dataset, keyword, value)
        dataset.save_as(bench.spool.received(odd))
    rule = RoutingRule(name="all", when=RuleCondition(max_side=9999, description="x"), ignore=True)
    worker = replace(bench.worker, rules=[rule, RULE])
    worker.run_once()
    assert EventKind.UPSCALED in bench.kinds()
    assert len(bench.kinds()) == 2
