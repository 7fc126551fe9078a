"""Hostile peers are disconnected, and the node goes on serving the others."""

import concurrent.futures
import contextlib
import os
import random
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.common.validators import sanitize_ae_title
from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.dicom.dataset_walker import check_structure
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import NotDicomError
from cxrsr_cli.receive.config import ScpConfig
from cxrsr_cli.receive.refusal import ABORTS, RefusalReason
from tests.conftest import EXAMPLE
from tests.helpers.receiving import (
    LIMITS,
    Node,
    RawPeer,
    announce,
    begin,
    command_set,
    data_set,
    echo,
    halves,
    is_well,
    padded,
    process,
    request,
    store,
    value,
)
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.peer

DX = "1.2.840.10008.5.1.4.1.1.1.1"
HASTY = replace(LIMITS, idle_timeout=0.5, instance_timeout=1.5)
"""For peers that are waited for; real ones are done much earlier."""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "spool")


@pytest.fixture
def hasty(tmp_path: Path) -> Node:
    return Node(tmp_path / "hasty", ScpConfig(port=0, limits=HASTY))


def pdu(kind: int, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack(">BxI", kind, len(body) if length is None else length) + body


# Instead of a request.

GARBAGE: dict[str, tuple[bytes, RefusalReason]] = {
    "http": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", RefusalReason.NOT_DICOM),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", RefusalReason.NOT_DICOM),
    "zeros": (bytes(4096), RefusalReason.NOT_DICOM),
    "4 GiB announced": (pdu(1, length=0xFFFFFFFF), RefusalReason.TOO_LONG),
    "megabytes of a request": (pdu(1, bytes(2 << 20)), RefusalReason.TOO_LONG),
    "an empty request": (pdu(1), RefusalReason.MALFORMED),
    "items cut short": (pdu(1, request()[6:-9]), RefusalReason.MALFORMED),
    "data first": (value(b"x"), RefusalReason.UNEXPECTED),
    "release first": (pdu(5, bytes(4)), RefusalReason.UNEXPECTED),
    "acceptance first": (pdu(2, request()[6:]), RefusalReason.UNEXPECTED),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_bytes_that_are_not_an_association_request_are_aborted(node: Node, name: str) -> None:
    sent, said = GARBAGE[name]
    with node:
        with RawPeer(node.port) as peer:
            peer.send(sent)
            assert peer.pdu() == pdu(7, bytes((0, 0, 2, ABORTS[said])))
            assert peer.pdu() == b""
        is_well(node)
    assert node.reasons() == {said}


def test_requests_with_random_items_do_no_harm(node: Node) -> None:
    generator = random.Random(1)  # noqa: S311
    whole = request((DX, [ImplicitVRLittleEndian, JPEG2000Lossless]))
    with node:
        for _ in range(300):
            spoilt = bytearray(whole)
            for _ in range(generator.randint(1, 8)):
                spoilt[generator.randrange(6, len(spoilt))] = generator.randrange(256)
            with RawPeer(node.port) as peer:
                peer.send(bytes(spoilt))
                assert peer.pdu()[:1] in (b"\x02", b"\x03", b"\x07")
        is_well(node)
    assert RefusalReason.INTERNAL not in node.reasons()


def test_messages_of_random_bytes_do_no_harm(node: Node) -> None:
    generator = random.Random(2)  # noqa: S311
    head = command_set(sop_class=padded(DX), sop_instance=padded("1.2.3"))
    whole = value(head, command=True) + value(data_set(EXAMPLE)[:2000]) + pdu(5, bytes(4))
    with node:
        for _ in range(200):
            spoilt = bytearray(whole)
            for _ in range(generator.randint(1, 6)):
                at = generator.randrange(generator.choice((200, len(spoilt) - 20)))
                spoilt[at : at + generator.randrange(3)] = generator.randbytes(1)
            with RawPeer(node.port) as peer:
                assert peer.associate((DX, [ExplicitVRLittleEndian]))[:1] == b"\x02"
                try:
                    peer.send(bytes(spoilt))
                    peer.socket.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # aborted already
                while peer.pdu():
                    pass
        is_well(node)
    assert RefusalReason.INTERNAL not in node.reasons()
    assert node.arrivals[1:] == []


@pytest.mark.parametrize("after", [pdu(5, bytes(4)), value(b"x"), pdu(9), request(), b"x"])
def test_bytes_after_a_release_do_no_harm(node: Node, after: bytes) -> None:
    with node:
        with RawPeer(node.port) as peer:
            peer.associate()
            peer.send(pdu(5, bytes(4)) + after)
            assert peer.pdu() == pdu(6, bytes(4))
        is_well(node)


def test_a_message_sent_before_the_acceptance_is_handled(node: Node) -> None:
    with node:
        with RawPeer(node.port) as peer:
            peer.send(request() + value(_echo(), command=True) + pdu(5, bytes(4)))
            assert peer.pdu()[0] == 2
            assert peer.status() == DimseStatus.SUCCESS
            assert peer.pdu() == pdu(6, bytes(4))
        is_well(node)
    assert node.refusals == []


def test_other_protocol_versions_and_applications_are_rejected(node: Node) -> None:
    ours = request()
    version = ours[:6] + b"\0\2" + ours[8:]
    no_items = pdu(1, ours[6:74])
    application = ours.replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2")
    with node:
        for sent, rejection in (
            (version, (1, 2, 2)),
            (application, (1, 1, 2)),
            (no_items, (1, 1, 2)),
        ):
            with RawPeer(node.port) as peer:
                peer.send(sent)
                assert tuple(peer.pdu()[7:]) == rejection
        is_well(node)
    assert node.reasons() == {RefusalReason.VERSION, RefusalReason.APPLICATION}


def test_an_ae_title_cannot_forge_lines_of_a_log(node: Node) -> None:
    forged = request().replace(b"MODALITY  ", b"A\nB\x1b[2J\xff\x00X")
    with node:
        with RawPeer(node.port) as peer:
            peer.send(forged)
            assert peer.pdu()[:1] in (b"\x03", b"\x07")
        is_well(node)
    assert re.fullmatch(r"[ -~]{0,16}", node.refusals[0].calling_ae)
    assert sanitize_ae_title("A\\\r\nB" + "C" * 99) == "A???B" + "C" * 11


def test_nothing_that_a_peer_sends_is_logged(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    whole = data_set(EXAMPLE)
    with node:
        for sent in (request(calling="LOGGED"), pdu(1, request(calling="LOGGED")[6:-5])):
            with RawPeer(node.port) as peer:
                peer.send(sent)
                peer.pdu()
        for piece in (whole, whole[:-9], whole.replace(b"DX", b"\xff\n"), whole[::-1]):
            with RawPeer(node.port) as peer:
                begin(peer, piece, last=True)
                peer.status()
    assert caplog.records == []


def test_a_connection_without_data_is_not_reported(node: Node) -> None:
    with node:
        for _ in range(20):
            with RawPeer(node.port):
                pass
        is_well(node)
    assert node.refusals == []


# Silence.


def _say_nothing(peer: RawPeer) -> None:
    pass


def _half_a_header(peer: RawPeer) -> None:
    peer.send(b"\1\0\0")


def _half_a_request(peer: RawPeer) -> None:
    peer.send(request()[:100])


def _then_nothing(peer: RawPeer) -> None:
    assert peer.associate()[0] == 2


def _half_a_pdu(peer: RawPeer) -> None:
    _then_nothing(peer)
    peer.send(value(b"x" * 1000, command=True)[:500])


def _half_an_instance(peer: RawPeer) -> None:
    begin(peer, halves()[0])


_ASSOCIATED = (_then_nothing, _half_a_pdu, _half_an_instance)


@pytest.mark.parametrize(
    "start",
    [_say_nothing, _half_a_header, _half_a_request, _then_nothing, _half_a_pdu, _half_an_instance],
)
def test_silent_peers_are_disconnected(hasty: Node, start: Callable[[RawPeer], None]) -> None:
    with hasty as node:
        with RawPeer(node.port) as peer:
            start(peer)
            # Who did not request an association yet is not told (PS3.8 9.2.3, action AA-2).
            assert peer.pdu()[:1] in ((b"\x07",) if start in _ASSOCIATED else (b"\x07", b""))
            assert peer.pdu() == b""
        is_well(node)
    assert node.reasons() == {RefusalReason.SLOW}


@pytest.mark.parametrize("what", ["request", "command", "instance"])
def test_a_peer_that_sends_too_slowly_is_aborted(hasty: Node, what: str) -> None:
    """Each byte arrives in time, but the PDU does not."""

    def trickle(peer: RawPeer, sent: bytes, size: int) -> None:
        for at in range(0, len(sent), size):
            try:
                peer.send(sent[at : at + size])
            except OSError:
                return
            peer.socket.settimeout(0.2)
            try:
                if peer.socket.recv(1) in (b"\x07", b""):
                    return
            except TimeoutError:
                continue
        pytest.fail("the node waited for all of it")

    with hasty as node:
        with RawPeer(node.port) as peer:
            if what == "request":
                trickle(peer, request(), 1)
            elif what == "command":
                peer.associate()
                trickle(peer, value(b"", command=True, last=False) * 1000, 12)
            else:
                begin(peer, b"")
                trickle(peer, value(b"\x08\0", last=False) * 1000, 14)
        is_well(node)
    assert node.reasons() == {RefusalReason.SLOW}


def test_an_association_ends_after_its_timeout(tmp_path: Path) -> None:
    limits = replace(LIMITS, association_timeout=0.5)
    with Node(tmp_path / "spool", ScpConfig(port=0, limits=limits)) as node:
        with RawPeer(node.port) as peer:
            peer.associate()
            question = value(_echo(), command=True)
            for _ in range(1000):
                try:
                    peer.send(question)
                    answer = peer.pdu()
                except OSError:
                    answer = b"\x07"
                if answer[:1] != b"\x04":
                    break
                time.sleep(0.01)
            assert answer[:1] == b"\x07"
        is_well(node)


def _echo() -> bytes:
    return command_set(sop_class=padded("1.2.840.10008.1.1"), field=b"\x30\0", data_set=b"\x01\x01")


def test_a_peer_that_does_not_read_responses_is_disconnected(hasty: Node) -> None:
    question = value(_echo(), command=True)
    with hasty as node:
        with RawPeer(node.port) as peer:
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.associate()
            assert not _pour(peer, question * 1000, 1 << 40)
        is_well(node)
    assert node.reasons() <= {RefusalReason.SLOW, RefusalReason.BROKEN_OFF}


# Within an association.


def _command(*, context: int = 1, **elements: bytes) -> bytes:
    return value(command_set(**elements), command=True, context=context)


_OTHER_GROUP = struct.pack("<HHI", 16, 16, 2) + b"XX"
MESSAGES: dict[str, tuple[list[bytes], RefusalReason]] = {
    "4 GiB announced": ([pdu(4, length=0xFFFFFFFF)], RefusalReason.TOO_LONG),
    "an unknown PDU": ([pdu(9, bytes(4))], RefusalReason.NOT_DICOM),
    "a second request": ([request()], RefusalReason.UNEXPECTED),
    "no value": ([pdu(4)], RefusalReason.MALFORMED),
    "a value of no length": ([pdu(4, bytes(6))], RefusalReason.MALFORMED),
    "a value longer than its PDU": (
        [pdu(4, struct.pack(">IBB", 1 << 31, 1, 3) + b"x" * 20)],
        RefusalReason.MALFORMED,
    ),
    "a context that was not accepted": ([_command(context=9)], RefusalReason.UNEXPECTED),
    "a data set without command": ([value(b"x")], RefusalReason.UNEXPECTED),
    "an endless command set": (
        [value(bytes(1000), command=True, last=False)] * 100,
        RefusalReason.TOO_LONG,
    ),
    "a command set of garbage": ([value(b"\xff" * 64, command=True)], RefusalReason.MALFORMED),
    "a command set of another group": (
        [value(_OTHER_GROUP, command=True)],
        RefusalReason.MALFORMED,
    ),
    "no command field": ([_command(field=b"")], RefusalReason.MALFORMED),
    "no message ID": ([_command(message_id=b"1")], RefusalReason.MALFORMED),
    "an empty command set": ([value(b"", command=True)], RefusalReason.MALFORMED),
    "a response": ([_command(field=b"\x01\x80")], RefusalReason.UNEXPECTED),
    "a command within an instance": ([_command(), _command()], RefusalReason.UNEXPECTED),
    "release within an instance": ([_command(), pdu(5, bytes(4))], RefusalReason.UNEXPECTED),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_bytes_that_are_not_a_message_are_aborted(node: Node, name: str) -> None:
    sent, said = MESSAGES[name]
    with node:
        with RawPeer(node.port) as peer:
            assert peer.associate((DX, [ExplicitVRLittleEndian]))[0] == 2
            with contextlib.suppress(OSError):  # aborted already
                peer.send(*sent)
            assert peer.pdu() == pdu(7, bytes((0, 0, 2, ABORTS[said])))
        is_well(node)
    assert said in node.reasons()


def test_unsupported_operations_get_a_failure_status(node: Node) -> None:
    with node:
        with RawPeer(node.port) as peer:
            peer.associate((DX, [ExplicitVRLittleEndian]))
            for data, follows in ((b"\x01\x01", False), (b"\0\0", True)):
                for field in (b"\x20\0", b"\x21\0", b"\x00\x01", b"\x40\x01"):
                    peer.send(value(command_set(field=field, data_set=data), command=True))
                    if follows:
                        peer.send(value(bytes(10)))
                    assert peer.status() == DimseStatus.UNRECOGNISED_OPERATION
            peer.send(value(command_set(field=b"\xff\x0f", data_set=b"\x01\x01"), command=True))
            peer.send(value(_echo(), command=True))
            assert peer.status() == DimseStatus.SUCCESS
            peer.send(pdu(5, bytes(4)))
            assert peer.pdu() == pdu(6, bytes(4))
        is_well(node)
    assert node.reasons() == {RefusalReason.OPERATION}


# Instances.

ILLEGAL = {
    "a path": "../../../../tmp/x",
    "an absolute path": "/etc/passwd",
    "empty": "",
    "65 characters": "1." + "2" * 63,
    "letters": "1.2.A",
    "a leading zero": "1.02.3",
    "an empty component": "1..2",
    "a line break": "1.2\n3",
    "a zero byte within": "1.2\x003",
    "not ASCII": "1.2.\xb2",
    "two of them": "1.2.3\\1.2.4",
}


@pytest.mark.parametrize("uid", ILLEGAL.values(), ids=ILLEGAL)
@pytest.mark.parametrize("where", ["SOPClassUID", "SOPInstanceUID"])
def test_illegal_uids_are_refused(node: Node, tmp_path: Path, where: str, uid: str) -> None:
    encoded = uid.encode("latin-1")
    encoded += b"\0" * (len(encoded) % 2)
    name = "sop_class" if where == "SOPClassUID" else "sop_instance"
    true = str(pydicom.dcmread(EXAMPLE)[where].value)
    spoilt = _with_uid(data_set(EXAMPLE), where, true, encoded)
    everything = set(tmp_path.rglob("*"))
    with node:
        with RawPeer(node.port) as peer:
            # In the command, in the data set, and in both alike.
            begin(peer, data_set(EXAMPLE), last=True, **{name: encoded})
            assert peer.status() == DimseStatus.CANNOT_UNDERSTAND
            for announced in ({}, {name: encoded}):
                announce(peer, **announced)
                peer.send(value(spoilt))
                assert peer.status() in (
                    DimseStatus.CANNOT_UNDERSTAND,
                    DimseStatus.DATA_SET_MISMATCH,
                )
        assert {path for path in tmp_path.rglob("*") if path.is_file()} <= everything
        is_well(node)
    assert node.reasons() <= {
        RefusalReason.ILLEGAL_UID,
        RefusalReason.UNREADABLE,
        RefusalReason.UID_MISMATCH,
    }
    assert not any(uid and uid in str(refusal) for refusal in node.refusals)


def _with_uid(encoded: bytes, where: str, true: str, uid: bytes) -> bytes:
    """Replace a UID in a data set of explicit VR."""
    tag = {"SOPClassUID": b"\x08\0\x16\0UI", "SOPInstanceUID": b"\x08\0\x18\0UI"}[where]
    old = tag + struct.pack("<H", len(padded(true))) + padded(true)
    assert encoded.count(old) == 1
    return encoded.replace(old, tag + struct.pack("<H", len(uid)) + uid)


def test_an_instance_other_than_announced_is_refused(node: Node) -> None:
    with node:
        with RawPeer(node.port) as peer:
            begin(peer, data_set(EXAMPLE), last=True, sop_instance=padded("1.2.3"))
            assert peer.status() == DimseStatus.DATA_SET_MISMATCH
            announce(peer)
            peer.send(value(_with_class(b"1.2.840.10008.5.1.4.1.1.1\0")))
            assert peer.status() == DimseStatus.DATA_SET_MISMATCH
            announce(peer, sop_class=padded("1.2.840.10008.5.1.4.1.1.1"))
            peer.send(value(data_set(EXAMPLE)))
            assert peer.status() == DimseStatus.SOP_CLASS_NOT_SUPPORTED
            announce(peer, data_set=b"\x01\x01")
            assert peer.status() == DimseStatus.CANNOT_UNDERSTAND
            announce(peer)
            peer.send(value(data_set(EXAMPLE)))
            assert peer.status() == DimseStatus.SUCCESS
        is_well(node)
    assert node.reasons() == {
        RefusalReason.UID_MISMATCH,
        RefusalReason.SOP_CLASS,
        RefusalReason.NO_DATA_SET,
    }


def _with_class(uid: bytes) -> bytes:
    return _with_uid(data_set(EXAMPLE), "SOPClassUID", DX, uid)


def _encapsulated() -> bytes:
    head = _without_pixels()
    item = b"\xfe\xff\x00\xe0" + struct.pack("<I", 64) + bytes(64)
    end = b"\xfe\xff\xdd\xe0" + bytes(4)
    start = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0" + bytes(4)
    return head + start + item + end


def _without_pixels() -> bytes:
    whole = data_set(EXAMPLE)
    return whole[: whole.rindex(b"\xe0\x7f\x10\0OW")]


def _deflated(inflated: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(inflated) + deflater.flush()


DAMAGED: dict[str, tuple[str, bytes]] = {
    "empty": (ExplicitVRLittleEndian, b""),
    "garbage": (ExplicitVRLittleEndian, b"\xa5" * 4096),
    "pixels cut off": (ExplicitVRLittleEndian, data_set(EXAMPLE)[:-2]),
    "cut off in the middle of a header": (ExplicitVRLittleEndian, data_set(EXAMPLE)[:1000]),
    "cut off after a few elements": (ExplicitVRLittleEndian, data_set(EXAMPLE)[:21]),
    "another file's meta information": (
        ExplicitVRLittleEndian,
        b"\x02\0\x10\0UI\x16\0" + b"1.2.840.10008.1.2.1.99" + data_set(EXAMPLE),
    ),
    "deflated and cut off": (DeflatedExplicitVRLittleEndian, _deflated(data_set(EXAMPLE))[:-1000]),
    "not deflated": (DeflatedExplicitVRLittleEndian, data_set(EXAMPLE)),
    "encapsulated and cut off": (JPEG2000Lossless, _encapsulated()[:-20]),
    "encapsulated without an end": (JPEG2000Lossless, _encapsulated()[:-8]),
    "sequences without end": (
        ExplicitVRLittleEndian,
        _without_pixels()
        + (b"\x09\x70\x10\0SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000,
    ),
}


_NESTED = {
    "items": (b"\xfe\xff\x00\xe0" + bytes(4)) * 100_000,
    "elements": b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    + b"".join(struct.pack("<HHHxx", 0x7009, n, 0x5355) for n in range(0x10, 0xFFFF)) * 2,
}


@pytest.mark.parametrize("nested", _NESTED.values(), ids=_NESTED)
@pytest.mark.parametrize("vr", [b"SQ", b"UN"])
def test_a_data_set_with_too_many_elements_is_refused(node: Node, vr: bytes, nested: bytes) -> None:
    element = b"\x09\x70\x10\0" + vr + bytes(2) + struct.pack("<I", len(nested)) + nested
    with node:
        with RawPeer(node.port) as peer:
            peer.associate((DX, [ExplicitVRLittleEndian]))
            announce(peer)
            sent = _without_pixels() + element
            for at in range(0, len(sent), 100_000):
                peer.send(value(sent[at : at + 100_000], last=at + 100_000 >= len(sent)))
            assert peer.status() == DimseStatus.CANNOT_UNDERSTAND
        is_well(node)
    assert node.reasons() == {RefusalReason.UNREADABLE}


def test_of_real_files_only_truncated_ones_are_refused(shared: Path) -> None:
    """Every file that is read is walked to its end; one cut off before its pixels is not read."""
    walked, damaged = 0, set()
    of_pydicom = Path(pydicom.__file__).parent / "data" / "test_files"
    for path in [*(shared / "dicom").rglob("*.dcm"), *of_pydicom.rglob("*.dcm")]:
        if path.read_bytes()[128:132] != b"DICM":
            continue
        with quiet_libraries():
            try:
                syntax = read_file_meta_info(path).TransferSyntaxUID
                read_source(path)
            except (NotDicomError, AttributeError):
                continue
        walked += 1
        try:
            check_structure(path, path.stat().st_size - len(data_set(path)), syntax, 1 << 30)
        except NotDicomError:
            damaged.add(path.name)
    assert walked > 50
    assert damaged == {"MR_truncated.dcm"}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_instances_are_refused(node: Node, name: str) -> None:
    syntax, sent = DAMAGED[name]
    with node:
        with RawPeer(node.port) as peer:
            peer.associate((DX, [syntax]))
            announce(peer)
            peer.send(value(sent))
            assert peer.status() == DimseStatus.CANNOT_UNDERSTAND
        is_well(node)
    assert node.reasons() == {RefusalReason.UNREADABLE}


def test_a_complete_encapsulated_instance_is_accepted(node: Node) -> None:
    with node:
        with RawPeer(node.port) as peer:
            peer.associate((DX, [JPEG2000Lossless]))
            announce(peer)
            peer.send(value(_encapsulated()))
            assert peer.status() == DimseStatus.SUCCESS
        is_well(node)


@pytest.mark.parametrize("ending", ["close", "abort", "reset"])
def test_a_connection_lost_in_the_middle_leaves_no_file(node: Node, ending: str) -> None:
    with node:
        with RawPeer(node.port) as peer:
            begin(peer, halves()[0])
            wait_until(lambda: len(list(node.arriving.iterdir())) == 1, "the instance begins")
            if ending == "abort":
                peer.send(pdu(7, bytes(4)))
            elif ending == "reset":
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        is_well(node)
    assert node.reasons() == {RefusalReason.BROKEN_OFF}


def test_an_instance_above_the_size_limit_is_refused(tmp_path: Path) -> None:
    limits = replace(LIMITS, max_instance_bytes=200_000)
    with Node(tmp_path / "spool", ScpConfig(port=0, limits=limits)) as node:
        with RawPeer(node.port) as peer:
            begin(peer, data_set(EXAMPLE))
            sent = 0
            while sent < 20 << 20:  # nothing of it stays on the disk
                peer.send(value(bytes(100_000), last=False))
                sent += 100_000
            wait_until(lambda: not list(node.arriving.iterdir()), "the file is removed at once")
            peer.send(value(b""))
            assert peer.status() == DimseStatus.OUT_OF_RESOURCES
            announce(peer)
            peer.send(value(data_set(EXAMPLE)))
            assert peer.status() == DimseStatus.SUCCESS
        is_well(node)
    assert node.reasons() == {RefusalReason.INSTANCE_TOO_LONG}


def test_a_highly_compressible_deflated_instance_is_accepted(node: Node) -> None:
    size = 4 << 20
    black = b"\x09\x70\x10\0OB\0\0" + struct.pack("<I", size) + bytes(size)
    with node:
        with RawPeer(node.port) as peer:
            peer.associate((DX, [DeflatedExplicitVRLittleEndian]))
            announce(peer)
            peer.send(value(_deflated(_without_pixels() + black)))
            assert peer.status() == DimseStatus.SUCCESS
        is_well(node)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    bomb = _deflated(
        _without_pixels() + b"\x09\x70\x10\0OB\0\0" + struct.pack("<I", 64 << 20) + bytes(64 << 20)
    )
    assert len(bomb) < 1 << 20
    limits = replace(LIMITS, max_instance_bytes=1 << 20)
    with Node(tmp_path / "spool", ScpConfig(port=0, limits=limits)) as node:
        with RawPeer(node.port) as peer:
            peer.associate((DX, [DeflatedExplicitVRLittleEndian]))
            announce(peer)
            peer.send(value(bomb))
            assert peer.status() == DimseStatus.OUT_OF_RESOURCES
        is_well(node)
    assert node.reasons() == {RefusalReason.INSTANCE_TOO_LONG}


def test_a_failed_write_is_out_of_resources(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes to /dev/full fail, on writing or on closing."""
    opened = os.open

    def full(path: object, *arguments: int) -> int:
        return opened("/dev/full" if "arriving-" in str(path) else str(path), os.O_WRONLY)

    with node:
        with monkeypatch.context() as patch:
            patch.setattr("cxrsr_cli.receive.store_sink.os.open", full)
            assert store(node.port, EXAMPLE) == DimseStatus.OUT_OF_RESOURCES
        is_well(node)
    assert node.reasons() == {RefusalReason.FULL}


# Many at once.


def test_associations_above_the_limit_are_rejected(tmp_path: Path) -> None:
    limits = replace(LIMITS, max_associations=4)
    with Node(tmp_path / "spool", ScpConfig(port=0, limits=limits)) as node:
        everybody_asked = threading.Barrier(64)

        def visit(_: int) -> bytes:
            with RawPeer(node.port) as peer:
                answer = peer.associate()
                everybody_asked.wait(20)
                return answer

        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(visit, range(64)))
        assert [answer[0] for answer in answers].count(2) == 4
        assert {tuple(answer[6:]) for answer in answers if answer[0] == 3} == {(0, 2, 3, 2)}
        is_well(node)
    assert node.reasons() == {RefusalReason.LIMIT}
    assert len(node.refusals) == 60


def test_silent_peers_occupy_only_their_own_associations(tmp_path: Path) -> None:
    limits = replace(LIMITS, max_associations=3)
    with Node(tmp_path / "spool", ScpConfig(port=0, limits=limits)) as node:
        with RawPeer(node.port), RawPeer(node.port):
            assert store(node.port, EXAMPLE) == DimseStatus.SUCCESS
            with RawPeer(node.port), RawPeer(node.port) as late:
                assert late.associate()[0] == 3
        is_well(node)
    assert node.reasons() == {RefusalReason.LIMIT}


def test_one_peer_does_not_shut_out_the_others(tmp_path: Path) -> None:
    limits = replace(LIMITS, max_associations=8)
    with Node(tmp_path / "spool", ScpConfig(port=0, limits=limits)) as node:
        with contextlib.ExitStack() as stack:
            for _ in range(160):
                stack.enter_context(RawPeer(node.port))
            wait_until(lambda: RefusalReason.CROWDED in node.reasons(), "it has its share")
            with RawPeer(node.port, source="127.0.0.2") as other:
                assert other.associate()[0] == 2
        is_well(node)


def test_an_association_no_longer_counts_once_its_release_is_answered(tmp_path: Path) -> None:
    limits = replace(LIMITS, max_associations=1)
    with Node(tmp_path / "spool", ScpConfig(port=0, limits=limits)) as node:
        for _ in range(100):
            with RawPeer(node.port) as peer:
                assert peer.associate()[0] == 2
                peer.send(pdu(5, bytes(4)))
                assert peer.pdu() == pdu(6, bytes(4))
        is_well(node)
    assert node.refusals == []


def test_the_association_of_a_silent_peer_is_freed_by_its_timeout(tmp_path: Path) -> None:
    limits = replace(HASTY, max_associations=1)
    with Node(tmp_path / "spool", ScpConfig(port=0, limits=limits)) as node:
        with RawPeer(node.port):
            wait_until(lambda: RefusalReason.SLOW in node.reasons(), "it is dropped")
            echo(node.port)
        is_well(node)


def test_a_flood_of_connections_does_not_stop_the_scp(node: Node) -> None:
    with node:
        peers = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(300)]
        try:
            wait_until(lambda: RefusalReason.CROWDED in node.reasons(), "some are closed at once")
        finally:
            for peer in peers:
                peer.close()
        is_well(node)


# Memory.


def test_memory_stays_bounded_while_receiving(tmp_path: Path) -> None:
    with process(tmp_path / "spool", idle_timeout=20.0, max_instance_bytes=8 << 20) as (port, peak):
        echo(port)
        store(port, EXAMPLE)
        before = peak()
        for sent in (pdu(1, length=0xFFFFFFFF), pdu(4, length=0xFFFFFFFF)):
            for established in (False, True):
                with RawPeer(port) as peer:
                    if established:
                        peer.associate()
                    _pour(peer, sent, 48 << 20)
        with RawPeer(port) as peer:
            peer.associate((DX, [ExplicitVRLittleEndian]))
            _pour(peer, value(bytes(1 << 16), command=True, last=False), 48 << 20)
        with RawPeer(port) as peer:
            begin(peer, b"")
            _pour(peer, value(bytes(1 << 16), last=False), 48 << 20)
        # Requests sent ahead wait in the connection.
        with RawPeer(port) as peer:
            peer.associate()
            peer.socket.settimeout(2.0)
            _pour(peer, value(_echo(), command=True) * 100, 20 << 20)
        echo(port)
        assert store(port, EXAMPLE) == DimseStatus.SUCCESS
        assert peak() - before < 32


def _pour(peer: RawPeer, piece: bytes, size: int) -> bool:
    """Send bytes repeatedly up to a size; return false if the node closed before."""
    peer.socket.settimeout(2.0)
    piece *= 1 + (1 << 16) // len(piece)
    try:
        for _ in range(size // len(piece)):
            peer.socket.sendall(piece)
    except OSError:
        return False
    return True
