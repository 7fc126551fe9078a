"""DICOM peers on loopback that are not ours, certificates for them, and files to send."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from threading import Lock
from typing import Any, cast

import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import split_dataset
from pynetdicom.events import Event

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.connections.tls import TlsConfig
from tests.conftest import skip_or_fail
from tests.helpers.orthanc import free_port
from tests.helpers.waiting import wait_until

_ENDING = 20


def program(name: str, package: str = "dcmtk") -> str:
    """Find a program of Debian's, or skip."""
    found = shutil.which(name)
    if found is None:
        skip_or_fail(f"needs {name} (Debian: {package})")
    return str(found)


@dataclass(frozen=True)
class StoreScpProcess:
    """DCMTK's storescp, that runs."""

    port: int
    folder: Path

    def data_sets(self) -> dict[str, bytes]:
        """Return what came, without meta information, by SOP Instance UID."""
        return dict(data_set(path) for path in self.folder.iterdir())


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[StoreScpProcess]:
    """Run storescp, which writes into a folder what comes, bit by bit, until the block ends."""
    folder.mkdir()
    server = StoreScpProcess(free_port(), folder)
    command = [program("storescp"), *options, "+B", "-od", str(folder), str(server.port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as run:
        try:
            wait_until(lambda: run.poll() is not None or _listens(run.pid, server.port), "storescp")
            assert run.poll() is None, "storescp does not start"
            yield server
        finally:
            run.kill()
            run.wait(timeout=_ENDING)


def _listens(process: int, port: int) -> bool:
    """Look at the process's sockets: a connection for a test would be one for it to serve."""
    return any(
        line[1].endswith(f":{port:04X}") and line[3] == "0A"
        for line in _sockets(Path(f"/proc/{process}"))
    )


def unread(port: int) -> int:
    """Return how many bytes wait in the machine for the one who listens on a port of loopback."""
    sockets = _sockets(Path("/proc/self"))
    return sum(int(line[4][:8], 16) for line in sockets if line[2].endswith(f":{port:04X}"))


def _sockets(process: Path) -> list[list[str]]:
    lines = (process / "net" / "tcp").read_text(encoding="ascii").splitlines()
    return [line.split() for line in lines[1:]]


@dataclass
class Listener:
    """A peer in this process, which counts."""

    port: int
    associations: int = 0
    data_sets: dict[str, bytes] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


@contextmanager
def listener(
    contexts: Sequence[tuple[str, Sequence[str]]],
    answer: Callable[[Event], int] = lambda _: 0,
    *,
    entity: AE | None = None,
    handlers: Sequence[Any] = (),
    ssl_context: SSLContext | None = None,
    **roles: bool,
) -> Iterator[Listener]:
    """Run a pynetdicom peer that answers C-STORE with what `answer` says."""
    entity = entity or AE("PEER")
    for sop_class, syntaxes in contexts:
        entity.add_supported_context(sop_class, list(syntaxes), **roles)

    def store(event: Event) -> int:
        status, request = answer(event), cast("C_STORE", event.request)
        assert request.DataSet is not None
        with peer.lock:
            peer.data_sets[str(request.AffectedSOPInstanceUID)] = request.DataSet.getvalue()
        return status

    def accept(_: Event) -> None:
        with peer.lock:
            peer.associations += 1

    peer = Listener(free_port())
    bound = [(evt.EVT_C_STORE, store), (evt.EVT_ACCEPTED, accept), *handlers]
    with quiet_libraries():
        entity.start_server(
            ("127.0.0.1", peer.port), block=False, evt_handlers=bound, ssl_context=ssl_context
        )
        try:
            yield peer
        finally:
            entity.shutdown()


def data_set(path: Path) -> tuple[str, bytes]:
    """Return a file's SOP Instance UID, and its bytes without meta information."""
    meta, start = split_dataset(path)
    return str(meta.MediaStorageSOPInstanceUID), path.read_bytes()[start:]


def differences(one: Dataset, other: Dataset) -> dict[str, tuple[Any, Any]]:
    """Return the elements that two objects do not have alike, by keyword or tag."""
    first, second = elements(one), elements(other)
    return {
        keyword_for_tag(tag) or tag: (first.get(tag), second.get(tag))
        for tag in first.keys() | second.keys()
        if first.get(tag) != second.get(tag)
    }


def elements(dataset: Dataset) -> dict[str, Any]:
    """Return the bytes of every value, those of sequences item by item, by tag."""
    found: dict[str, Any] = {}
    for tag in dataset.keys():
        raw = dataset.get_item(tag)
        if isinstance(raw, RawDataElement) and raw.VR != "SQ":
            implied = raw.VR is None and dictionary_has_tag(tag)
            if not (implied and dictionary_VR(tag) == "SQ"):
                # Two bytes of padding are the same value as none.
                found[f"{tag:08X}"] = (raw.value or b"").rstrip(b" \0")
                continue
        element = dataset[tag]
        if element.VR == "SQ":
            found[f"{tag:08X}"] = [elements(item) for item in element.value]
        else:
            # What pydicom needs for itself, it has parsed.
            text = "" if element.value in ("", None) else element.value
            found[f"{tag:08X}"] = text.encode() if isinstance(text, str) else text
    return found


def difficult(dataset: pydicom.FileDataset, uid: str) -> pydicom.FileDataset:
    """Give an explicit object what gets lost most easily: private elements, nested sequences."""
    block = dataset.private_block(0x0009, "CXRSR TESTS", create=True)
    block.add_new(0x01, "LO", "private")
    block.add_new(0x02, "US", [1, 2, 65535])
    item, inner = Dataset(), Dataset()
    inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = "1", "99X", "meaning"
    item.PurposeOfReferenceCodeSequence = [inner]
    item.ReferencedSOPClassUID = item.ReferencedSOPInstanceUID = UID("2.25.1")
    dataset.SourceImageSequence = [item, item]
    dataset.PatientComments = ""
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def spoil_text(path: Path, old: bytes, new: bytes) -> None:
    """Replace text by as many bytes that are illegal in its character set."""
    content = path.read_bytes()
    assert content.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(content.replace(old, new))


@dataclass(frozen=True)
class Certificates:
    """An authority, a server's and a client's certificate of it, and an authority of nothing."""

    authority: Path
    stranger: Path
    server: TlsConfig
    client: TlsConfig


def certificates(folder: Path) -> Certificates:
    """Make certificates for 127.0.0.1 and localhost with the openssl command."""
    openssl = program("openssl", "openssl")

    def call(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("authority", "stranger"):
        made = f"-keyout {name}.key -out {name}.pem -subj /CN={name} -days 2"
        call(*f"req -x509 -newkey rsa:2048 -nodes {made}".split())
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n", encoding="ascii")
    for name in ("server", "client"):
        made = f"-keyout {name}.key -out {name}.csr -subj /CN={name}"
        call(*f"req -newkey rsa:2048 -nodes {made}".split())
        signed = f"-in {name}.csr -out {name}.pem -extfile names -days 2"
        call(*f"x509 -req -CA authority.pem -CAkey authority.key -CAcreateserial {signed}".split())
    authority = folder / "authority.pem"
    server, client = (
        TlsConfig(certificate=folder / f"{name}.pem", key=folder / f"{name}.key", ca_file=authority)
        for name in ("server", "client")
    )
    return Certificates(authority, folder / "stranger.pem", server, client)
