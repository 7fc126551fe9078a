"""Real peers store real radiographs in every supported transfer syntax."""

import concurrent.futures
import shutil
import socket
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydantic import TypeAdapter, ValidationError
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
)
from pynetdicom import _config
from pynetdicom.pdu import A_ASSOCIATE_AC

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import NetworkError, OutputError
from cxrsr_cli.receive.config import AllowedPeer, ScpConfig, ScpLimits
from cxrsr_cli.receive.presentation_contexts import readable_syntaxes, storage_classes
from cxrsr_cli.receive.refusal import ABORTS, REJECTIONS, STATUSES, RefusalReason
from tests.conftest import EXAMPLE, skip_or_fail, small_chest
from tests.helpers.encodings import LOSSLESS, LOSSY, PICTURES
from tests.helpers.receiving import (
    LIMITS,
    Node,
    RawPeer,
    begin,
    data_set,
    dcmtk,
    echo,
    halves,
    is_well,
    request,
    store,
    value,
)
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.peer

CR = UID("1.2.840.10008.5.1.4.1.1.1")
ENCODERS = LOSSLESS | {syntax: lossy.encode for syntax, lossy in LOSSY.items()}


@pytest.fixture(autouse=True)
def as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pynetdicom's SCU send the bytes of a file unchanged."""
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)


@pytest.fixture
def node(tmp_path: Path) -> "Node":
    return Node(tmp_path / "spool")


@pytest.mark.parametrize("picture", ["8 bits", "a DX of 12 bits", "a CR of 15 bits"])
def test_every_transfer_syntax_arrives_byte_for_byte(
    node: Node, request: pytest.FixtureRequest, tmp_path: Path, picture: str
) -> None:
    dataset = PICTURES[picture].dataset(lambda: request.getfixturevalue("shared"))
    sent: dict[str, tuple[UID, Path]] = {}
    for syntax, encode in ENCODERS.items():
        if syntax in LOSSY and picture not in LOSSY[syntax].pictures:
            continue
        uid = UID(f"2.25.{len(sent) + 1}")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        with quiet_libraries():
            dataset.save_as(tmp_path / "plain.dcm", implicit_vr=False, little_endian=True)
            encode(tmp_path / "plain.dcm", tmp_path / f"{uid}.dcm")
        # Some encoders of lossy syntaxes make another UID, as they should.
        stored = pydicom.dcmread(tmp_path / f"{uid}.dcm", stop_before_pixels=True)
        sent[str(stored.SOPInstanceUID)] = (syntax, tmp_path / f"{uid}.dcm")
    assert len(sent) >= 13
    with node:
        for _, path in sent.values():
            assert store(node.port, path) == DimseStatus.SUCCESS
        assert [arrival.sop_instance_uid for arrival in node.arrivals] == list(sent)
        for arrival in node.arrivals:
            syntax, path = sent[arrival.sop_instance_uid]
            assert data_set(arrival.path) == data_set(path)
            received = read_source(arrival.path)
            assert pydicom.dcmread(arrival.path).file_meta.TransferSyntaxUID == syntax
            assert (decode(received)[0] == decode(read_source(path))[0]).all()
        is_well(node)
    assert node.refusals == []


def test_real_radiographs_sent_by_dcmtk_arrive_unchanged(
    node: Node, shared: Path, tmp_path: Path
) -> None:
    chests = sorted((shared / "dicom" / "chest").glob("*.dcm"))
    with node:
        done = dcmtk("dcmsend", "127.0.0.1", node.port, "-aet", "DCMSEND", *chests)
        assert done.returncode == 0, done.stderr
        is_well(node)
    sent = {str(pydicom.dcmread(path).SOPInstanceUID): path for path in chests}
    received = {arrival.sop_instance_uid: arrival for arrival in node.arrivals[:-1]}
    assert received.keys() == sent.keys()
    for uid, arrival in received.items():
        assert (arrival.calling_ae, arrival.called_ae) == ("DCMSEND", "CXRSR")
        assert arrival.address == "127.0.0.1"
        ours, theirs = decode(read_source(arrival.path)), decode(read_source(sent[uid]))
        assert all((one == other).all() for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "option", ["-xe", "-xb", "-xi", "-xs", "-xt", "-xu", "-xv", "-xw", "-xr", "-xd"]
)
def test_any_proposal_of_storescu_is_accepted(node: Node, option: str) -> None:
    with node:
        done = dcmtk("storescu", option, "127.0.0.1", node.port, EXAMPLE)
        assert done.returncode == 0, done.stderr
        assert (
            decode(read_source(node.arrivals[0].path))[0] == decode(read_source(EXAMPLE))[0]
        ).all()


