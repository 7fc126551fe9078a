"""The process ends at any step: what was acknowledged is done, once, by the next one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.receive.arrival import Arrival
from cxrsr_cli.receive.status import Status
from cxrsr_cli.send.folder import Folder
from cxrsr_cli.serve import courier, housekeeping, intake, spool
from cxrsr_cli.serve.courier import Courier
from cxrsr_cli.serve.intake import Intake
from cxrsr_cli.serve.means import Means
from cxrsr_cli.serve.queue import Queue
from cxrsr_cli.serve.retry import Retry
from cxrsr_cli.serve.rules import Rule
from cxrsr_cli.serve.spool import Spool
from cxrsr_cli.serve.state import State
from cxrsr_cli.serve.survey import Survey
from cxrsr_cli.serve.worker import Worker
from cxrsr_cli.upscale import Upscaler
from tests.conftest import small_chest

STEPS: list[tuple[object, str]] = [
    (intake, "key_of"),
    (intake, "flush"),
    (spool, "flush"),
    (Spool, "keep"),
    (Queue, "admit"),
    (Spool, "start_over"),
    (Queue, "begin"),
    (Upscaler, "open"),
    (Upscaler, "restore"),
    (Ledger, "announce"),
    (Upscaler, "finish"),
    (Ledger, "record"),
    (Queue, "dispatch"),
    (Queue, "give_back"),
    (Folder, "send"),
    (Folder, "_store"),
    (Queue, "delivered"),
    (courier, "clear_if_over"),
    (Spool, "clear"),
    (Spool, "remove_output"),
    (Path, "unlink"),
]


class PowerCutError(BaseException):
    """Ends everything; nobody catches it."""


class Machine:
    """A node without its network, which can be started again over the same disk."""

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
        housekeeping.recover(self.queue, self.spool)
        rule = Rule(name="all", send_to=("share",))
        means = Means(
            spool=self.spool,
            queue=self.queue,
            retry=Retry(),
            said=lambda _: None,
            stop=lambda: False,
        )
        self.intake = Intake(self.spool, self.queue, lambda _: None, lambda: None)
        self.worker = Worker(
            rules=[rule],
            upscalers={rule.upscale: self.upscaler},
            ledger=self.ledger,
            means=means,
        )
        self.courier = Courier(name="share", destination=Folder(path=self.out), means=means)

    def stop(self) -> None:
        """Close what a process has open."""
        self.queue.close()
        self.ledger.close()

    def receive(self) -> Status:
        """Receive the instance."""
        path = self.spool.arriving / "arriving.dcm"
        small_chest().save_as(path)
        return self.intake.accept(
            Arrival(
                path=path,
                data_set_at=0,
                sop_instance_uid="1.2",
                calling_ae="PACS",
                called_ae="CXRSR",
                address="127.0.0.1",
            )
        )

    def work(self) -> None:
        """Do all that there is to do."""
        while self.worker.round() or self.courier.round():
            pass


def ending(original: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    """End the process when a step is come to, the first time, or when it is over."""
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
def test_an_end_at_any_step(
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
            acknowledged = machine.receive() is Status.SUCCESS
            machine.work()
        except PowerCutError:
            ended = True
    assert ended, "the step was never come to"
    machine.stop()
    machine.start()
    if not acknowledged:  # its sender was told nothing, and sends again
        assert machine.receive() is Status.SUCCESS
    machine.work()
    (derived,) = machine.out.glob("[!.]*")
    assert pydicom.dcmread(derived).Rows == 48
    survey = Survey(machine.spool.ledger)
    assert [item.state for item in survey.items()] == [State.DONE]
    survey.close()
    machine.stop()
    machine.start()  # what a kill left is removed by the next start at the latest
    files = [path for path in machine.root.rglob("*.*") if path.is_file()]
    assert {path.name for path in files} <= {machine.spool.ledger.name, "arriving.dcm"}
    machine.stop()
