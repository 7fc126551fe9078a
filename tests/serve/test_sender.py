"""A delivery worker retries, gives up or pauses as a destination answers."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import pytest

from cxrsr_cli.common.backoff import RetryPolicy
from cxrsr_cli.connections.destination import SendOutcome, SendResult, never_stop
from cxrsr_cli.errors import OutputError
from cxrsr_cli.serve.events import Event, EventKind
from cxrsr_cli.serve.node_context import NodeContext
from cxrsr_cli.serve.queue import ItemState, Queue
from cxrsr_cli.serve.sender import DeliveryWorker
from cxrsr_cli.serve.spool import Spool

Answer = Callable[[Path], SendResult]


@dataclass
class Archive:
    """A destination that gives the answers of a test."""

    answer: Answer
    asked: list[str] = field(default_factory=list)
    closed: int = 0

    def check(self) -> str:
        """Have nothing to object."""
        return ""

    def send(
        self, files: Sequence[Path], stop: Callable[[], bool] = never_stop
    ) -> Generator[SendResult, None, None]:
        """Answer for each file."""
        try:
            for file in files:
                self.asked.append(file.stem)
                yield self.answer(file)
                if stop():
                    return
        finally:
            self.closed += 1


def stored(file: Path) -> SendResult:
    return SendResult(file, SendOutcome.STORED)


def away(file: Path) -> SendResult:
    return SendResult(file, SendOutcome.FAILED, "no connection")


def refused(file: Path) -> SendResult:
    return SendResult(file, SendOutcome.REFUSED, "it cannot understand the object (0xC000)", 0xC000)


def unknown_title(file: Path) -> SendResult:
    return SendResult(
        file, SendOutcome.REFUSED, "calling AE title not recognized", sender_rejected=True
    )


class Bench:
    """A delivery worker with pending outputs and a clock."""

    def __init__(self, folder: Path, count: int) -> None:
        self.spool = Spool(folder)
        self.spool.make()
        self.now = 1000.0
        self.queue = Queue(self.spool.ledger, lambda: self.now)
        self.events: list[Event] = []
        self.archive = Archive(stored)
        self.keys = [f"{index:032d}" for index in range(count)]
        for key in self.keys:
            self.spool.received(key).write_bytes(b"source")
            self.spool.output(key).write_bytes(b"output")
            self.queue.enqueue(key)
            self.queue.add_deliveries(key, "rule", ["archive"])
        retry = RetryPolicy(initial_delay=0.001, max_delay=0.002, max_attempts=3)
        context = NodeContext(self.spool, self.queue, retry, self.events.append)
        self.worker = DeliveryWorker(name="archive", destination=self.archive, context=context)

    def go(self, answer: Answer) -> None:
        """Run the worker once, after its pause."""
        self.now += 10
        self.archive.answer = answer
        self.archive.asked.clear()
        self.worker._backoff_until = 0.0
        self.worker.run_once()

    def states(self) -> list[ItemState | None]:
        """Return where the instances stand."""
        return [self.queue.state_of(key) for key in self.keys]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "spool", 4)
    yield bench
    bench.queue.close()


def test_pending_outputs_are_sent_in_one_batch(bench: Bench) -> None:
    bench.go(stored)
    assert bench.archive.asked == bench.keys
    assert bench.states() == [ItemState.DONE] * 4
    assert not list(bench.spool.root.glob("*/*.dcm"))
    assert not bench.worker.run_once()


@pytest.mark.parametrize("answer", [away, unknown_title], ids=["away", "we are not known"])
def test_an_unavailable_destination_is_tried_with_one_output(bench: Bench, answer: Answer) -> None:
    """The waiting outputs are not sent, counted or reported."""
    for _ in range(2):
        bench.go(answer)
        assert len(bench.archive.asked) == 1
    assert [event.kind for event in bench.events] == [EventKind.RETRY] * 2
    bench.go(stored)
    bench.go(stored)
    assert bench.states() == [ItemState.DONE] * 4


def test_an_output_stored_before_a_failure_was_noticed_is_not_sent_again(bench: Bench) -> None:
    """With storage commitment, all are sent before the first result is known."""

    def buffered(files: Sequence[Path], _: object) -> Iterator[SendResult]:
        return iter([away(files[0]), stored(files[1]), away(files[2]), stored(files[3])])

    with patch.object(bench.archive, "send", buffered):
        bench.go(stored)
    assert [state is ItemState.DONE for state in bench.states()] == [False, True, False, True]


def test_attempts_are_separated_by_pauses(bench: Bench) -> None:
    bench.go(away)
    bench.worker._backoff_until = float("inf")
    bench.now += 10
    assert not bench.worker.run_once()
    assert len(bench.archive.asked) == 1


def test_a_refused_output_is_given_up_and_the_others_are_sent(bench: Bench) -> None:
    bench.go(lambda file: refused(file) if file.stem == bench.keys[1] else stored(file))
    assert bench.states() == [ItemState.DONE, ItemState.DEAD, ItemState.DONE, ItemState.DONE]
    assert bench.spool.dead(bench.keys[1]).exists()


def test_an_output_is_given_up_after_the_last_attempt(bench: Bench) -> None:
    for _ in range(12):
        bench.go(away)
    assert bench.states() == [ItemState.DEAD] * 4


def test_an_exception_of_a_destination_is_a_failed_delivery(bench: Bench) -> None:
    def fail(_: Path) -> SendResult:
        raise ZeroDivisionError("Doe^Jane")

    bench.go(fail)
    (event,) = bench.events
    assert event.kind is EventKind.RETRY
    assert "ZeroDivisionError" in event.reason
    assert "Doe" not in event.reason


def test_a_queue_error_is_not_a_failure_of_the_destination(bench: Bench) -> None:
    """No attempt is counted; earlier deliveries are recorded."""
    real = bench.queue.mark_sent
    answers = iter([real])

    def once(delivery: object) -> ItemState:
        try:
            return next(answers)(delivery)  # type: ignore[arg-type]
        except StopIteration:
            raise OutputError("the disk is full") from None

    with patch.object(bench.queue, "mark_sent", once), pytest.raises(OutputError):
        bench.go(stored)
    assert bench.archive.closed == 1
    assert bench.states() == [ItemState.DONE, *[ItemState.SENDING] * 3]
    assert {delivery.attempts for delivery in bench.queue.due_deliveries("archive", 9)} == {0}
    bench.go(stored)
    assert bench.states() == [ItemState.DONE] * 4