def test_a_received_instance_has_the_announced_uids_and_titles(node: Node) -> None:
    with node:
        store(node.port, EXAMPLE)
        received = pydicom.dcmread(node.arrivals[0].path)
    meta = received.file_meta
    assert received.preamble == bytes(128)
    assert meta.MediaStorageSOPClassUID == received.SOPClassUID
    assert meta.MediaStorageSOPInstanceUID == received.SOPInstanceUID
    assert node.arrivals[0].path.stat().st_mode & 0o777 == 0o600


def test_many_small_instances_arrive_over_several_associations(node: Node, tmp_path: Path) -> None:
    paths = []
    for index in range(200):
        paths.append(tmp_path / f"{index}.dcm")
        small_chest(index).save_as(paths[-1])
    with node, concurrent.futures.ThreadPoolExecutor(8) as pool:
        shares = [paths[start::8] for start in range(8)]
        statuses = list(pool.map(lambda share: store(node.port, *share), shares))
        is_well(node)
    assert statuses == [DimseStatus.SUCCESS] * 8
    sent = sorted(data_set(path) for path in paths)
    assert sorted(data_set(arrival.path) for arrival in node.arrivals[:-1]) == sent


def accepted(node: Node, *contexts: tuple[str, list[str]]) -> dict[int, UID]:
    """Request an association; return the accepted transfer syntax of each context."""
    with RawPeer(node.port) as peer:
        answer = A_ASSOCIATE_AC()
        answer.decode(peer.associate(*contexts))
    results = answer.to_primitive().presentation_context_definition_results_list
    return {int(cx.context_id or 0): cx.transfer_syntax[0] for cx in results if cx.result == 0}


def test_the_first_proposed_transfer_syntax_that_can_be_decoded_is_accepted(node: Node) -> None:
    unreadable = "1.2.840.10008.1.2.4.100"  # MPEG2
    proposals: list[list[str]] = [
        [ImplicitVRLittleEndian, JPEG2000Lossless],
        [JPEG2000Lossless, ImplicitVRLittleEndian],
        [unreadable, JPEGLSLossless, ExplicitVRLittleEndian],
        [unreadable],
        [DeflatedExplicitVRLittleEndian],
    ]
    with node:
        assert accepted(node, *((CR, proposal) for proposal in proposals)) == {
            1: ImplicitVRLittleEndian,
            3: JPEG2000Lossless,
            5: JPEGLSLossless,
            9: DeflatedExplicitVRLittleEndian,
        }


def test_other_modalities_are_accepted_only_with_the_override(tmp_path: Path) -> None:
    few = storage_classes()
    many = storage_classes(frozenset({AcceptanceOverride.MODALITY}))
    assert len(few) == 4
    assert set(few) < set(many)
    ct = "1.2.840.10008.5.1.4.1.1.2"
    for sop_classes, taken in ((few, set()), (many, {1})):
        with Node(tmp_path / str(len(sop_classes)), sop_classes=sop_classes) as node:
            assert set(accepted(node, (ct, [ImplicitVRLittleEndian]))) == taken


def test_received_transfer_syntaxes_are_those_that_can_be_decoded() -> None:
    assert set(readable_syntaxes()) == ENCODERS.keys()
    assert HTJ2KLossless in readable_syntaxes()


def test_a_failure_status_of_accept_reaches_the_peer_and_the_file_is_removed(node: Node) -> None:
    node.answer = lambda _: DimseStatus.NOT_AUTHORISED
    with node:
        assert store(node.port, EXAMPLE) == DimseStatus.NOT_AUTHORISED
        node.answer = lambda _: DimseStatus.SUCCESS
        is_well(node)
    assert node.reasons() == {RefusalReason.NOT_TAKEN}


def test_an_error_in_accept_is_never_a_success(node: Node) -> None:
    def fail(_: object) -> DimseStatus:
        raise ValueError("with a patient's name")

    node.answer = fail
    with node:
        assert store(node.port, EXAMPLE, EXAMPLE) == DimseStatus.OUT_OF_RESOURCES
        node.answer = lambda _: DimseStatus.SUCCESS
        is_well(node)
    assert node.reasons() == {RefusalReason.INTERNAL}


