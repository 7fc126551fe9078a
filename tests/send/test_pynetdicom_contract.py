"""The undocumented members of pynetdicom that send/pynetdicom_patches.py uses still exist.

A failure says in one sentence which member has changed and what needs it.
"""

import inspect
import queue
from dataclasses import dataclass
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path

import pynetdicom
import pytest
from pynetdicom import AE, _config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from cxrsr_cli.send.pynetdicom_patches import (
    _CHUNKED_DATASETS,
    _MAX_QUEUED_PDUS,
    drop_pending_pdus,
    harden_association,
    send_file,
)
from tests.conftest import EXAMPLE


def unconnected() -> Association:
    return Association(AE(), "requestor")


@dataclass(frozen=True)
class Member:
    """A member of pynetdicom, its parameters if it is called, and what needs it."""

    owner: object
    name: str
    needed_by: str
    parameters: tuple[str, ...] | None = None

    def __str__(self) -> str:
        owner = self.owner if inspect.isclass(self.owner) else type(self.owner)
        prefix = "_config" if self.owner is _config else owner.__name__
        return f"{prefix}.{self.name}"


MEMBERS = [
    Member(
        ApplicationEntity,
        "_create_socket",
        "PatchedAE",
        ("self", "assoc", "address", "tls_args"),
    ),
    Member(
        AssociationSocket,
        "__init__",
        "_BoundedSocket",
        ("self", "assoc", "client_socket", "address"),
    ),
    Member(AssociationSocket, "send", "_BoundedSocket", ("self", "bytestream")),
    Member(AssociationSocket, "_shutdown_socket", "_BoundedSocket", ("self",)),
    Member(AssociationSocket, "recv", "_BoundedSocket", ("self", "nr_bytes")),
    Member(
        ApplicationEntity,
        "make_server",
        "PatchedAE",
        (
            "self",
            "address",
            "ae_title",
            "contexts",
            "ssl_context",
            "evt_handlers",
            "server_class",
            "kwargs",
        ),
    ),
    Member(DIMSEServiceProvider, "receive_primitive", "_BoundedMessages", ("self", "primitive")),
    Member(RequestHandler, "_create_association", "_BoundedRequestHandler", ("self",)),
    Member(ThreadedAssociationServer, "get_request", "_BoundedServer", ("self",)),
    Member(AssociationSocket, "tls_args", "PatchedAE"),
    Member(Association, "get_handlers", "PatchedAE", ("self", "event")),
    Member(Association, "unbind", "PatchedAE", ("self", "event", "handler")),
    Member(unconnected(), "dimse.msg_queue", "harden_association"),
    Member(unconnected(), "dul.to_provider_queue", "harden_association"),
    Member(unconnected(), "dul.socket", "harden_association"),
    Member(_config, "STORE_SEND_CHUNKED_DATASET", "send_file"),
]


def check(member: Member) -> None:
    """Fail with one sentence if the installed pynetdicom has another member."""
    library = f"pynetdicom {version('pynetdicom')}"
    consequence = f"{member.needed_by} of send/pynetdicom_patches.py must be adapted"
    try:
        found = attrgetter(member.name)(member.owner)
    except AttributeError:
        pytest.fail(f"{library} has no {member} any more; {consequence}", pytrace=False)
    if member.parameters is not None:
        parameters = tuple(inspect.signature(found).parameters)
        if parameters != member.parameters:
            pytest.fail(f"{library} has {member}{parameters}; {consequence}", pytrace=False)


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_pynetdicom_has_the_member(member: Member) -> None:
    check(member)


@pytest.mark.parametrize(
    ("member", "sentence"),
    [
        (
            Member(Association, "_gone", "harden_association"),
            (
                r"pynetdicom [\d.]+ has no Association\._gone any more; harden_association of "
                r"send/pynetdicom_patches\.py must be adapted"
            ),
        ),
        (
            Member(Association, "unbind", "PatchedAE", ("self", "event")),
            (
                r"pynetdicom [\d.]+ has Association\.unbind\('self', 'event', 'handler'\); "
                r"PatchedAE of send/pynetdicom_patches\.py must be adapted"
            ),
        ),
    ],
)
def test_a_change_of_pynetdicom_is_reported_in_one_sentence(member: Member, sentence: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=f"^{sentence}$"):
        check(member)


def test_a_response_goes_to_the_caller_that_waits_for_it() -> None:
    """The thread of pynetdicom that polls for requests took one of some hundred responses away."""
    association = unconnected()
    harden_association(association, timeout=5.0)
    response = (1, C_STORE())
    association.dimse.msg_queue.put(response)
    assert association.dimse.get_msg(block=False) == (None, None)
    assert association.dimse.get_msg(block=True) == response


def test_pdus_are_sent_through_the_bounded_queue() -> None:
    association = unconnected()
    harden_association(association, timeout=0.01)
    for _ in range(_MAX_QUEUED_PDUS):
        association.dul.send_pdu(P_DATA())
    with pytest.raises(queue.Full):
        association.dul.send_pdu(P_DATA())


def test_a_closed_connection_drops_its_pending_pdus() -> None:
    association = unconnected()
    harden_association(association, timeout=5.0)
    association.dul.send_pdu(P_DATA())
    drop_pending_pdus(pynetdicom.events.Event(association, pynetdicom.evt.EVT_CONN_CLOSE))
    assert association.dul.to_provider_queue.empty()
    with pytest.raises(queue.Full):
        association.dul.send_pdu(P_DATA())


def test_an_association_that_has_ended_sends_no_file() -> None:
    with pytest.raises(RuntimeError):
        send_file(unconnected(), EXAMPLE, 1)


def test_the_process_setting_is_changed_only_while_files_are_sent() -> None:
    assert not _config.STORE_SEND_CHUNKED_DATASET
    with _CHUNKED_DATASETS:
        with _CHUNKED_DATASETS:
            pass
        assert _config.STORE_SEND_CHUNKED_DATASET
    assert not _config.STORE_SEND_CHUNKED_DATASET


def test_no_other_module_of_send_uses_private_members_of_pynetdicom() -> None:
    """Lint forbids private names; these are internals with public names."""
    internals = ("pynetdicom._", ".dul", ".dimse.", "pynetdicom.transport", "pynetdicom.fsm")
    for path in (Path(__file__).parents[2] / "cxrsr_cli" / "send").glob("*.py"):
        if path.name != "pynetdicom_patches.py":
            text = path.read_text(encoding="utf-8")
            assert not [word for word in internals if word in text], path.name
