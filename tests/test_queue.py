"""The queue of a node: what was acknowledged is done once, and known after a kill."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxrsr_cli.batch.ledger import Ledger, Work
from cxrsr_cli.errors import OutputError
from cxrsr_cli.serve.queue import Queue
from cxrsr_cli.serve.retry import Retry
from cxrsr_cli.serve.spool import Spool
from cxrsr_cli.serve.state import Delivery, State
from cxrsr_cli.serve.survey import Survey


class Clock:
    """Time that passes when told to."""

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
def survey(queue: Queue, spool: Spool) -> Iterator[Survey]:
    survey = Survey(spool.ledger)
    yield survey
    survey.close()


def delivery(queue: Queue, destination: str) -> Delivery:
    (found,) = queue.due_at(destination, 9)
    return found


def test_the_way_of_an_instance(queue: Queue, survey: Survey) -> None:
    queue.admit("a", "PACS", "CXRSR", "127.0.0.1")
    (item,) = queue.pending(9)
    assert (item.key, item.state, item.calling_ae, item.begun) == ("a", State.RECEIVED, "PACS", 0)
    queue.dispatch("a", "chests", ["one", "two"])
    assert queue.state_of("a") is State.SENDING
    assert queue.pending(9) == []
    assert survey.waiting() == {"one": 1, "two": 1}
    assert queue.delivered(delivery(queue, "one")) is State.SENDING
    assert queue.due_at("one", 9) == []
    assert queue.delivered(delivery(queue, "two")) is State.DONE
    assert survey.counts() == {**dict.fromkeys(State, 0), State.DONE: 1}


def test_the_oldest_first(queue: Queue, clock: Clock) -> None:
    for key in ("c", "a", "b"):
        queue.admit(key)
        clock.now += 1
    assert [item.key for item in queue.pending(2)] == ["c", "a"]


def test_what_is_postponed_waits(queue: Queue, clock: Clock) -> None:
    queue.admit("a")
    queue.begin(["a"])
    queue.postpone("a", 10, "the disk is full")
    assert queue.pending(1) == []
    clock.now += 10
    (item,) = queue.pending(1)
    assert (item.attempts, item.begun, item.reason) == (1, 0, "the disk is full")


def test_a_beginning_without_an_end_is_counted(queue: Queue, spool: Spool, clock: Clock) -> None:
    """What kills the process is found out; what is given back was not the cause."""
    queue.admit("a")
    queue.begin(["a"])
    queue.close()
    again = Queue(spool.ledger, clock)
    assert [item.begun for item in again.pending(1)] == [1]
    again.begin(["a"])
    again.give_back(["a"])
    assert [item.begun for item in again.pending(1)] == [1]
    again.close()


def test_one_destination_of_two_gives_up(queue: Queue, survey: Survey, clock: Clock) -> None:
    queue.admit("a")
    queue.dispatch("a", "r", ["one", "two"])
    assert queue.undelivered(delivery(queue, "one"), "busy", 5) is State.SENDING
    assert queue.due_at("one", 9) == []
    clock.now += 5
    assert delivery(queue, "one").attempts == 1
    assert queue.undelivered(delivery(queue, "one"), "refused", None) is State.SENDING
    assert queue.delivered(delivery(queue, "two")) is State.DEAD
    (item,) = survey.items(State.DEAD)
    assert item.reason == "one: refused"
    queue.revive("a")
    assert queue.state_of("a") is State.SENDING
    assert queue.due_at("two", 9) == []
    assert queue.delivered(delivery(queue, "one")) is State.DONE


def test_a_dead_one_is_revived_where_it_died(queue: Queue) -> None:
    queue.admit("a")
    queue.bury("a", "damaged")
    queue.revive("a")
    assert [item.key for item in queue.pending(1)] == ["a"]


def test_reviving_and_dropping_are_for_the_dead_only(queue: Queue) -> None:
    for key in ("ignored", "received"):
        queue.admit(key)
    queue.ignore("ignored", "", "")
    for key in ("ignored", "received"):
        queue.revive(key)
        queue.drop(key, "")
        assert queue.state_of(key) == key


def test_an_end_is_for_what_is_in_work_only(queue: Queue) -> None:
    """It may have been removed by hand, and come again, meanwhile."""
    queue.admit("a")
    queue.dispatch("a", "r", ["one"])
    queue.bury("a", "late")
    queue.postpone("a", 1, "late")
    queue.ignore("a", "", "late")
    assert queue.state_of("a") is State.SENDING


def test_dispatching_twice_sends_once(queue: Queue) -> None:
    """As after a kill between the output and its entry."""
    queue.admit("a")
    queue.dispatch("a", "r", ["one"])
    queue.delivered(delivery(queue, "one"))
    queue.dispatch("a", "r", ["one"])
    assert queue.due_at("one", 9) == []


def test_waiting_can_be_cut_short(queue: Queue) -> None:
    for key in ("a", "b"):
        queue.admit(key)
    queue.postpone("a", 1000, "full")
    queue.dispatch("b", "r", ["one"])
    queue.undelivered(delivery(queue, "one"), "away", 1000)
    assert queue.hasten() == 2
    assert [item.key for item in queue.pending(9)] == ["a"]
    assert delivery(queue, "one").key == "b"


def test_a_clock_that_was_ahead_holds_up_nothing(queue: Queue, clock: Clock) -> None:
    clock.now = 2e9
    for key in ("a", "b"):
        queue.admit(key)
    queue.postpone("a", 3600, "full")
    queue.dispatch("b", "r", ["one"])
    queue.undelivered(delivery(queue, "one"), "away", 3600)
    clock.now = 1000.0
    queue.admit("c")
    assert {item.key for item in queue.pending(9)} == {"a", "c"}
    assert delivery(queue, "one").key == "b"


def test_what_is_over_is_forgotten_in_time(queue: Queue, survey: Survey, clock: Clock) -> None:
    for key in ("done", "ignored", "dead", "received"):
        queue.admit(key)
    queue.dispatch("done", "r", ["one"])
    queue.delivered(delivery(queue, "one"))
    queue.ignore("ignored", "", "")
    queue.bury("dead", "")
    assert queue.forget_before(clock.now) == []
    assert sorted(queue.forget_before(clock.now + 1)) == ["done", "ignored"]
    assert sorted(item.key for item in survey.items()) == ["dead", "received"]


def test_a_long_list_comes_page_by_page(
    queue: Queue, survey: Survey, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxrsr_cli.serve.survey._PAGE", 4)
    for index in range(11):
        clock.now += index % 3 == 0
        queue.admit(f"{index:02d}")
    assert [item.key for item in survey.items()] == [f"{index:02d}" for index in range(11)]


# On the disk.


def test_every_entry_is_flushed_to_the_disk(queue: Queue, spool: Spool) -> None:
    """EXTRA: the journal's removal, too, is on the disk before a commit returns."""
    queue.admit("a")
    with queue._file.use() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)
    other = sqlite3.connect(spool.ledger)
    assert other.execute("SELECT state FROM arrivals").fetchall() == [("received",)]
    other.close()


