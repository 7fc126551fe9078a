"""Damaged files and hostile peers end no run, and take bounded memory and time."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.events import Event

from cxrsr_cli.connections.destination import SendOutcome
from cxrsr_cli.send.association import make_ae
from cxrsr_cli.send.store import CStoreDestination
from tests.conftest import small_chest
from tests.helpers.peers import listener
from tests.helpers.waiting import HANG_SECONDS

pytestmark = pytest.mark.peer

DX = "1.2.840.10008.5.1.4.1.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
MAX_TAKEN_BYTES = 64 << 20
"""What buffers of the system hold, and a message of the largest size."""
P_DATA, ASSOCIATE_AC = 4, 2


def peer(port: int, timeout: float) -> CStoreDestination:
    return CStoreDestination(host="127.0.0.1", port=port, called_ae="PEER", timeout=timeout)


BAD_FILES = {
    "number as SOP Class UID": (b"\x08\x00\x16\x00UI", b"\x08\x00\x16\x00FD"),
    "two SOP Instance UIDs": (b"2.25.1000", b"2.2\\1.000"),
    "private transfer syntax": (b"1.2.840.10008.1.2.1\0", b"1.2.840.113619.5.21\0"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_does_not_end_the_run(tmp_path: Path, name: str) -> None:
    bad, good = tmp_path / "bad.dcm", tmp_path / "good.dcm"
    small_chest().save_as(bad)
    small_chest(1).save_as(good)
    old, new = BAD_FILES[name]
    head, found, rest = bad.read_bytes().rpartition(old)
    assert found
    bad.write_bytes(head + new + rest)
    with listener([(DX, [ImplicitVRLittleEndian])]) as scp:
        results = list(peer(scp.port, HANG_SECONDS).send([bad, good]))
    assert [sent.outcome for sent in results] == [SendOutcome.REFUSED, SendOutcome.STORED]
    assert "report it" not in results[0].message


def flood(taken: list[int], connection: socket.socket, piece: bytes) -> None:
    """Send until the other end closes; count the bytes."""
    with suppress(OSError):
        while taken[0] < 2 * MAX_TAKEN_BYTES:
            connection.sendall(piece)
            taken[0] += len(piece)


def claim(kind: int, taken: list[int], connection: socket.socket) -> None:
    """Claim a PDU of 4 GB."""
    connection.sendall(struct.pack(">BBL", kind, 0, 0xFFFFFFFF))
    flood(taken, connection, bytes(1 << 16))


def drip(kind: int, _taken: list[int], connection: socket.socket) -> None:
    """Send a PDU byte by byte, so that no wait for one is long."""
    with suppress(OSError):
        connection.sendall(struct.pack(">BBL", kind, 0, 100_000))
        while True:
            connection.sendall(b"\0")
            time.sleep(0.1)


def repeat(_kind: int, taken: list[int], connection: socket.socket) -> None:
    """Send fragments of a command set without end (PS3.8 annex E.2)."""
    value = b"\x01\x01" + bytes(16000)
    pdv = struct.pack(">L", len(value)) + value
    flood(taken, connection, struct.pack(">BBL", P_DATA, 0, len(pdv)) + pdv)


Attack = Callable[[int, list[int], socket.socket], None]


@pytest.mark.parametrize("attack", [claim, drip, repeat])
def test_an_answer_to_a_file_is_bounded(tmp_path: Path, attack: Attack) -> None:
    path, taken = tmp_path / "a.dcm", [0]
    small_chest().save_as(path)

    def answer(event: Event) -> int:
        connection = event.assoc.dul.socket
        assert connection
        assert connection.socket
        attack(P_DATA, taken, connection.socket)
        return 0

    with listener([(DX, [ExplicitVRLittleEndian])], answer) as scp:
        (sent,) = peer(scp.port, 2.0).send([path])
    assert sent.outcome is SendOutcome.FAILED
    assert taken[0] < MAX_TAKEN_BYTES


@contextmanager
def answering(attack: Attack, taken: list[int]) -> Iterator[int]:
    """Attack each peer that requests an association."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1 << 16)
                    attack(ASSOCIATE_AC, taken, connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(HANG_SECONDS)


@pytest.mark.parametrize("attack", [claim, drip])
def test_an_answer_to_an_association_request_is_bounded(tmp_path: Path, attack: Attack) -> None:
    path, taken = tmp_path / "a.dcm", [0]
    small_chest().save_as(path)
    with answering(attack, taken) as port:
        (sent,) = peer(port, 2.0).send([path])
    assert sent.outcome is SendOutcome.FAILED
    assert taken[0] < MAX_TAKEN_BYTES


@pytest.mark.parametrize("attack", [claim, drip])
def test_the_port_of_storage_commitment_is_bounded(attack: Attack) -> None:
    taken, ae = [0], make_ae("US", 2.0)
    ae.add_supported_context(VERIFICATION)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server
    assert server.socket
    try:
        port = server.socket.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            attack(1, taken, connection)
        assert taken[0] < MAX_TAKEN_BYTES
        other = AE("PEER")
        other.add_requested_context(VERIFICATION)
        association = other.associate("127.0.0.1", port)
        assert association.is_established
        assert association.send_c_echo().Status == 0
        association.release()
    finally:
        ae.shutdown()
