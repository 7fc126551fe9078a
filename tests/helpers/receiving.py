"""A receiver that keeps what it gets, and peers of all kinds.

Run as a module, it receives until its standard input ends.
"""

import json
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import pydicom
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.receive.config import ScpConfig, ScpLimits
from cxrsr_cli.receive.refusal import RefusalEvent, RefusalReason
from cxrsr_cli.receive.storage_scp import StorageScp
from cxrsr_cli.receive.store_sink import ReceivedInstance
from tests.conftest import EXAMPLE, skip_or_fail
from tests.helpers.waiting import HANG_SECONDS, wait_until

VERIFICATION = UID("1.2.840.10008.1.1")

LIMITS = ScpLimits(idle_timeout=10.0, min_free_bytes=0)
LISTENER = ScpConfig(port=0, limits=LIMITS)


@dataclass
class Node:
    """A receiver with all that it said and received."""

    folder: Path
    listener: ScpConfig = LISTENER
    tls: ssl.SSLContext | None = None
    sop_classes: tuple[UID, ...] | None = None
    answer: Callable[[ReceivedInstance], DimseStatus] = lambda _: DimseStatus.SUCCESS
    arrivals: list[ReceivedInstance] = field(default_factory=list)
    refusals: list[RefusalEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kept.mkdir(parents=True)
        self.receiver = StorageScp(
            self.listener,
            self.arriving,
            self._accept,
            self.refusals.append,
            tls=self.tls,
            sop_classes=self.sop_classes,
        )

    @property
    def arriving(self) -> Path:
        """Return where it receives."""
        return self.folder / "arriving"

    @property
    def kept(self) -> Path:
        """Return where `accept` moves what was received."""
        return self.folder / "kept"

    @property
    def port(self) -> int:
        """Return where it listens."""
        return self.receiver.port

    def _accept(self, arrival: ReceivedInstance) -> DimseStatus:
        status = self.answer(arrival)
        if status is DimseStatus.SUCCESS:
            path = arrival.path.rename(self.kept / arrival.path.name)
            self.arrivals.append(replace(arrival, path=path))
        return status

    def __enter__(self) -> Self:
        self.receiver.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.receiver.stop(0.0)

    def reasons(self) -> set[RefusalReason]:
        """Return what it refused for."""
        return {refusal.reason for refusal in self.refusals}


def association_threads() -> int:
    return sum(thread.name == "association" for thread in threading.enumerate())


def is_well(node: Node) -> None:
    """Check that nothing is left of what came before, and that the node works."""
    wait_until(lambda: association_threads() == 0, "threads are left")
    assert list(node.arriving.iterdir()) == []
    echo(node.port)
    before = len(node.arrivals)
    assert store(node.port, EXAMPLE) == DimseStatus.SUCCESS
    assert len(node.arrivals) == before + 1
    assert data_set(node.arrivals[-1].path) == data_set(EXAMPLE)
    assert list(node.arriving.iterdir()) == []


def echo(port: int, *options: str) -> None:
    """Verify with DCMTK."""
    done = dcmtk("echoscu", *options, "127.0.0.1", str(port))
    assert done.returncode == 0, done.stderr


def dcmtk(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    found = shutil.which(program)
    if found is None:
        skip_or_fail(f"needs {program} (Debian: dcmtk)")
    ours = () if "-aec" in arguments else ("-aec", "CXRSR")
    return subprocess.run(
        [str(found), *ours, "-to", "20", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def store(
    port: int, *paths: Path, calling: str = "MODALITY", tls: ssl.SSLContext | None = None
) -> int:
    """Send files as they are over one association of pynetdicom; return the last status."""
    ae = AE(ae_title=calling)
    for path in paths:
        meta = pydicom.dcmread(path, stop_before_pixels=True).file_meta
        context = (meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
        if not any(
            (c.abstract_syntax, c.transfer_syntax[0]) == context for c in ae.requested_contexts
        ):
            ae.add_requested_context(*context)
    association = ae.associate(
        "127.0.0.1", port, ae_title="CXRSR", tls_args=(tls, "node") if tls else None
    )
    assert association.is_established
    try:
        for path in paths:
            status = association.send_c_store(path).Status
    finally:
        association.release()
    return int(status)


def data_set(path: Path) -> bytes:
    """Return what follows the meta information of a file, byte for byte."""
    whole = path.read_bytes()
    length = struct.unpack_from("<I", whole, 140)[0]
    return whole[144 + length :]


def request(
    *contexts: tuple[str, Sequence[str]], calling: str = "MODALITY", called: str = "CXRSR"
) -> bytes:
    """Encode an A-ASSOCIATE-RQ."""
    largest, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    largest.maximum_length_received = 16384
    implementation.implementation_class_uid = UID("2.25.1")
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    primitive.user_information = [largest, implementation]
    definitions = []
    for index, (abstract, syntaxes) in enumerate(
        contexts or [(VERIFICATION, [ImplicitVRLittleEndian])]
    ):
        context = build_context(abstract, list(syntaxes))
        context.context_id = 2 * index + 1
        definitions.append(context)
    primitive.presentation_context_definition_list = definitions
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


@dataclass
class RawPeer:
    """A peer that sends what it likes."""

    port: int
    address: str = "127.0.0.1"
    source: str = ""
    """Address that it has; any by default."""

    def __enter__(self) -> Self:
        self.socket = socket.create_connection(
            (self.address, self.port),
            timeout=HANG_SECONDS,
            source_address=(self.source, 0) if self.source else None,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def associate(self, *contexts: tuple[str, Sequence[str]], **titles: str) -> bytes:
        """Request an association; return the answer."""
        self.send(request(*contexts, **titles))
        return self.pdu()

    def send(self, *pieces: bytes) -> None:
        """Send bytes of any kind."""
        for piece in pieces:
            self.socket.sendall(piece)

    def pdu(self) -> bytes:
        """Receive a PDU; empty if the connection was closed."""
        header = self._receive(6)
        if len(header) < 6:
            return b""
        return header + self._receive(struct.unpack(">I", header[2:])[0])

    def _receive(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            try:
                piece = self.socket.recv(size - len(received))
            except ConnectionResetError:
                piece = b""
            if not piece:
                break
            received += piece
        return received

    def status(self) -> int:
        """Receive a response; return its status."""
        pdu = self.pdu()
        assert pdu[:1] == b"\x04", pdu
        at = pdu.index(struct.pack("<HHI", 0, 0x0900, 2))
        return int(struct.unpack_from("<H", pdu, at + 8)[0])


def value(piece: bytes, *, command: bool = False, last: bool = True, context: int = 1) -> bytes:
    """Encode a P-DATA-TF of one presentation data value."""
    inner = struct.pack(">IBB", len(piece) + 2, context, command | last << 1) + piece
    return struct.pack(">BxI", 4, len(inner)) + inner


def command_set(**elements: bytes) -> bytes:
    """Encode the command set of a C-STORE-RQ; elements by keyword."""
    numbers = {
        "sop_class": 0x0002,
        "field": 0x0100,
        "message_id": 0x0110,
        "priority": 0x0700,
        "data_set": 0x0800,
        "sop_instance": 0x1000,
    }
    defaults = {
        "field": b"\x01\0",
        "message_id": b"\x07\0",
        "priority": b"\0\0",
        "data_set": b"\1\0",
    }
    stated = {numbers[name]: value for name, value in (defaults | elements).items()}
    return b"".join(
        struct.pack("<HHI", 0, number, len(text)) + text for number, text in sorted(stated.items())
    )


def padded(uid: str) -> bytes:
    return (uid + "\0" * (len(uid) % 2)).encode()


def halves() -> tuple[bytes, bytes]:
    """Cut the example's data set in two."""
    whole = data_set(EXAMPLE)
    return whole[: len(whole) // 2], whole[len(whole) // 2 :]


def begin(peer: RawPeer, piece: bytes, *, last: bool = False, **elements: bytes) -> None:
    """Associate, announce the example, or what `elements` say, and send a piece of a data set."""
    meta = pydicom.dcmread(EXAMPLE, stop_before_pixels=True).file_meta
    accepted = peer.associate((meta.MediaStorageSOPClassUID, [meta.TransferSyntaxUID]))
    assert accepted[0] == 2
    announce(peer, **elements)
    peer.send(value(piece, last=last))


def announce(peer: RawPeer, **elements: bytes) -> None:
    """Send a C-STORE-RQ of the example, or of what `elements` say."""
    meta = pydicom.dcmread(EXAMPLE, stop_before_pixels=True).file_meta
    ours = {
        "sop_class": padded(meta.MediaStorageSOPClassUID),
        "sop_instance": padded(meta.MediaStorageSOPInstanceUID),
    }
    peer.send(value(command_set(**(ours | elements)), command=True))


@contextmanager
def process(folder: Path, **limits: float) -> Iterator[tuple[int, Callable[[], int]]]:
    """Receive in a process of its own; give its port, and how much memory it ever took in MiB."""
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.receiving", str(folder), json.dumps(limits)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdin is not None
    assert started.stdout is not None

    def peak() -> int:
        status = Path(f"/proc/{started.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) >> 10

    try:
        yield int(started.stdout.readline()), peak
    finally:
        started.stdin.close()
        try:
            assert started.wait(timeout=HANG_SECONDS) == 0
        finally:
            started.kill()
            started.wait()
            started.stdout.close()


def _main(folder: str, limits: str) -> None:
    listener = ScpConfig(port=0, limits=replace(LIMITS, **json.loads(limits)))
    with Node(Path(folder), listener) as node:
        sys.stdout.write(f"{node.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    _main(*sys.argv[1:])
