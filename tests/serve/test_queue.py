"""The queue keeps acknowledged instances over a kill and processes each once."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxrsr_cli.batch.ledger import Ledger, OutputKey
from cxrsr_cli.common.backoff import RetryPolicy
from cxrsr_cli.errors import OutputError
from cxrsr_cli.serve.queue import Delivery, ItemState, Queue, QueueView
from cxrsr_cli.serve.spool import Spool


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Tell it."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.make()
    return spool


@pytest.fixture
def queue(spool: Spool, clock: Clock) -> Iterator[Queue]:
    queue = Queue(spool.ledger, clock)
    queue.state_of("")  # makes the file
    yield queue
    queue.close()


@pytest.fixture
def view(queue: Queue, spool: Spool) -> Iterator[QueueView]:
    view = QueueView(spool.ledger)
    yield view
    view.close()


def delivery(queue: Queue, destination: str) -> Delivery:
    (found,) = queue.due_deliveries(destination, 9)
    return found


def test_an_instance_passes_through_its_states(queue: Queue, view: QueueView) -> None:
    queue.enqueue("a", "PACS", "CXRSR", "127.0.0.1")
    (item,) = queue.due_items(9)
    assert (item.key, item.state, item.calling_ae, item.crash_count) == (
        "a",
        ItemState.RECEIVED,
        "PACS",
        0,
    )
    queue.add_deliveries("a", "chests", ["one", "two"])
    assert queue.state_of("a") is ItemState.SENDING
    assert queue.due_items(9) == []
    assert view.pending() == {"one": 1, "two": 1}
    assert queue.mark_sent(delivery(queue, "one")) is ItemState.SENDING
    assert queue.due_deliveries("one", 9) == []
    assert queue.mark_sent(delivery(queue, "two")) is ItemState.DONE
    assert view.counts() == {**dict.fromkeys(ItemState, 0), ItemState.DONE: 1}


def test_the_oldest_instance_is_first(queue: Queue, clock: Clock) -> None:
    for key in ("c", "a", "b"):
        queue.enqueue(key)
        clock.now += 1
    assert [item.key for item in queue.due_items(2)] == ["c", "a"]


def test_a_retry_waits_until_it_is_due(queue: Queue, clock: Clock) -> None:
    queue.enqueue("a")
    queue.mark_started(["a"])
    queue.retry_later("a", 10, "the disk is full")
    assert queue.due_items(1) == []
    clock.now += 10
    (item,) = queue.due_items(1)
    assert (item.attempts, item.crash_count, item.reason) == (1, 0, "the disk is full")


def test_a_start_without_a_result_is_counted_as_a_crash(
    queue: Queue, spool: Spool, clock: Clock
) -> None:
    """The instance in progress is suspected; one that is given back is not."""
    queue.enqueue("a")
    queue.mark_started(["a"])
    queue.close()
    again = Queue(spool.ledger, clock)
    assert [item.crash_count for item in again.due_items(1)] == [1]
    again.mark_started(["a"])
    again.unmark_started(["a"])
    assert [item.crash_count for item in again.due_items(1)] == [1]
    again.close()


def test_an_instance_is_dead_when_one_of_two_deliveries_is(
    queue: Queue, view: QueueView, clock: Clock
) -> None:
    queue.enqueue("a")
    queue.add_deliveries("a", "r", ["one", "two"])
    assert queue.mark_failed(delivery(queue, "one"), "busy", 5) is ItemState.SENDING
    assert queue.due_deliveries("one", 9) == []
    clock.now += 5
    assert delivery(queue, "one").attempts == 1
    assert queue.mark_failed(delivery(queue, "one"), "refused", None) is ItemState.SENDING
    assert queue.mark_sent(delivery(queue, "two")) is ItemState.DEAD
    (item,) = view.items(ItemState.DEAD)
    assert item.reason == "one: refused"
    queue.requeue("a")
    assert queue.state_of("a") is ItemState.SENDING
    assert queue.due_deliveries("two", 9) == []
    assert queue.mark_sent(delivery(queue, "one")) is ItemState.DONE


def test_requeue_continues_at_the_step_that_failed(queue: Queue) -> None:
    queue.enqueue("a")
    queue.mark_dead("a", "damaged")
    queue.requeue("a")
    assert [item.key for item in queue.due_items(1)] == ["a"]


def test_requeue_and_discard_change_only_dead_instances(queue: Queue) -> None:
    for key in ("ignored", "received"):
        queue.enqueue(key)
    queue.ignore("ignored", "", "")
    for key in ("ignored", "received"):
        queue.requeue(key)
        queue.discard(key, "")
        assert queue.state_of(key) == key


def test_a_late_result_of_an_instance_is_ignored(queue: Queue) -> None:
    """A user may have removed the instance, and it may have been received again."""
    queue.enqueue("a")
    queue.add_deliveries("a", "r", ["one"])
    queue.mark_dead("a", "late")
    queue.retry_later("a", 1, "late")
    queue.ignore("a", "", "late")
    assert queue.state_of("a") is ItemState.SENDING


def test_adding_deliveries_twice_sends_once(queue: Queue) -> None:
    """A kill between the output and its entry repeats the call."""
    queue.enqueue("a")
    queue.add_deliveries("a", "r", ["one"])
    queue.mark_sent(delivery(queue, "one"))
    queue.add_deliveries("a", "r", ["one"])
    assert queue.due_deliveries("one", 9) == []


def test_waiting_retries_can_be_made_due_now(queue: Queue) -> None:
    for key in ("a", "b"):
        queue.enqueue(key)
    queue.retry_later("a", 1000, "full")
    queue.add_deliveries("b", "r", ["one"])
    queue.mark_failed(delivery(queue, "one"), "away", 1000)
    assert queue.make_due_now() == 2
    assert [item.key for item in queue.due_items(9)] == ["a"]
    assert delivery(queue, "one").key == "b"


def test_a_due_time_written_by_a_wrong_clock_counts_as_now(queue: Queue, clock: Clock) -> None:
    clock.now = 2e9
    for key in ("a", "b"):
        queue.enqueue(key)
    queue.retry_later("a", 3600, "full")
    queue.add_deliveries("b", "r", ["one"])
    queue.mark_failed(delivery(queue, "one"), "away", 3600)
    clock.now = 1000.0
    queue.enqueue("c")
    assert {item.key for item in queue.due_items(9)} == {"a", "c"}
    assert delivery(queue, "one").key == "b"


def test_finished_instances_are_deleted_after_a_time(
    queue: Queue, view: QueueView, clock: Clock
) -> None:
    for key in ("done", "ignored", "dead", "received"):
        queue.enqueue(key)
    queue.add_deliveries("done", "r", ["one"])
    queue.mark_sent(delivery(queue, "one"))
    queue.ignore("ignored", "", "")
    queue.mark_dead("dead", "")
    assert queue.delete_finished_before(clock.now) == []
    assert sorted(queue.delete_finished_before(clock.now + 1)) == ["done", "ignored"]
    assert sorted(item.key for item in view.items()) == ["dead", "received"]


def test_a_long_list_is_read_in_pages(
    queue: Queue, view: QueueView, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxrsr_cli.serve.queue._PAGE", 4)
    for index in range(11):
        clock.now += index % 3 == 0
        queue.enqueue(f"{index:02d}")
    assert [item.key for item in view.items()] == [f"{index:02d}" for index in range(11)]


# On the disk.


def test_every_entry_is_flushed_to_the_disk(queue: Queue, spool: Spool) -> None:
    """EXTRA also flushes the removal of the journal before a commit returns."""
    queue.enqueue("a")
    with queue._file.connection() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)
    other = sqlite3.connect(spool.ledger)
    assert other.execute("SELECT state FROM items").fetchall() == [("received",)]
    other.close()


def test_a_transaction_is_committed_or_rolled_back_as_a_whole(queue: Queue, spool: Spool) -> None:
    other = Queue(spool.ledger)

    def fail() -> None:
        with queue.transaction():
            queue.enqueue("a")
            assert other.state_of("a") is None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert queue.state_of("a") is None
    with queue.transaction():
        queue.enqueue("a")
        queue.mark_dead("a", "")
    assert other.state_of("a") is ItemState.DEAD
    other.close()


def test_a_transaction_excludes_other_threads_and_processes(queue: Queue, spool: Spool) -> None:
    """Other threads and processes wait."""
    order: list[str] = []
    other = Queue(spool.ledger)

    def change() -> None:
        with other.transaction():
            order.append("other")

    thread = threading.Thread(target=change)
    with queue.transaction():
        thread.start()
        thread.join(0.5)
        order.append("first")
    thread.join(60)
    other.close()
    assert order == ["first", "other"]


def test_queue_and_ledger_share_one_file(queue: Queue, spool: Spool) -> None:
    ledger = Ledger(spool.ledger)
    target = spool.output("a")
    target.write_bytes(b"output")
    ledger.mark_done(target, OutputKey("s", "m", "o"), "not this hash")
    queue.enqueue("a")
    assert ledger.lookup(target) is None
    ledger.delete([target])
    ledger.close()
    other = sqlite3.connect(spool.ledger)
    assert other.execute("SELECT COUNT(*) FROM outputs").fetchone() == (0,)
    other.close()
    assert queue.state_of("a") is ItemState.RECEIVED


def test_a_file_that_is_not_a_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE precious (a)")
    connection.close()
    queue = Queue(path)
    with pytest.raises(OutputError, match="is not a ledger"):
        queue.state_of("a")
    queue.close()


# How long things wait.


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(1, 10), (2, 20), (3, 40), (9, 2560), (10, 3600), (109, 3600)]
)
def test_the_delay_doubles_up_to_its_limit(attempts: int, seconds: float) -> None:
    assert RetryPolicy().delay_after(attempts) == seconds


def test_the_default_retries_cover_more_than_four_days() -> None:
    waits = [RetryPolicy().delay_after(attempts) or 0.0 for attempts in range(1, 110)]
    assert sum(waits) > 4 * 86400
    assert RetryPolicy().delay_after(110) is None
