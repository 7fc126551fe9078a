"""An instance is acknowledged only when neither a kill nor a power cut can lose it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import inf
from pathlib import Path
from unittest.mock import patch

import pytest

from cxrsr_cli.common.backoff import RetryPolicy
from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.errors import OutputError
from cxrsr_cli.receive.store_sink import ReceivedInstance
from cxrsr_cli.serve.acceptor import InstanceAcceptor
from cxrsr_cli.serve.events import Event, EventKind
from cxrsr_cli.serve.maintenance import reconcile
from cxrsr_cli.serve.node_context import NodeContext
from cxrsr_cli.serve.queue import ItemState, Queue, QueueView
from cxrsr_cli.serve.spool import Spool, instance_key, is_key


class Node:
    """An acceptor with its spool, queue and events."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder)
        self.spool.make()
        self.queue = Queue(self.spool.ledger)
        self.queue.state_of("")  # makes the file
        self.view = QueueView(self.spool.ledger)
        self.events: list[Event] = []
        self.context = NodeContext(self.spool, self.queue, RetryPolicy(), self.events.append)
        self.acceptor = InstanceAcceptor(self.context)

    def arrive(self, content: bytes = b"object", uid: str = "1.2.3") -> DimseStatus:
        """Let an instance arrive."""
        path = self.spool.incoming / f"{len(self.events)}.dcm"
        path.write_bytes(content)
        return self.acceptor.accept(
            ReceivedInstance(
                path=path,
                dataset_offset=0,
                sop_instance_uid=uid,
                calling_ae="PACS",
                called_ae="CXRSR",
                address="127.0.0.1",
            )
        )

    def received(self) -> list[bytes]:
        """Return what lies where acknowledged instances do."""
        return [path.read_bytes() for path in (self.spool.root / "received").iterdir()]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "spool")
    yield node
    node.queue.close()
    node.view.close()


def test_everything_is_flushed_before_success(node: Node) -> None:
    """The file is flushed first, then its name, then the queue entry."""
    steps: list[str] = []

    def flushed(path: Path) -> None:
        place = "a file" if path.is_file() else f"the names in {path.name}"
        steps.append(f"{place}, with {len(list(node.view.items()))} entries")

    with (
        patch("cxrsr_cli.serve.acceptor.fsync_path", flushed),
        patch("cxrsr_cli.serve.spool.fsync_path", flushed),
    ):
        assert node.arrive() is DimseStatus.SUCCESS
    assert steps == ["a file, with 0 entries", "the names in received, with 0 entries"]
    assert [item.state for item in node.view.items()] == [ItemState.RECEIVED]
    assert node.received() == [b"object"]
    assert node.context.work_count == 1


@pytest.mark.parametrize("step", ["cxrsr_cli.serve.acceptor.fsync_path", "pathlib.Path.replace"])
def test_a_disk_error_is_not_acknowledged(node: Node, step: str) -> None:
    with patch(step, side_effect=OSError(28, "No space left on device")):
        assert node.arrive() is DimseStatus.OUT_OF_RESOURCES
    assert list(node.view.items()) == []
    assert node.received() == []
    (event,) = node.events
    assert event.kind is EventKind.ERROR
    assert "No space left on device" in event.reason
    assert node.arrive() is DimseStatus.SUCCESS


def test_a_queue_error_is_not_acknowledged(node: Node) -> None:
    with patch.object(node.queue, "enqueue", side_effect=OutputError("the ledger cannot be used")):
        assert node.arrive() is DimseStatus.OUT_OF_RESOURCES
    assert node.arrive() is DimseStatus.SUCCESS
    assert node.received() == [b"object"]


@pytest.mark.parametrize("step", ["enqueue", "commit"])
def test_what_was_refused_is_not_worked_on_after_a_restart(node: Node, step: str) -> None:
    """Its sender keeps it, and sends it again."""
    real = node.queue.transaction

    @contextmanager
    def transaction() -> Iterator[None]:
        with real():
            yield
            if step == "commit" and node.received():
                raise OutputError("the disk is full")

    failing = patch.object(node.queue, "enqueue", side_effect=OutputError("the disk is full"))
    with patch.object(node.queue, "transaction", transaction):
        with failing if step == "enqueue" else nullcontext():
            assert node.arrive() is DimseStatus.OUT_OF_RESOURCES
        assert node.received() == []
    assert reconcile(node.queue, node.spool) == 0


def test_what_an_earlier_reception_left_is_kept_by_a_refusal(node: Node) -> None:
    """Its sender may have seen success."""
    assert node.arrive() is DimseStatus.SUCCESS
    (item,) = node.view.items()
    node.queue.delete_finished_before(inf)
    with (
        patch.object(node.queue, "state_of", return_value=None),
        patch.object(node.queue, "enqueue", side_effect=OutputError("the disk is full")),
    ):
        assert node.arrive() is DimseStatus.OUT_OF_RESOURCES
    assert node.spool.received(item.key).exists()


def test_an_entry_without_its_file_gets_the_file_again(node: Node) -> None:
    assert node.arrive() is DimseStatus.SUCCESS
    (item,) = node.view.items()
    node.spool.received(item.key).unlink()
    assert node.arrive() is DimseStatus.SUCCESS
    assert node.received() == [b"object"]


def test_a_duplicate_is_acknowledged_and_not_queued_again(node: Node) -> None:
    for _ in range(3):
        assert node.arrive() is DimseStatus.SUCCESS
    assert [event.kind for event in node.events] == ["received", "duplicate", "duplicate"]
    assert len(list(node.view.items())) == 1
    assert list(node.spool.incoming.iterdir()) == []


@pytest.mark.parametrize(("content", "uid"), [(b"others", "1.2.3"), (b"object", "1.2.4")])
def test_a_different_instance_is_queued(node: Node, content: bytes, uid: str) -> None:
    node.arrive()
    node.arrive(content, uid)
    assert len(list(node.view.items(ItemState.RECEIVED))) == 2


@pytest.mark.parametrize("state", [ItemState.DEAD, ItemState.IGNORED])
def test_a_dead_or_ignored_instance_is_tried_again_when_received_again(
    node: Node, state: ItemState
) -> None:
    node.arrive()
    (item,) = node.view.items()
    if state is ItemState.DEAD:
        node.queue.mark_dead(item.key, "damaged")
        node.spool.write_dead_letter(item.key, "damaged")
    else:
        node.queue.ignore(item.key, "", "no rule")
        node.spool.clear(item.key)
    assert node.arrive() is DimseStatus.SUCCESS
    (again,) = node.view.items()
    assert (again.key, again.state, again.reason) == (item.key, ItemState.RECEIVED, "")
    assert node.received() == [b"object"]
    assert list((node.spool.root / "dead").iterdir()) == []


def test_the_key_depends_on_sop_instance_uid_and_data_set_only(tmp_path: Path) -> None:
    """The File Meta Information names the version of cxrsr and is left out."""

    def key(content: bytes, uid: str = "1.2.3", begins: int = 4) -> str:
        path = tmp_path / "file"
        path.write_bytes(content)
        return instance_key(
            ReceivedInstance(
                path=path,
                dataset_offset=begins,
                sop_instance_uid=uid,
                calling_ae="",
                called_ae="",
                address="",
            )
        )

    assert key(b"metapixels") == key(b"METApixels") == key(b"__metapixels", begins=6)
    assert len({key(b"metapixels"), key(b"metaothers"), key(b"metapixels", "1.2.4")}) == 3
    assert is_key(key(b"metapixels"))