def test_a_full_disk_is_out_of_resources(tmp_path: Path) -> None:
    limits = replace(LIMITS, min_free_bytes=1 << 60)
    with Node(tmp_path / "spool", ScpConfig(port=0, limits=limits)) as full:
        assert store(full.port, EXAMPLE) == DimseStatus.OUT_OF_RESOURCES
        assert list(full.arriving.iterdir()) == []
        echo(full.port)
    assert full.reasons() == {RefusalReason.FULL}


def test_only_partial_files_of_a_killed_process_are_removed(node: Node) -> None:
    node.arriving.mkdir()
    leftover = node.arriving / f"arriving-{'0a' * 16}.dcm"
    others = {node.arriving / "arriving-notes.dcm", node.arriving / "mine.dcm"}
    for path in (leftover, *others):
        path.touch()
    with node:
        assert set(node.arriving.iterdir()) == others


def test_a_port_in_use_is_named_in_the_error(node: Node, tmp_path: Path) -> None:
    with node:
        second = Node(tmp_path / "second", ScpConfig(port=node.port))
        with pytest.raises(NetworkError, match=f"127.0.0.1 port {node.port}"):
            second.receiver.start()
        second.receiver.stop(0.0)
        is_well(node)


def test_an_address_of_another_machine_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"192\.0\.2\.1 port 0"):
        Node(tmp_path / "spool", ScpConfig(address="192.0.2.1", port=0)).receiver.start()


def test_a_folder_that_cannot_be_created_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    node = Node(tmp_path / "spool")
    node.receiver._context = replace(node.receiver._context, folder=tmp_path / "file" / "arriving")
    with pytest.raises(OutputError, match="arriving"):
        node.receiver.start()


