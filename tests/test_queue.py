"""The queue of a node: what was acknowledged is done once, and known after a kill."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxrsr_cli.batch.ledger import Ledger, Work
from cxrsr_cli.errors import ExitCode, OutputError
from cxrsr_cli.receive.arrival import Arrival
from cxrsr_cli.serve.queue import Queue
from cxrsr_cli.serve.retry import Retry
from cxrsr_cli.serve.spool import Spool, key_of
from cxrsr_cli.serve.state import Delivery, State
from tests.conftest import Command


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
    yield queue
    queue.close()


def arrival(path: Path = Path("nowhere")) -> Arrival:
    return Arrival(
        path=path,
        sop_instance_uid="1.2.3",
        calling_ae="PACS",
        called_ae="CXRSR",
        address="127.0.0.1",
    )


def delivery(queue: Queue, destination: str) -> Delivery:
    (found,) = queue.due_at(destination, 9)
    return found


def test_the_way_of_an_instance(queue: Queue) -> None:
    queue.admit("a", arrival())
    (item,) = queue.begin(9)
    assert (item.key, item.state, item.calling_ae, item.begun) == ("a", State.RECEIVED, "PACS", 0)
    queue.dispatch("a", "chests", ["one", "two"])
    assert queue.state_of("a") is State.SENDING
    assert queue.begin(9) == []
    assert queue.waiting() == {"one": 1, "two": 1}
    assert queue.delivered(delivery(queue, "one")) is State.SENDING
    assert queue.due_at("one", 9) == []
    assert queue.delivered(delivery(queue, "two")) is State.DONE
    assert queue.counts() == {**dict.fromkeys(State, 0), State.DONE: 1}


def test_the_oldest_first(queue: Queue, clock: Clock) -> None:
    for key in ("c", "a", "b"):
        queue.admit(key, arrival())
        clock.now += 1
    assert [item.key for item in queue.begin(2)] == ["c", "a"]


def test_what_is_postponed_waits(queue: Queue, clock: Clock) -> None:
    queue.admit("a", arrival())
    queue.begin(1)
    queue.postpone("a", clock.now + 10, "the disk is full")
    assert queue.begin(1) == []
    clock.now += 10
    (item,) = queue.begin(1)
    assert (item.attempts, item.begun, item.reason) == (1, 0, "the disk is full")


def test_a_beginning_without_an_end_is_counted(queue: Queue, spool: Spool, clock: Clock) -> None:
    """What kills the process is found out; what is given back was not the cause."""
    queue.admit("a", arrival())
    queue.begin(1)
    queue.close()
    again = Queue(spool.ledger, clock)
    (item,) = again.begin(1)
    assert item.begun == 1
    again.give_back(["a"])
    (item,) = again.begin(1)
    again.close()
    assert item.begun == 1


def test_one_destination_of_two_gives_up(queue: Queue, clock: Clock) -> None:
    queue.admit("a", arrival())
    queue.dispatch("a", "r", ["one", "two"])
    assert queue.undelivered(delivery(queue, "one"), "busy", clock.now + 5) is State.SENDING
    assert queue.due_at("one", 9) == []
    clock.now += 5
    assert delivery(queue, "one").attempts == 1
    assert queue.undelivered(delivery(queue, "one"), "refused", None) is State.SENDING
    assert queue.delivered(delivery(queue, "two")) is State.DEAD
    (item,) = queue.items(State.DEAD)
    assert item.reason == "one: refused"
    queue.revive("a")
    assert queue.state_of("a") is State.SENDING
    assert queue.due_at("two", 9) == []
    assert queue.delivered(delivery(queue, "one")) is State.DONE


def test_a_dead_one_is_revived_where_it_died(queue: Queue) -> None:
    queue.admit("a", arrival())
    queue.bury("a", "damaged")
    queue.revive("a")
    assert [item.key for item in queue.begin(1)] == ["a"]


def test_reviving_revives_the_dead_only(queue: Queue) -> None:
    queue.admit("a", arrival())
    queue.ignore("a", "", "no rule")
    queue.revive("a")
    assert queue.state_of("a") is State.IGNORED


def test_dispatching_twice_sends_once(queue: Queue) -> None:
    """As after a kill between the output and its entry."""
    queue.admit("a", arrival())
    queue.dispatch("a", "r", ["one"])
    queue.delivered(delivery(queue, "one"))
    queue.dispatch("a", "r", ["one"])
    assert queue.due_at("one", 9) == []


def test_what_is_over_is_forgotten_in_time(queue: Queue, clock: Clock) -> None:
    for key in ("done", "ignored", "dead", "received"):
        queue.admit(key, arrival())
    queue.dispatch("done", "r", ["one"])
    queue.delivered(delivery(queue, "one"))
    queue.ignore("ignored", "", "")
    queue.bury("dead", "")
    assert queue.ended_before(clock.now) == []
    assert sorted(queue.ended_before(clock.now + 1)) == ["done", "ignored"]
    queue.forget(["done", "ignored"])
    assert sorted(item.key for item in queue.items()) == ["dead", "received"]


def test_every_entry_is_flushed_to_the_disk(queue: Queue, spool: Spool) -> None:
    """EXTRA: the journal's removal, too, is on the disk before a commit returns."""
    queue.admit("a", arrival())
    with queue._file.use() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)
    other = sqlite3.connect(spool.ledger)
    assert other.execute("SELECT state FROM arrivals").fetchall() == [("received",)]
    other.close()


