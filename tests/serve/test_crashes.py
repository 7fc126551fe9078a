"""After a power cut at any step, acknowledged instances are processed exactly once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.common.backoff import RetryPolicy
from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.receive.store_sink import ReceivedInstance
from cxrsr_cli.send.folder import Folder
from cxrsr_cli.serve import acceptor, maintenance, sender, spool
from cxrsr_cli.serve.acceptor import InstanceAcceptor
from cxrsr_cli.serve.node_context import NodeContext
from cxrsr_cli.serve.processor import UpscaleWorker
from cxrsr_cli.serve.queue import ItemState, Queue, QueueView
from cxrsr_cli.serve.routing import RoutingRule
from cxrsr_cli.serve.sender import DeliveryWorker
from cxrsr_cli.serve.spool import Spool
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import small_chest

STEPS: list[tuple[object, str]] = [
    (acceptor, "instance_key"),
    (acceptor, "fsync_path"),
    (spool, "fsync_path"),
    (Spool, "move_to_received"),
    (Queue, "enqueue"),
    (Spool, "reset"),
    (Queue, "mark_started"),
    (Upscaler, "read"),
    (Upscaler, "upscale"),
    (Ledger, "mark_pending"),
    (Upscaler, "write"),
    (Ledger, "mark_done"),
    (Queue, "add_deliveries"),
    (Queue, "unmark_started"),
    (Folder, "send"),
    (Folder, "_store"),
    (Queue, "mark_sent"),
    (sender, "remove_files_if_finished"),
    (Spool, "clear"),
    (Spool, "remove_output"),
    (Path, "unlink"),
]


class PowerCutError(BaseException):
    """An error that no code catches."""


class Machine:
    """A node without a network that can be restarted on the same disk."""

    def __init__(self, folder: Path, upscaler: Upscaler) -> None:
        self.root = folder / "spool"
        self.out = folder / "out"
        self.out.mkdir()
        self.upscaler = upscaler
        self.start()

    def start(self) -> None:
        """Start, as the service does."""
        self.spool = Spool(self.root)
        self.spool.make()
        self.queue, self.ledger = Queue(self.spool.ledger), Ledger(self.spool.ledger)
        maintenance.reconcile(self.queue, self.spool)
        rule = RoutingRule(name="all", send_to=("share",))
        context = NodeContext(self.spool, self.queue, RetryPolicy(), lambda _: None)
        self.acceptor = InstanceAcceptor(context)
        self.upscale_worker = UpscaleWorker(
            rules=[rule],
            upscalers={rule.upscale: self.upscaler},
            ledger=self.ledger,
            context=context,
        )
        self.delivery_worker = DeliveryWorker(
            name="share", destination=Folder(path=self.out), context=context
        )

    def stop(self) -> None:
        """Close what a process has open."""
        self.queue.close()
        self.ledger.close()

    def receive(self) -> DimseStatus:
        """Receive the instance."""
        path = self.spool.incoming / "arriving.dcm"
        small_chest().save_as(path)
        return self.acceptor.accept(
            ReceivedInstance(
                path=path,
                dataset_offset=0,
                sop_instance_uid="1.2",
                calling_ae="PACS",
                called_ae="CXRSR",
                address="127.0.0.1",
            )
        )

    def work(self) -> None:
        """Do all that there is to do."""
        while self.upscale_worker.run_once() or self.delivery_worker.run_once():
            pass


def ending(original: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    """Cut the power before or after the first call of a step."""
    left = [PowerCutError]

    def step(*arguments: object, **options: object) -> object:
        if before and left:
            raise left.pop()
        result = original(*arguments, **options)
        if left:
            raise left.pop()
        return result

    return step


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_a_power_cut_at_any_step_loses_nothing(
    tmp_path: Path,
    upscaler: Upscaler,
    owner: object,
    name: str,
    before: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(tmp_path, upscaler)
    acknowledged, ended = False, False
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, ending(getattr(owner, name), before=before))
        try:
            acknowledged = machine.receive() is DimseStatus.SUCCESS
            machine.work()
        except PowerCutError:
            ended = True
    assert ended, "the step was never come to"
    machine.stop()
    machine.start()
    if not acknowledged:  # its sender was told nothing, and sends again
        assert machine.receive() is DimseStatus.SUCCESS
    machine.work()
    (derived,) = machine.out.glob("[!.]*")
    assert pydicom.dcmread(derived).Rows == 48
    view = QueueView(machine.spool.ledger)
    assert [item.state for item in view.items()] == [ItemState.DONE]
    view.close()
    machine.stop()
    machine.start()  # what a kill left is removed by the next start at the latest
    files = [path for path in machine.root.rglob("*.*") if path.is_file()]
    assert {path.name for path in files} <= {machine.spool.ledger.name, "arriving.dcm"}
    machine.stop()