def test_stop_finishes_a_message_and_rejects_new_associations(node: Node) -> None:
    pieces = halves()
    with (
        node,
        RawPeer(node.port) as peer,
        RawPeer(node.port) as idle,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        begin(peer, pieces[0])
        assert idle.associate()[0] == 2
        wait_until(lambda: len(list(node.arriving.iterdir())) == 1, "the instance begins")
        stopped = pool.submit(node.receiver.stop, 20.0)
        assert idle.pdu()[0] == 7
        with RawPeer(node.port) as late:
            rejected = late.associate()
        assert rejected[0] == 3
        assert tuple(rejected[7:]) == (2, 3, 1)
        assert not stopped.done()
        peer.send(value(pieces[1], last=True))
        assert peer.status() == DimseStatus.SUCCESS
        assert peer.pdu()[0] == 7
        stopped.result(20.0)
    assert len(node.arrivals) == 1
    assert RefusalReason.STOPPING in node.reasons()


def test_stop_aborts_messages_that_do_not_end(node: Node) -> None:
    with node, RawPeer(node.port) as peer:
        begin(peer, halves()[0])
        wait_until(lambda: len(list(node.arriving.iterdir())) == 1, "the instance begins")
        node.receiver.stop(0.0)
        assert peer.pdu()[0] == 7
        assert list(node.arriving.iterdir()) == []
    assert node.arrivals == []


def test_a_new_scp_can_listen_on_the_same_port(node: Node) -> None:
    with node:
        port = node.port
        is_well(node)
    again = Node(node.folder / "again", replace(node.listener, port=port))
    with again:
        is_well(again)


def test_a_dual_stack_socket_serves_both_address_families(tmp_path: Path) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    peers = [AllowedPeer(address="127.0.0.0/8"), AllowedPeer(address="::1")]
    listener = ScpConfig(address="::", port=0, peers=peers, limits=LIMITS)
    with Node(tmp_path / "spool", listener) as node:
        for address in ("127.0.0.1", "::1"):
            with RawPeer(node.port, address) as peer:
                assert peer.associate()[0] == 2


# Titles and addresses.


@pytest.mark.parametrize(
    ("peers", "calling", "admitted"),
    [
        ([], "ANY", True),
        ([AllowedPeer(ae_title="CT1")], "CT1", True),
        ([AllowedPeer(ae_title="CT1")], "CT2", False),
        ([AllowedPeer(ae_title="CT1")], "ct1", False),
        ([AllowedPeer(address="127.0.0.1")], "ANY", True),
        ([AllowedPeer(address="127.0.0.0/8", ae_title="CT1")], "CT1", True),
        (
            [
                AllowedPeer(address="10.0.0.0/8", ae_title="CT1"),
                AllowedPeer(address="127.0.0.1", ae_title="CT2"),
            ],
            "CT1",
            False,
        ),
        ([AllowedPeer(address="0.0.0.0/0")], "ANY", True),
    ],
)
def test_only_allowed_peers_may_send(
    tmp_path: Path, peers: list[AllowedPeer], calling: str, admitted: bool
) -> None:
    listener = ScpConfig(port=0, peers=peers, limits=LIMITS)
    with Node(tmp_path / "spool", listener) as node:
        with RawPeer(node.port) as peer:
            answer = peer.associate(calling=calling)
        if admitted:
            assert answer[0] == 2
        else:
            assert answer[0] == 3
            assert tuple(answer[7:]) == (1, 1, 3)
            wait_until(lambda: node.reasons() == {RefusalReason.CALLING_AE}, "it is said")
            assert node.refusals[0].calling_ae == calling


def test_a_connection_from_an_unlisted_address_is_closed(tmp_path: Path) -> None:
    listener = ScpConfig(port=0, peers=[AllowedPeer(address="10.0.0.0/8")], limits=LIMITS)
    with Node(tmp_path / "spool", listener) as node:
        with RawPeer(node.port) as peer:
            assert peer.pdu() == b""
        wait_until(lambda: node.reasons() == {RefusalReason.ADDRESS}, "it is said")


def test_without_peers_only_this_machine_may_send() -> None:
    assert ScpConfig().address_allowed("127.0.0.1")
    assert ScpConfig().address_allowed("::1")
    assert ScpConfig().address_allowed("::ffff:127.0.0.1")
    assert not ScpConfig().address_allowed("192.168.0.1")
    assert not ScpConfig().is_allowed("192.168.0.1", "ANY")


def test_a_wrong_called_ae_title_is_rejected_unless_any_is_accepted(tmp_path: Path) -> None:
    for any_called in (False, True):
        listener = ScpConfig(port=0, accept_any_called_ae=any_called, limits=LIMITS)
        with Node(tmp_path / str(any_called), listener) as node, RawPeer(node.port) as peer:
            answer = peer.associate(called="OTHER")
            assert answer[0] == (2 if any_called else 3)
            if not any_called:
                assert tuple(answer[7:]) == (1, 1, 7)


def test_associations_in_a_minute_are_limited_for_each_peer(tmp_path: Path) -> None:
    limits = replace(LIMITS, max_associations_per_minute=2)
    listener = ScpConfig(
        port=0, peers=[AllowedPeer(ae_title="A"), AllowedPeer(address="127.0.0.1")], limits=limits
    )
    with Node(tmp_path / "spool", listener) as node:

        def answer(calling: str) -> bytes:
            with RawPeer(node.port) as peer:
                return peer.associate(calling=calling)

        assert [answer("A")[0] for _ in range(3)] == [2, 2, 3]
        # Titles that nobody listed are one peer.
        assert [answer(title)[0] for title in "BCD"] == [2, 2, 3]
        assert tuple(answer("A")[7:]) == (2, 3, 1)
        assert node.reasons() == {RefusalReason.RATE}


# Configuration.


def test_a_configuration_is_read_from_plain_values() -> None:
    plain = {
        "ae_title": "NODE",
        "port": 104,
        "peers": [{"ae_title": "CT1", "address": "10.0.0.0/8"}],
        "limits": {
            "idle_timeout": 5,
            "max_associations_per_minute": 60,
            "max_instance_bytes": "64MiB",
            "min_free_bytes": 0,
        },
    }
    listener = TypeAdapter(ScpConfig).validate_python(plain)
    assert listener.peers == [AllowedPeer(ae_title="CT1", address="10.0.0.0/8")]
    assert listener.limits == ScpLimits(
        idle_timeout=5.0,
        max_associations_per_minute=60,
        max_instance_bytes=64 << 20,
        min_free_bytes=0,
    )


@pytest.mark.parametrize(
    "plain",
    [
        {"ae_title": ""},
        {"ae_title": "SEVENTEEN LETTERS"},
        {"ae_title": "A\\B"},
        {"ae_title": " A"},
        {"port": 70000},
        {"peers": [{}]},
        {"peers": [{"address": "10.0.0.1/8"}]},
        {"peers": [{"address": "modality.example"}]},
        {"limits": {"max_associations": 0}},
        {"limits": {"idle_timeout": 0}},
        {"limits": {"idle_timeout": float("inf")}},
        {"limits": {"max_associations_per_minute": 0}},
        {"limits": {"min_free_bytes": -1}},
        {"limits": {"min_free_bytes": "-1"}},
        {"limits": {"max_instance_bytes": 0}},
        {"limits": {"max_instance_bytes": "1 bit"}},
        {"limits": {"instance_timeout": float("nan")}},
        {"limits": {"association_timeout": 1e300}},
        {"address": ""},
    ],
)
def test_an_illegal_configuration_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ScpConfig).validate_python(plain)