def test_one_file_with_the_ledger(queue: Queue, spool: Spool) -> None:
    ledger = Ledger(spool.ledger)
    target = spool.output("a")
    target.write_bytes(b"output")
    ledger.record(target, Work("s", "m", "o"), "not this hash")
    queue.admit("a", arrival())
    assert ledger.recall(target) is None
    ledger.close()
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


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(1, 10), (2, 20), (3, 40), (9, 2560), (10, 3600), (109, 3600)]
)
def test_waiting_grows_to_a_bound(attempts: int, seconds: float) -> None:
    assert Retry().after(attempts) == seconds


def test_patience_ends_after_a_long_weekend() -> None:
    waits = [Retry().after(attempts) or 0.0 for attempts in range(1, 110)]
    assert sum(waits) > 4 * 86400
    assert Retry().after(110) is None


# The files.


def test_a_key_is_of_the_instance_and_its_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"pixels")
    other.write_bytes(b"pixels")
    assert key_of("1.2.3", one) == key_of("1.2.3", other)
    assert key_of("1.2.3", one) != key_of("1.2.4", one)
    other.write_bytes(b"others")
    assert key_of("1.2.3", one) != key_of("1.2.3", other)
    assert len(key_of("1.2.3", one)) == 32


STATES = [
    (None, {"received": False, "outputs": False, "dead": False}),
    (State.RECEIVED, {"received": True, "outputs": True, "dead": False}),
    (State.SENDING, {"received": True, "outputs": True, "dead": False}),
    (State.DONE, {"received": False, "outputs": False, "dead": False}),
    (State.IGNORED, {"received": False, "outputs": False, "dead": False}),
    (State.DEAD, {"received": True, "outputs": True, "dead": True}),
]


@pytest.mark.parametrize(("state", "kept"), STATES)
def test_files_agree_with_the_queue_after_a_kill(
    spool: Spool, state: State | None, kept: dict[str, bool]
) -> None:
    key = "0" * 32
    spool.received(key).write_bytes(b"source")
    spool.output(key).write_bytes(b"output")
    spool.lay_out(key, "why")
    spool.recover(lambda _: state)
    found = {name: bool(list((spool.root / name).iterdir())) for name in kept}
    assert found == kept


