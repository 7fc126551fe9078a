"""The internals of pynetdicom that `receive.pynetdicom_association` relies on are there."""

import inspect
from collections.abc import Callable
from io import BytesIO

import pynetdicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.fsm import ACTIONS, TRANSITION_TABLE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AddressInformation, AssociationSocket

ASSOCIATION = Association(AE(), "acceptor")

MEMBERS: list[tuple[object, str]] = [
    (ASSOCIATION, "dul dimse acse acceptor requestor accepted_contexts is_established"),
    (ASSOCIATION, "abort kill run set_socket bind unbind get_handlers acse_timeout"),
    (ASSOCIATION.requestor, "primitive address_info"),
    (ASSOCIATION.acceptor, "maximum_length ae_title address_info supported_contexts"),
    (ASSOCIATION.acceptor, "implementation_class_uid implementation_version_name"),
    (ASSOCIATION.dul, "run_reactor socket state_machine event_queue name daemon"),
    (ASSOCIATION.dul, "to_user_queue to_provider_queue"),
    (ASSOCIATION.dul.state_machine, "current_state"),
    (ASSOCIATION.dimse, "receive_primitive get_msg send_msg msg_queue message assoc dul"),
    (DIMSEMessage(), "command_set encoded_command_set data_set decode_msg message_to_primitive"),
    (P_DATA(), "presentation_data_value_list"),
    (AssociationSocket, "ready recv send event_queue"),
    (AddressInformation, "from_tuple address_family"),
    (evt, "EVT_REQUESTED EVT_PDU_RECV EVT_FSM_TRANSITION EVT_C_STORE"),
    (evt, "EVT_DIMSE_RECV EVT_DIMSE_SENT EVT_PDU_SENT"),
]

PARAMETERS: list[tuple[Callable[..., object], list[str]]] = [
    (AssociationSocket, ["assoc", "client_socket", "address"]),
    (AssociationSocket.recv, ["self", "nr_bytes"]),
    (AssociationSocket.send, ["self", "bytestream"]),
    (type(ASSOCIATION.dul), ["assoc"]),
    (type(ASSOCIATION.dimse), ["assoc"]),
    (type(ASSOCIATION.dimse).receive_primitive, ["self", "primitive"]),
    (type(ASSOCIATION.dimse).get_msg, ["self", "block"]),
    (type(ASSOCIATION.dimse).send_msg, ["self", "primitive", "context_id"]),
    (DIMSEMessage.decode_msg, ["self", "primitive", "assoc"]),
    (type(ASSOCIATION.acse).send_reject, ["self", "result", "source", "diagnostic"]),
]

TRANSITIONS = [
    ("Evt19", "Sta2", "AA-1", "an invalid PDU in place of a request is answered with an A-ABORT"),
    ("Evt19", "Sta6", "AA-8", "an invalid PDU in an association is answered with an A-ABORT"),
    ("Evt17", "Sta6", "AA-4", "a closed connection ends the association"),
    ("Evt18", "Sta2", "AA-2", "the request timer closes the connection"),
    ("Evt12", "Sta6", "AR-2", "a release request is indicated to the user"),
    ("Evt6", "Sta2", "AE-6", "a request is examined"),
]


def broken(what: str) -> str:
    return (
        f"pynetdicom {pynetdicom.__version__} has changed: {what}; adapt "
        "cxrsr_cli/receive/pynetdicom_association.py, or exclude this version in pyproject.toml"
    )


@pytest.mark.parametrize(
    ("owner", "names"), MEMBERS, ids=[f"{type(o).__name__} {names}" for o, names in MEMBERS]
)
def test_members_exist(owner: object, names: str) -> None:
    missing = [name for name in names.split() if not hasattr(owner, name)]
    assert not missing, broken(f"{owner!r} lacks {', '.join(missing)}")


@pytest.mark.parametrize(
    ("function", "names"), PARAMETERS, ids=[function.__qualname__ for function, _ in PARAMETERS]
)
def test_parameters_are_as_expected(function: Callable[..., object], names: list[str]) -> None:
    found = list(inspect.signature(function).parameters)
    assert found == names, broken(f"{function.__qualname__} takes {found}, not {names}")


@pytest.mark.parametrize(("event", "state", "action", "meaning"), TRANSITIONS)
def test_the_state_machine_acts_as_expected(
    event: str, state: str, action: str, meaning: str
) -> None:
    found = TRANSITION_TABLE.get((event, state))
    assert found == action, broken(f"{event} in {state} gives {found}, not {action}: {meaning}")
    assert action in ACTIONS


def test_a_data_set_is_written_to_the_buffer_of_its_message() -> None:
    class Sink(BytesIO):
        pieces: list[bytes] = []  # noqa: RUF012, one for the test

        def write(self, piece: bytes) -> int:  # type: ignore[override]
            self.pieces.append(bytes(piece))
            return len(piece)

    message = DIMSEMessage()
    message.command_set.CommandDataSetType = 1
    message.data_set = Sink()
    primitive = P_DATA()
    primitive.presentation_data_value_list.append((1, b"\x00data"))
    message.decode_msg(primitive, ASSOCIATION)
    assert Sink.pieces == [b"data"], broken("DIMSEMessage.decode_msg does not write to data_set")


def test_the_service_loop_takes_messages_from_get_msg() -> None:
    source = inspect.getsource(Association)
    assert ".dimse.get_msg(" in source, broken("Association does not call dimse.get_msg")
    assert ".dul.receive_pdu(" in source, broken("Association does not call dul.receive_pdu")
