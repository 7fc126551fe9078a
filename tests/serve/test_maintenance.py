"""Restarts, users and clean-up lose no acknowledged instance."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.common.backoff import RetryPolicy
from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.errors import ExitCode, OutputError
from cxrsr_cli.receive.store_sink import ReceivedInstance
from cxrsr_cli.serve import maintenance
from cxrsr_cli.serve.acceptor import InstanceAcceptor
from cxrsr_cli.serve.maintenance import (
    delete_history,
    give_up_removed_destination,
    purge_dead,
    reconcile,
    retry_dead,
    write_missing_dead_letters,
)
from cxrsr_cli.serve.node_context import NodeContext
from cxrsr_cli.serve.queue import ItemState, Queue, QueueView
from cxrsr_cli.serve.spool import Spool
from tests.conftest import Command
from tests.helpers.batches import command

KEY = "0" * 32


@dataclass
class House:
    """A spool with its queue."""

    spool: Spool
    queue: Queue
    view: QueueView
    ledger: Ledger

    def put(self, key: str, state: ItemState, *, output: bool = False) -> None:
        """Have an instance with its files in a state."""
        self.spool.received(key).write_bytes(b"source")
        self.queue.enqueue(key)
        if state in (ItemState.SENDING, ItemState.DONE) or output:
            self.spool.output(key).write_bytes(b"output")
            self.queue.add_deliveries(key, "rule", ["share"])
            (delivery,) = self.queue.due_deliveries("share", 1)
            if state is ItemState.DONE:
                self.queue.mark_sent(delivery)
            if state is ItemState.DEAD:
                self.queue.mark_failed(delivery, "refused", None)
        elif state is ItemState.IGNORED:
            self.queue.ignore(key, "", "no rule")
        elif state is ItemState.DEAD:
            self.queue.mark_dead(key, "damaged")
        if state is ItemState.DEAD:
            self.spool.write_dead_letter(key, "damaged")

    def files(self, key: str = KEY) -> set[str]:
        """Tell which files of an instance are there."""
        places = {
            "received": self.spool.received(key),
            "output": self.spool.output(key),
            "dead": self.spool.dead(key),
        }
        return {name for name, path in places.items() if path.exists()}

    def close(self) -> None:
        """Close all accounts."""
        for account in (self.queue, self.view, self.ledger):
            account.close()


def opened(root: Path) -> House:
    spool = Spool(root)
    spool.make()
    queue = Queue(spool.ledger)
    queue.state_of("")
    return House(spool, queue, QueueView(spool.ledger), Ledger(spool.ledger))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = opened(tmp_path / "spool")
    yield house
    house.close()


# A start.


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (ItemState.RECEIVED, {"received", "output"}),
        (ItemState.SENDING, {"received", "output"}),
        (ItemState.DONE, set()),
        (ItemState.IGNORED, set()),
        (ItemState.DEAD, {"received", "output", "dead"}),
    ],
)
def test_files_agree_with_the_queue_after_a_kill(
    house: House, state: ItemState, kept: set[str]
) -> None:
    house.put(KEY, state)
    house.spool.output(KEY).write_bytes(b"output")
    house.spool.write_dead_letter(KEY, "why")
    assert reconcile(house.queue, house.spool) == 0
    assert house.files() == kept
    assert house.queue.state_of(KEY) is state


def test_a_file_without_an_entry_is_queued_again(house: House) -> None:
    """The queue may be lost after its sender was told of success."""
    house.put(KEY, ItemState.RECEIVED)
    house.close()
    house.spool.ledger.unlink()
    again = opened(house.spool.root)
    assert reconcile(again.queue, again.spool) == 1
    assert again.queue.state_of(KEY) is ItemState.RECEIVED
    assert again.files() == {"received"}
    assert reconcile(again.queue, again.spool) == 0
    again.close()


def test_partial_files_are_removed_and_foreign_files_kept(house: House) -> None:
    folder = house.spool.root / "received"
    (folder / ".cxrsr-abc.part").write_bytes(b"half")
    (folder / "notes.txt").write_bytes(b"somebody's")
    reconcile(house.queue, house.spool)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_missing_dead_letter_is_written_later(house: House) -> None:
    house.put(KEY, ItemState.DEAD)
    house.spool.remove_dead_letter(KEY)
    write_missing_dead_letters(house.queue, house.view, house.spool)
    assert house.files() == {"received", "dead"}
    (reason,) = (house.spool.root / "dead").glob("*.json")
    assert json.loads(reason.read_text(encoding="utf-8"))["reason"] == "damaged"


def test_outputs_for_a_removed_destination_become_dead_letters(house: House) -> None:
    house.put(KEY, ItemState.SENDING)
    assert give_up_removed_destination(house.queue, house.spool, "share") == 1
    (item,) = house.view.items(ItemState.DEAD)
    assert item.reason == "share: the configuration has no destination share"
    assert house.files() == {"received", "output", "dead"}


# People, and peers at the same moment.


def intake(house: House) -> Callable[[], DimseStatus]:
    """Return a function that receives the instance again."""
    acceptor = InstanceAcceptor(
        NodeContext(house.spool, house.queue, RetryPolicy(), lambda _: None)
    )

    def arrive() -> DimseStatus:
        path = house.spool.incoming / "again.dcm"
        path.write_bytes(b"source")
        return acceptor.accept(
            ReceivedInstance(
                path=path,
                dataset_offset=0,
                sop_instance_uid="1.2",
                calling_ae="PACS",
                called_ae="CXRSR",
                address="127.0.0.1",
            )
        )

    return arrive


def kept(house: House) -> bool:
    """Tell whether the acknowledged instance is queued and has its file."""
    return house.queue.state_of(KEY) is ItemState.RECEIVED and "received" in house.files()


@pytest.mark.parametrize(
    ("owner", "step"),
    [(maintenance, "remove_files_if_finished"), (Queue, "discard")],
    ids=["clear", "discard"],
)
def test_an_instance_received_again_during_its_removal_is_kept(
    house: House, owner: object, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process tries to receive the instance just before the step."""
    monkeypatch.setattr("cxrsr_cli.serve.acceptor.instance_key", lambda _: KEY)
    house.put(KEY, ItemState.DEAD)
    other = opened(house.spool.root)
    arrive, original = intake(other), getattr(owner, step)

    def arrive_first(*arguments: object) -> object:
        connection = house.queue._file._connection
        # While the queue is held, others wait.
        if connection is not None and not connection.in_transaction:
            assert arrive() is DimseStatus.SUCCESS
        return original(*arguments)

    monkeypatch.setattr(owner, step, arrive_first)
    purge_dead(house.queue, house.spool, [KEY])
    if house.queue.state_of(KEY) is ItemState.IGNORED:
        assert arrive() is DimseStatus.SUCCESS
    assert kept(house)
    other.close()