def test_a_dead_letter_takes_no_second_place(spool: Spool) -> None:
    key = "0" * 32
    spool.received(key).write_bytes(b"source")
    spool.lay_out(key, "damaged")
    assert spool.dead(key).stat().st_ino == spool.received(key).stat().st_ino
    (reason,) = spool.dead(key).parent.glob("*.json")
    assert json.loads(reason.read_text(encoding="utf-8"))["reason"] == "damaged"
    spool.take_back(key)
    assert list(spool.dead(key).parent.iterdir()) == []
    assert spool.received(key).exists()


def test_one_node_a_spool(spool: Spool) -> None:
    with spool.held(), pytest.raises(OutputError, match="another cxrsr serve"), spool.held():
        pass
    with spool.held():
        pass


def test_folders_are_their_owners(spool: Spool) -> None:
    for name in ("arriving", "received", "outputs", "dead"):
        assert (spool.root / name).stat().st_mode & 0o077 == 0


# The command.


@pytest.fixture
def three_dead(queue: Queue, spool: Spool) -> Spool:
    for key in ("a" * 32, "ab" + "b" * 30, "c" * 32):
        spool.received(key).write_bytes(b"source")
        queue.admit(key, arrival())
        queue.bury(key, "damaged DICOM")
        spool.lay_out(key, "damaged DICOM")
    queue.admit("d" * 32, arrival())
    return spool


def test_listing(cxrsr: Command, three_dead: Spool) -> None:
    done = cxrsr("queue", "list", three_dead.root)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    assert [line[:1] for line in lines[:-1]] == ["a", "a", "c", "d"]
    assert "damaged DICOM" in lines[0]
    assert lines[-1] == "1 received, 0 sending, 0 done, 0 ignored, 3 dead"
    only = cxrsr("queue", "list", three_dead.root, "--state", "received", "--json")
    assert [json.loads(line)["key"] for line in only.stdout.splitlines()] == ["d" * 32]


def test_retrying(cxrsr: Command, three_dead: Spool, queue: Queue) -> None:
    assert cxrsr("queue", "retry", three_dead.root, "a").stdout == "2 to be tried again\n"
    assert [item.key[:1] for item in queue.items(State.DEAD)] == ["c"]
    assert len(list((three_dead.root / "dead").iterdir())) == 2
    assert cxrsr("queue", "retry", three_dead.root, "--all").stdout == "1 to be tried again\n"
    assert queue.counts()[State.RECEIVED] == 4


def test_purging(cxrsr: Command, three_dead: Spool, queue: Queue) -> None:
    assert cxrsr("queue", "purge", three_dead.root, "c").stdout == "1 removed\n"
    assert not three_dead.received("c" * 32).exists()
    queue.ignore("d" * 32, "", "")
    done = cxrsr("queue", "purge", three_dead.root, "--all", "--done-days", 0)
    assert done.stdout == "1 forgotten\n2 removed\n"
    assert queue.items() == []
    assert list((three_dead.root / "received").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["list"], ExitCode.USAGE, "is no spool"),
        (["retry", "--all"], ExitCode.USAGE, "is no spool"),
    ],
)
def test_a_folder_that_is_no_spool(
    cxrsr: Command, tmp_path: Path, arguments: list[str], code: ExitCode, words: str
) -> None:
    done = cxrsr("queue", arguments[0], tmp_path, *arguments[1:])
    assert done.returncode == code
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["retry"], ExitCode.USAGE),
        (["retry", "a", "--all"], ExitCode.USAGE),
        (["retry", "d"], ExitCode.NOTHING_TO_DO),
        (["purge", "x"], ExitCode.NOTHING_TO_DO),
    ],
)
def test_what_is_not_meant(
    cxrsr: Command, three_dead: Spool, arguments: list[str], code: ExitCode
) -> None:
    assert cxrsr("queue", arguments[0], three_dead.root, *arguments[1:]).returncode == code
