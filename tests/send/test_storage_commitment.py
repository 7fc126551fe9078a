"""Storage commitment with Orthanc, which opens an association, and with peers that use ours."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from cxrsr_cli.connections.destination import SendOutcome
from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.errors import ExitCode, UsageError
from cxrsr_cli.send.association import RemoteAE
from cxrsr_cli.send.file_header import FileHeader
from cxrsr_cli.send.storage_commitment import CommitmentResult, StorageCommitmentScu
from cxrsr_cli.send.store import CStoreDestination
from tests.conftest import small_chest
from tests.helpers.orthanc import Orthanc, free_port, modality, running_orthanc
from tests.helpers.peers import listener

pytestmark = pytest.mark.peer

DX = "1.2.840.10008.5.1.4.1.1.1.1"
PUSH_MODEL = "1.2.840.10008.1.20.1"
SYNTAX = [ExplicitVRLittleEndian]


@pytest.fixture
def chests(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.dcm" for index in range(3)]
    for index, path in enumerate(paths):
        small_chest(index).save_as(path)
    return paths


@pytest.fixture(scope="module")
def calling() -> int:
    """Choose the port where Orthanc reports to us."""
    return free_port()


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, calling: int) -> Iterator[Orthanc]:
    known = {"us": modality("CXRSR", calling)}
    with running_orthanc(tmp_path_factory.mktemp("orthanc"), modalities=known) as server:
        yield server


def peer(port: int) -> RemoteAE:
    return RemoteAE(
        host="127.0.0.1", port=port, called_ae="ORTHANC", calling_ae="CXRSR", timeout=10.0
    )


def test_orthanc_reports_over_its_own_association(
    orthanc: Orthanc, calling: int, chests: list[Path]
) -> None:
    destination = CStoreDestination(
        host="127.0.0.1",
        port=orthanc.dicom_port,
        called_ae="ORTHANC",
        storage_commitment=True,
        commitment_port=calling,
    )
    results = list(destination.send(chests))
    assert [(sent.path, sent.outcome, sent.committed) for sent in results] == [
        (path, SendOutcome.STORED, True) for path in chests
    ]


def test_orthanc_does_not_commit_to_an_instance_that_it_does_not_have(
    orthanc: Orthanc, calling: int, chests: list[Path]
) -> None:
    orthanc.empty()
    orthanc.store(chests[0])
    headers = [FileHeader.read(path) for path in chests[:2]]
    answers = StorageCommitmentScu(peer(orthanc.dicom_port), calling).request(headers)
    there, gone = (answers[known.sop_instance] for known in headers)
    assert there == CommitmentResult(committed=True)
    assert (gone.committed, gone.reason) == (False, 0x0112)
    assert gone.message.endswith("no such SOP Instance (0x0112)")


def report(event: Event, failed: int, transaction: str = "") -> Dataset:
    """Make the result of a request, in which the first `failed` instances are not committed."""
    asked = event.action_information
    told = Dataset()
    told.TransactionUID = transaction or asked.TransactionUID
    items = list(asked.ReferencedSOPSequence)
    told.FailedSOPSequence = items[:failed]
    for item in items[:failed]:
        item.FailureReason = 0x0119
    told.ReferencedSOPSequence = items[failed:]
    return told


def reporting(make: Callable[[Event], Dataset]) -> Callable[[Event], tuple[int, None]]:
    """Report on the same association, once the request is answered (PS3.4 J.3.3)."""

    def act(event: Event) -> tuple[int, None]:
        told = make(event)
        kind = 2 if told.get("FailedSOPSequence") else 1

        def later() -> None:
            event.assoc.send_n_event_report(told, kind, PUSH_MODEL, "1.2.840.10008.1.20.1.1")

        threading.Timer(0.2, later).start()
        return 0x0000, None

    return act


def committing(port: int, timeout: float = 10.0) -> CStoreDestination:
    return CStoreDestination(
        host="127.0.0.1",
        port=port,
        called_ae="PEER",
        storage_commitment=True,
        commitment_timeout=timeout,
    )


CONTEXTS = [(DX, SYNTAX), (PUSH_MODEL, SYNTAX)]


def test_a_result_may_come_on_the_same_association(chests: list[Path]) -> None:
    act = reporting(lambda event: report(event, failed=1))
    with listener(CONTEXTS, handlers=[(evt.EVT_N_ACTION, act)]) as scp:
        results = list(committing(scp.port).send(chests))
    assert [(sent.outcome, sent.committed) for sent in results] == [
        (SendOutcome.FAILED, False),
        (SendOutcome.STORED, True),
        (SendOutcome.STORED, True),
    ]
    assert results[0].status == 0x0119
    assert results[0].message.startswith("stored, but not committed: ")
    assert results[0].message.endswith("do not belong together (0x0119)")


def test_a_result_of_another_transaction_is_ignored(chests: list[Path]) -> None:
    act = reporting(lambda event: report(event, failed=0, transaction="2.25.1"))
    with listener(CONTEXTS, handlers=[(evt.EVT_N_ACTION, act)]) as scp:
        results = list(committing(scp.port, timeout=1.0).send(chests))
    assert {sent.outcome for sent in results} == {SendOutcome.FAILED}
    assert "no result" in results[0].message


def test_an_instance_that_the_result_does_not_mention_is_not_committed(chests: list[Path]) -> None:
    def forget(event: Event) -> Dataset:
        told = report(event, failed=0)
        told.ReferencedSOPSequence = told.ReferencedSOPSequence[:2]
        return told

    with listener(CONTEXTS, handlers=[(evt.EVT_N_ACTION, reporting(forget))]) as scp:
        results = list(committing(scp.port).send(chests))
    assert [sent.committed for sent in results] == [True, True, False]
    assert "does not mention it" in results[2].message


@pytest.mark.parametrize(
    ("contexts", "status", "words"),
    [
        (CONTEXTS[:1], 0, "does not support storage commitment"),
        (CONTEXTS, 0x0213, "resource limitation (0x0213)"),
    ],
)
def test_a_refused_commitment_makes_stored_files_fail(
    chests: list[Path], contexts: list[tuple[str, list[str]]], status: int, words: str
) -> None:
    act = [(evt.EVT_N_ACTION, lambda _: (status, None))]
    with listener(contexts, handlers=act) as scp:
        results = list(committing(scp.port).send(chests))
        assert len(scp.data_sets) == len(chests)
    assert {sent.outcome for sent in results} == {SendOutcome.FAILED}
    assert results[0].message.endswith(words)


def test_stored_files_get_results_though_the_association_has_ended(
    chests: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Association.send_n_action

    def late(association: Association, *arguments: Any) -> Any:  # noqa: ANN401
        association.abort()
        return request(association, *arguments)

    monkeypatch.setattr(Association, "send_n_action", late)
    with listener(CONTEXTS) as scp:
        results = list(committing(scp.port).send(chests))
    assert [sent.path for sent in results] == chests
    assert {sent.outcome for sent in results} == {SendOutcome.FAILED}
    assert results[0].message.startswith("stored, but not committed: ")
    assert results[0].message.endswith("ended the association")


def test_stored_files_get_results_though_the_port_is_in_use_by_then(chests: list[Path]) -> None:
    port = free_port()
    with ExitStack() as taken:

        def answer(_: Event) -> int:
            if not held:
                held.append(taken.enter_context(socket.create_server(("127.0.0.1", port))))
            return 0

        held: list[socket.socket] = []
        with listener(CONTEXTS, answer) as scp:
            results = list(replace(committing(scp.port), commitment_port=port).send(chests))
    assert [sent.path for sent in results] == chests
    assert {sent.outcome for sent in results} == {SendOutcome.FAILED}
    assert f"stored, but not committed: cannot listen on port {port}" in results[0].message


def test_commitment_is_requested_for_stored_files_only(chests: list[Path]) -> None:
    asked = []

    def make(event: Event) -> Dataset:
        asked.append(len(event.action_information.ReferencedSOPSequence))
        return report(event, failed=0)

    statuses = iter([0x0000, 0xC000, 0xB000])
    handlers = [(evt.EVT_N_ACTION, reporting(make))]
    with listener(CONTEXTS, lambda _: next(statuses), handlers=handlers) as scp:
        results = list(committing(scp.port).send(chests))
    assert asked == [2]
    assert [(sent.outcome, sent.committed) for sent in results] == [
        (SendOutcome.STORED, True),
        (SendOutcome.REFUSED, False),
        (SendOutcome.WARNED, True),
    ]


def test_files_stored_before_sigterm_are_committed_and_reported(
    chests: list[Path], tmp_path: Path
) -> None:
    """The file being sent is the last one; commitment is requested for it and those before it."""
    told, asked, stored = tmp_path / "report.json", [], []

    def answer(_: Event) -> int:
        stored.append(1)
        if len(stored) == 2:
            run.send_signal(signal.SIGTERM)
        return 0

    def make(event: Event) -> Dataset:
        asked.append(len(event.action_information.ReferencedSOPSequence))
        return report(event, failed=0)

    command = [sys.executable, "-m", "cxrsr_cli", "send", *map(str, chests)]
    options = ["--commitment", "--commitment-timeout", "20", "--report", str(told)]
    handlers = [(evt.EVT_N_ACTION, reporting(make))]
    with (
        listener(CONTEXTS, answer, handlers=handlers) as scp,
        subprocess.Popen([*command, f"dicom://PEER@127.0.0.1:{scp.port}", *options]) as run,
    ):
        try:
            run.communicate(timeout=60)
        finally:
            run.kill()
    assert (run.returncode, asked) == (ExitCode.INTERRUPTED, [2])
    files = json.loads(told.read_text())["files"]
    assert [(item["outcome"], item.get("committed")) for item in files] == [
        ("stored", True),
        ("stored", True),
        ("not processed", None),
    ]


def test_a_port_that_cannot_be_opened_is_an_error_before_any_file_is_sent(
    chests: list[Path],
) -> None:
    with listener(CONTEXTS) as scp, listener(CONTEXTS) as other:
        taken = replace(committing(scp.port), commitment_port=other.port)
        with pytest.raises(UsageError, match=f"cannot listen on port {other.port}"):
            list(taken.send(chests))
        nameless = replace(taken, commitment_port=free_port(), tls=TlsConfig())
        with pytest.raises(UsageError, match="a TLS server needs a certificate"):
            list(nameless.send(chests))
        assert not scp.associations