def test_an_instance_received_again_is_not_deleted_with_the_history(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxrsr_cli.serve.acceptor.instance_key", lambda _: KEY)
    house.put(KEY, ItemState.IGNORED)
    reconcile(house.queue, house.spool)
    assert intake(house)() is DimseStatus.SUCCESS
    assert delete_history(house.queue, house.ledger, house.spool, -1) == 0
    assert kept(house)


@pytest.mark.parametrize("step", ["enqueue", "state_of"])
def test_a_queue_error_leaves_a_dead_instance_unchanged(
    house: House, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxrsr_cli.serve.acceptor.instance_key", lambda _: KEY)
    house.put(KEY, ItemState.DEAD)
    with patch.object(house.queue, step, side_effect=OutputError("full")):
        assert intake(house)() is DimseStatus.OUT_OF_RESOURCES
    assert house.queue.state_of(KEY) is ItemState.DEAD
    assert house.files() == {"received", "dead"}


def test_a_dead_instance_with_an_output_is_delivered_and_not_upscaled_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upscaling again would give a different file to destinations that have the first."""
    monkeypatch.setattr("cxrsr_cli.serve.acceptor.instance_key", lambda _: KEY)
    house.put(KEY, ItemState.DEAD, output=True)
    assert intake(house)() is DimseStatus.SUCCESS
    assert house.queue.state_of(KEY) is ItemState.SENDING
    assert house.files() == {"received", "output"}


def test_retry_counts_only_dead_instances(house: House) -> None:
    house.put(KEY, ItemState.DEAD)
    house.put("1" * 32, ItemState.RECEIVED)
    assert retry_dead(house.queue, house.spool, [KEY, "1" * 32, "2" * 32]) == 1
    assert house.files() == {"received"}


def test_a_kill_during_a_removal_does_not_restore_the_instance(house: House) -> None:
    house.put(KEY, ItemState.DEAD)
    with (
        patch(
            "cxrsr_cli.serve.maintenance.remove_files_if_finished", side_effect=KeyboardInterrupt
        ),
        pytest.raises(KeyboardInterrupt),
    ):
        purge_dead(house.queue, house.spool, [KEY])
    reconcile(house.queue, house.spool)
    assert house.files() == set()
    assert house.queue.state_of(KEY) is ItemState.IGNORED


# The spool.


def test_a_dead_letter_is_a_hard_link(house: House) -> None:
    house.put(KEY, ItemState.DEAD)
    spool = house.spool
    assert spool.dead(KEY).stat().st_ino == spool.received(KEY).stat().st_ino
    spool.remove_dead_letter(KEY)
    assert house.files() == {"received"}


def test_only_one_node_can_lock_a_spool(house: House) -> None:
    other = Spool(house.spool.root)
    with (
        house.spool.locked(),
        pytest.raises(OutputError, match="another cxrsr serve"),
        other.locked(),
    ):
        pass
    with other.locked():
        pass


def test_only_the_owner_can_read_a_spool(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    (root / "received").mkdir(parents=True, mode=0o755)
    Spool(root).make()
    for folder in (root, *root.iterdir()):
        assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("step", "act"),
    [
        ("pathlib.Path.unlink", lambda spool: spool.clear(KEY)),
        ("pathlib.Path.mkdir", lambda spool: spool.make()),
        ("pathlib.Path.iterdir", lambda spool: spool.keys("dead")),
        ("fcntl.flock", lambda spool: spool.locked().__enter__()),
    ],
)
def test_disk_errors_of_the_spool_become_output_errors(
    house: House, step: str, act: Callable[[Spool], object]
) -> None:
    refused = patch(step, side_effect=OSError(5, "Input/output error"))
    with refused, pytest.raises(OutputError, match="Input/output error"):
        act(house.spool)


# The command.


@pytest.fixture
def three_dead(house: House) -> House:
    for key in ("a" * 32, "aaaaaab" + "b" * 25, "c" * 32):
        house.put(key, ItemState.DEAD)
    house.put("d" * 32, ItemState.RECEIVED)
    return house


def test_queue_list_shows_pending_and_dead_instances(cxrsr: Command, three_dead: House) -> None:
    done = cxrsr("queue", "list", three_dead.spool.root)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    assert [line[:1] for line in lines[:-1]] == ["a", "a", "c", "d"]
    assert "damaged" in lines[0]
    assert lines[-1] == "1 received, 0 sending, 0 done, 0 ignored, 3 dead"
    only = cxrsr("queue", "list", three_dead.spool.root, "--state", "received", "--json")
    assert [json.loads(line)["key"] for line in only.stdout.splitlines()] == ["d" * 32]


def test_queue_retry_queues_dead_instances_again(cxrsr: Command, three_dead: House) -> None:
    root = three_dead.spool.root
    assert cxrsr("queue", "retry", root, "aaaaaa").stdout == "2 queued again\n"
    assert [item.key[:1] for item in three_dead.view.items(ItemState.DEAD)] == ["c"]
    assert len(list((root / "dead").iterdir())) == 2
    assert cxrsr("queue", "retry", root, "--all").stdout == "1 queued again\n"
    assert three_dead.view.counts()[ItemState.RECEIVED] == 4


def test_queue_retry_pending_makes_retries_due_now(cxrsr: Command, three_dead: House) -> None:
    three_dead.queue.retry_later("d" * 32, 1000, "full")
    done = cxrsr("queue", "retry", three_dead.spool.root, "--pending")
    assert done.stdout == "1 scheduled for immediate retry\n"
    assert len(three_dead.queue.due_items(9)) == 1


def test_queue_purge_removes_dead_instances_and_history(cxrsr: Command, three_dead: House) -> None:
    root = three_dead.spool.root
    assert cxrsr("queue", "purge", root, "c" * 32).stdout == "1 removed\n"
    assert three_dead.files("c" * 32) == set()
    done = cxrsr("queue", "purge", root, "--all", "--older-than", 0)
    assert done.stdout == "1 records deleted\n2 removed\n"
    assert [item.key[:1] for item in three_dead.view.items(ItemState.RECEIVED)] == ["d"]
    assert [path.stem[:1] for path in (root / "received").iterdir()] == ["d"]


@pytest.mark.process
@pytest.mark.process
@pytest.mark.parametrize("words", [["list"], ["retry", "--all"], ["purge", "--older-than", "0"]])
@pytest.mark.parametrize("has_ledger", [False, True])
def test_a_folder_that_is_not_a_spool_is_refused(
    tmp_path: Path, words: list[str], has_ledger: bool
) -> None:
    """An output folder of `upscale` has a ledger; it is not changed."""
    if has_ledger:
        ledger = Ledger(Spool(tmp_path).ledger)
        ledger.delete([])
        ledger.close()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = command(tmp_path, "queue", words[0], ".", *words[1:])
    assert done.returncode == ExitCode.USAGE
    assert "is not a spool" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["retry"], ExitCode.USAGE),
        (["retry", "a" * 32, "--all"], ExitCode.USAGE),
        (["retry", "d" * 32], ExitCode.NO_INPUT),
        (["purge", "eeeeee"], ExitCode.NO_INPUT),
        (["purge", ""], ExitCode.USAGE),
        (["purge", "a"], ExitCode.USAGE),
        (["purge", "../../x"], ExitCode.USAGE),
    ],
)
def test_illegal_keys_change_nothing(
    cxrsr: Command, three_dead: House, arguments: list[str], code: ExitCode
) -> None:
    """An empty key, as from an unset variable, does not mean all."""
    done = cxrsr("queue", arguments[0], three_dead.spool.root, *arguments[1:])
    assert done.returncode == code
    assert three_dead.view.counts()[ItemState.DEAD] == 3