def test_every_refusal_reason_has_an_answer() -> None:
    closed = {RefusalReason.ADDRESS, RefusalReason.CROWDED, RefusalReason.TLS}
    answered = {*STATUSES, *REJECTIONS, *ABORTS, *closed, RefusalReason.NOT_TAKEN}
    assert answered == set(RefusalReason)
    assert all(status is not DimseStatus.SUCCESS for status in STATUSES.values())


def test_without_pynetdicom_the_error_names_the_extra() -> None:
    script = """
import sys
sys.modules["pynetdicom"] = None
from cxrsr_cli.errors import MissingExtraError
import cxrsr_cli.receive.store_sink, cxrsr_cli.receive.config, cxrsr_cli.connections.dimse_status
try:
    import cxrsr_cli.receive.storage_scp
except MissingExtraError as error:
    assert "pip install 'cxrsr[net]'" in str(error), error
else:
    raise AssertionError("imported")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# TLS.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create an authority, and certificates of a node and a peer."""
    if shutil.which("openssl") is None:
        skip_or_fail("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    _openssl(folder, "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-keyout", "ca.key",
             "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")  # fmt: skip
    for name in ("node", "peer"):
        _openssl(folder, "req", "-nodes", "-newkey", "rsa:2048", "-keyout", f"{name}.key",
                 "-out", f"{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                 "-CAcreateserial", "-out", f"{name}.pem", "-days", "2")  # fmt: skip
    return folder


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture
def secured(tmp_path: Path, certificates: Path) -> Node:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "node.pem", certificates / "node.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return Node(tmp_path / "spool", tls=context)


def _client(certificates: Path, *, known: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    context.check_hostname = False
    if known:
        context.load_cert_chain(certificates / "peer.pem", certificates / "peer.key")
    return context


def test_a_peer_with_a_trusted_certificate_can_send(secured: Node, certificates: Path) -> None:
    options = (
        "+tls",
        certificates / "peer.key",
        certificates / "peer.pem",
        "+cf",
        certificates / "ca.pem",
    )
    with secured as node:
        assert (
            store(node.port, EXAMPLE, tls=_client(certificates, known=True)) == DimseStatus.SUCCESS
        )
        done = dcmtk("storescu", *options, "127.0.0.1", node.port, EXAMPLE)
        assert done.returncode == 0, done.stderr
        assert data_set(node.arrivals[0].path) == data_set(EXAMPLE)
    assert len(node.arrivals) == 2
    assert node.refusals == []


def test_tls_refuses_untrusted_certificates_and_plain_connections(
    secured: Node, certificates: Path
) -> None:
    with secured as node:
        with RawPeer(node.port) as peer:
            assert peer.associate()[:1] not in (b"\x02", b"\x03")
        wait_until(lambda: node.reasons() == {RefusalReason.TLS}, "it is said")
        node.refusals.clear()
        assert _last_words(node.port, _client(certificates, known=False)) == b""
        wait_until(lambda: node.reasons() == {RefusalReason.TLS}, "it is said")
        assert (
            store(node.port, EXAMPLE, tls=_client(certificates, known=True)) == DimseStatus.SUCCESS
        )


def _last_words(port: int, context: ssl.SSLContext) -> bytes:
    """Return the answer to a request; with TLS 1.3 a failed handshake shows only here."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        try:
            with context.wrap_socket(plain) as wrapped:
                wrapped.sendall(request())
                return wrapped.recv(1)
        except (ssl.SSLError, ConnectionError):
            return b""


def test_a_silent_peer_does_not_delay_the_tls_handshakes_of_others(
    secured: Node, certificates: Path
) -> None:
    with secured as node, RawPeer(node.port), RawPeer(node.port):
        assert (
            store(node.port, EXAMPLE, tls=_client(certificates, known=True)) == DimseStatus.SUCCESS
        )