def test_what_is_held_is_one_change(queue: Queue, spool: Spool) -> None:
    other = Queue(spool.ledger)

    def fail() -> None:
        with queue.held():
            queue.admit("a")
            assert other.state_of("a") is None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert queue.state_of("a") is None
    with queue.held():
        queue.admit("a")
        queue.bury("a", "")
    assert other.state_of("a") is State.DEAD
    other.close()


def test_while_it_is_held_nobody_else_decides(queue: Queue, spool: Spool) -> None:
    """Neither another thread nor another process."""
    order: list[str] = []
    other = Queue(spool.ledger)

    def change() -> None:
        with other.held():
            order.append("other")

    thread = threading.Thread(target=change)
    with queue.held():
        thread.start()
        thread.join(0.5)
        order.append("first")
    thread.join(60)
    other.close()
    assert order == ["first", "other"]


def test_one_file_with_the_ledger(queue: Queue, spool: Spool) -> None:
    ledger = Ledger(spool.ledger)
    target = spool.output("a")
    target.write_bytes(b"output")
    ledger.record(target, Work("s", "m", "o"), "not this hash")
    queue.admit("a")
    assert ledger.recall(target) is None
    ledger.forget([target])
    ledger.close()
    other = sqlite3.connect(spool.ledger)
    assert other.execute("SELECT COUNT(*) FROM outputs").fetchone() == (0,)
    other.close()
    assert queue.state_of("a") is State.RECEIVED


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
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
def test_waiting_grows_to_a_bound(attempts: int, seconds: float) -> None:
    assert Retry().after(attempts) == seconds


def test_patience_ends_after_a_long_weekend() -> None:
    waits = [Retry().after(attempts) or 0.0 for attempts in range(1, 110)]
    assert sum(waits) > 4 * 86400
    assert Retry().after(110) is None
