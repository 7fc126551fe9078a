"""C-STORE to DCMTK, Orthanc and pynetdicom: each file is stored unchanged or has a reason."""

import errno
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pydicom
import pytest
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.connections.destination import SendOutcome, SendResult
from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import UsageError
from cxrsr_cli.send.store import CStoreDestination
from cxrsr_cli.send.transcode import transcode
from tests.conftest import EXAMPLE, ROOT, small_chest
from tests.helpers.encodings import LOSSLESS, PICTURES
from tests.helpers.orthanc import free_port, running_orthanc
from tests.helpers.peers import (
    Certificates,
    certificates,
    data_set,
    differences,
    difficult,
    listener,
    spoil_text,
    storescp,
)

pytestmark = pytest.mark.peer

SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
)
"""Transfer syntaxes that upscale writes, and big endian."""
DX = "1.2.840.10008.5.1.4.1.1.1.1"
CLASSES = (SecondaryCaptureImageStorage, UID(DX), UID("1.2.840.10008.5.1.4.1.1.1"))


@pytest.fixture(scope="module")
def files(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[UID, Path]:
    """Make a real radiograph in each syntax, with illegal text, and use one in lossy JPEG."""
    folder = tmp_path_factory.mktemp("files")
    made = {}
    for number, syntax in enumerate(SYNTAXES):
        plain, made[syntax] = folder / f"{number}-plain.dcm", folder / f"{number}.dcm"
        picture = PICTURES["a DX of 12 bits"].dataset(lambda: shared)
        picture.InstitutionName = "illegal text"
        difficult(picture, f"2.25.77{number}").save_as(plain)
        spoil_text(plain, b"illegal text", b"ill\xe9gal t\xffxt")
        LOSSLESS[syntax](plain, made[syntax])
    chest = "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm"
    made[JPEGBaseline8Bit] = shared / "dicom" / "chest" / chest
    return made


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def chests(tmp_path: Path) -> list[Path]:
    """Write five small radiographs."""
    paths = [tmp_path / f"{index}.dcm" for index in range(5)]
    for index, path in enumerate(paths):
        small_chest(index).save_as(path)
    return paths


def peer(port: int, **options: object) -> CStoreDestination:
    return CStoreDestination(host="127.0.0.1", port=port, called_ae="PEER", **options)  # type: ignore[arg-type]


def outcomes(results: Iterator[SendResult] | list[SendResult]) -> list[SendOutcome]:
    return [sent.outcome for sent in results]


def test_a_file_is_stored_byte_for_byte_in_its_own_syntax(
    files: dict[UID, Path], tmp_path: Path
) -> None:
    with storescp(tmp_path / "got", "+xa") as scp:
        results = list(peer(scp.port).send(list(files.values())))
        got = scp.data_sets()
    assert [sent.path for sent in results] == list(files.values())
    assert {(sent.outcome, sent.message, sent.status) for sent in results} == {
        (SendOutcome.STORED, "", 0)
    }
    assert got == dict(map(data_set, files.values()))


@pytest.mark.parametrize("syntax", [*SYNTAXES, JPEGBaseline8Bit], ids=lambda uid: uid.name)
@pytest.mark.parametrize("taken", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_peer_that_accepts_one_syntax_gets_the_same_values_in_it(
    files: dict[UID, Path], tmp_path: Path, syntax: UID, taken: UID
) -> None:
    """Text keeps its bytes, though illegal; pixels keep their stored values."""
    with listener([(uid, [taken]) for uid in CLASSES]) as scp:
        (sent,) = peer(scp.port).send([files[syntax]])
    assert sent == SendResult(files[syntax], SendOutcome.STORED, "", 0)
    ((uid, content),) = scp.data_sets.items()
    got = tmp_path / "got.dcm"
    with quiet_libraries():
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = taken
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(DX), UID(uid)
        with got.open("wb") as opened:
            opened.write(b"\0" * 128 + b"DICM")
            pydicom.filewriter.write_file_meta_info(opened, meta)  # type: ignore[arg-type]
            opened.write(content)
        before, after = read_source(files[syntax]), read_source(got)
        assert set(differences(before.raw_dataset, after.raw_dataset)) <= {"PixelData"}
    assert after.transfer_syntax == taken
    assert (decode(before) == decode(after)).all()
    if syntax != JPEGBaseline8Bit:
        assert b"ill\xe9gal t\xffxt" in content


def test_dcmtk_gets_an_uncompressed_file_if_it_accepts_nothing_else(
    files: dict[UID, Path], tmp_path: Path
) -> None:
    with storescp(tmp_path / "got", "+xi") as scp:
        assert set(outcomes(peer(scp.port).send(list(files.values())))) == {SendOutcome.STORED}
        got = {path.name.partition(".")[2]: path for path in scp.folder.iterdir()}
    for path in files.values():
        uid, _ = data_set(path)
        assert (decode(read_source(got[uid])) == decode(read_source(path))).all()


def test_orthanc_keeps_every_element_in_every_syntax(
    files: dict[UID, Path], tmp_path: Path
) -> None:
    """Orthanc encodes sequences differently; the values are those that were sent."""
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        results = list(peer(orthanc.dicom_port).send(list(files.values())))
        got = orthanc.files()
    assert set(outcomes(results)) == {SendOutcome.STORED}
    kept = tmp_path / "kept.dcm"
    for syntax, path in files.items():
        kept.write_bytes(got[data_set(path)[0]])
        with quiet_libraries():
            before, after = read_source(path), read_source(kept)
            assert pydicom.dcmread(kept).file_meta.TransferSyntaxUID == syntax
            assert differences(before.raw_dataset, after.raw_dataset) == {}


STATUSES = [
    (0x0000, SendOutcome.STORED, ""),
    (0xB000, SendOutcome.WARNED, "elements were coerced (0xB000)"),
    (0xB006, SendOutcome.WARNED, "elements were discarded (0xB006)"),
    (0x0111, SendOutcome.WARNED, "duplicate SOP Instance UID (0x0111)"),
    (0xB007, SendOutcome.WARNED, "does not match its SOP Class (0xB007)"),
    (0xA700, SendOutcome.FAILED, "out of resources (0xA700)"),
    (0xA7FF, SendOutcome.FAILED, "out of resources (0xA7FF)"),
    (0x0110, SendOutcome.FAILED, "processing failure (0x0110)"),
    (0xA900, SendOutcome.REFUSED, "does not match its SOP Class (0xA900)"),
    (0xC000, SendOutcome.REFUSED, "cannot understand the object (0xC000)"),
    (0xCFFF, SendOutcome.REFUSED, "cannot understand the object (0xCFFF)"),
    (0x0122, SendOutcome.REFUSED, "SOP Class not supported (0x0122)"),
    (0x0124, SendOutcome.REFUSED, "not authorised (0x0124)"),
    (0x0117, SendOutcome.REFUSED, "invalid SOP Instance (0x0117)"),
]


def test_every_status_has_its_outcome(tmp_path: Path) -> None:
    path = tmp_path / "chest.dcm"
    small_chest().save_as(path)
    answers = iter([status for status, _, _ in STATUSES])
    with listener([(DX, [ExplicitVRLittleEndian])], lambda _: next(answers)) as scp:
        results = list(peer(scp.port).send([path] * len(STATUSES)))
    for sent, (status, outcome, words) in zip(results, STATUSES, strict=True):
        assert (sent.status, sent.outcome) == (status, outcome)
        assert sent.message.endswith(words)
    assert scp.associations == 1


def test_a_file_that_is_not_an_instance_does_not_stop_the_others(
    tmp_path: Path, shared: Path, chests: list[Path]
) -> None:
    text, bare, other = tmp_path / "text", tmp_path / "bare", tmp_path / "other"
    text.write_text("not DICOM")
    bare.write_bytes(data_set(chests[0])[1])
    contradictory = small_chest()
    contradictory.file_meta.MediaStorageSOPInstanceUID = UID("2.25.9")
    contradictory.save_as(other, enforce_file_format=False)
    missing = tmp_path / "missing"
    with storescp(tmp_path / "got", "+xa") as scp:
        results = list(peer(scp.port).send([text, chests[1], other, missing, bare]))
        got = scp.data_sets()
    assert [(sent.outcome, sent.decided_by_peer) for sent in results] == [
        (SendOutcome.REFUSED, False),
        (SendOutcome.STORED, True),
        (SendOutcome.REFUSED, False),
        (SendOutcome.FAILED, False),
        (SendOutcome.STORED, True),
    ]
    assert "meta information is of another instance" in results[2].message
    assert got == {**dict([data_set(chests[0])]), **dict([data_set(chests[1])])}


def test_a_sop_class_that_the_peer_does_not_accept_is_refused(
    chests: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.dcm"
    small_chest(9, SOPClassUID=CLASSES[2]).save_as(other, enforce_file_format=False)
    dataset = pydicom.dcmread(other)
    dataset.file_meta.MediaStorageSOPClassUID = CLASSES[2]
    dataset.save_as(other)
    with listener([(DX, [ExplicitVRLittleEndian])]) as scp:
        (none,) = peer(scp.port).send([other])
        some = list(peer(scp.port).send([chests[0], other, chests[1]]))
    assert outcomes(some) == [SendOutcome.STORED, SendOutcome.REFUSED, SendOutcome.STORED]
    assert none == some[1]
    assert none.message.endswith("does not accept its SOP Class")


def test_colour_pixels_are_not_decompressed(shared: Path, tmp_path: Path) -> None:
    """YBR converted to RGB and back is another image, so the peer must accept it as it is."""
    dataset = small_chest()
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration = 0
    dataset.PixelData = dataset.PixelData + dataset.PixelData * 2
    path = tmp_path / "colour.dcm"
    dataset.save_as(path)
    LOSSLESS[RLELossless](path, path)
    with listener([(DX, [ExplicitVRLittleEndian])]) as scp:
        (sent,) = peer(scp.port).send([path])
    assert sent.outcome is SendOutcome.REFUSED
    assert "colour pixels in RLE Lossless" in sent.message


def test_more_presentation_contexts_than_one_association_holds_use_several(tmp_path: Path) -> None:
    """The limit is 128, and every SOP Class needs two: its own syntax and the fallback."""
    paths = []
    for number in range(130):
        path = tmp_path / f"{number}.dcm"
        dataset = small_chest(number, SOPClassUID=UID(f"1.2.3.{number}"))
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.save_as(path)
        paths.append(path)
    with storescp(tmp_path / "got", "-pm", "+xa") as scp:
        assert set(outcomes(peer(scp.port).send(paths))) == {SendOutcome.STORED}
        assert scp.data_sets() == dict(map(data_set, paths))


class Rejecting(AE):
    """A peer that accepts one called and one calling AE title."""

    def __init__(self) -> None:
        super().__init__("PEER")
        self.require_called_aet = True
        self.require_calling_aet = ["FRIEND"]


@pytest.mark.parametrize(
    ("called", "calling", "words"),
    [
        ("OTHER", "FRIEND", "does not know the called AE title"),
        ("PEER", "STRANGER", "does not know the calling AE title"),
    ],
)
def test_an_unknown_ae_title_refuses_all_files(
    chests: list[Path], called: str, calling: str, words: str
) -> None:
    with listener([(DX, [ExplicitVRLittleEndian])], entity=Rejecting()) as scp:
        results = list(
            CStoreDestination(
                host="localhost", port=scp.port, called_ae=called, calling_ae=calling
            ).send(chests)
        )
    assert outcomes(results) == [SendOutcome.REFUSED] * 5
    assert all(sent.message.endswith(words) for sent in results)


def test_a_transient_rejection_is_a_failure_that_may_succeed_later(chests: list[Path]) -> None:
    entity = AE("PEER")
    entity.maximum_associations = 1
    within: list[SendResult] = []

    def answer(event: Event) -> int:
        within.extend(peer(scp.port).send(chests[:1]))
        return 0

    with listener([(DX, [ExplicitVRLittleEndian])], answer, entity=entity) as scp:
        outside = list(peer(scp.port).send(chests[1:2]))
    assert outcomes(outside) == [SendOutcome.STORED]
    assert outcomes(within) == [SendOutcome.FAILED]
    assert "for now: it has reached its limit of associations" in within[0].message


def test_a_peer_that_cannot_be_reached_fails_all_files(chests: list[Path]) -> None:
    results = list(peer(free_port()).send(chests))
    assert outcomes(results) == [SendOutcome.FAILED] * 5
    assert results[0].message.endswith("Connection refused")
    (nowhere,) = CStoreDestination(host="nowhere.invalid", port=104, called_ae="A").send(chests[:1])
    assert nowhere.outcome is SendOutcome.FAILED
    assert nowhere.message.startswith("cannot find nowhere.invalid")


def aborting(bad: set[str], times: int) -> Callable[[Event], int]:
    """Abort the association for some instances, each so often."""
    left = dict.fromkeys(bad, times)

    def answer(event: Event) -> int:
        uid = str(cast("C_STORE", event.request).AffectedSOPInstanceUID)
        if left.get(uid):
            left[uid] -= 1
            event.assoc.abort()
        return 0

    return answer


def test_after_an_abort_the_remaining_files_use_a_new_association(chests: list[Path]) -> None:
    bad = {data_set(chests[2])[0]}
    with listener([(DX, [ExplicitVRLittleEndian])], aborting(bad, 1)) as scp:
        assert outcomes(peer(scp.port).send(chests)) == [SendOutcome.STORED] * 5
    assert scp.associations == 2


def test_a_file_that_makes_the_peer_abort_does_not_stop_the_others(chests: list[Path]) -> None:
    bad = {data_set(chests[2])[0]}
    with listener([(DX, [ExplicitVRLittleEndian])], aborting(bad, 9)) as scp:
        results = list(peer(scp.port).send(chests))
    assert [sent.path for sent in results] == chests
    assert (
        outcomes(results)
        == [SendOutcome.STORED] * 2 + [SendOutcome.FAILED] + [SendOutcome.STORED] * 2
    )
    assert "was lost" in results[2].message
    assert scp.associations == 3


def test_files_that_are_removed_do_not_count_as_lost_associations(chests: list[Path]) -> None:
    def answer(_: Event) -> int:
        for path in chests[1:4]:
            path.unlink(missing_ok=True)
        return 0

    with listener([(DX, [ExplicitVRLittleEndian])], answer) as scp:
        results = list(peer(scp.port).send(chests))
    assert [(sent.outcome, sent.decided_by_peer) for sent in results] == [
        (SendOutcome.STORED, True),
        *[(SendOutcome.FAILED, False)] * 3,
        (SendOutcome.STORED, True),
    ]
    assert scp.associations == 1


def sending(monkeypatch: pytest.MonkeyPatch, first: Callable[[Association, Path], None]) -> None:
    """Call a function before each C-STORE."""
    send_c_store = Association.send_c_store

    def late(association: Association, path: Path, *arguments: Any) -> pydicom.Dataset:  # noqa: ANN401
        first(association, path)
        return send_c_store(association, path, *arguments)

    monkeypatch.setattr(Association, "send_c_store", late)


def test_a_file_that_fails_while_it_is_sent_costs_an_association_and_no_other_file(
    chests: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Association, path: Path) -> None:
        if path in chests[:3]:
            raise OSError(errno.EIO, "Input/output error")

    sending(monkeypatch, fail)
    bad = {data_set(chests[3])[0]}
    with listener([(DX, [ExplicitVRLittleEndian])], aborting(bad, 1)) as scp:
        results = list(peer(scp.port).send(chests))
    assert [(sent.outcome, sent.decided_by_peer) for sent in results] == [
        *[(SendOutcome.FAILED, False)] * 3,
        *[(SendOutcome.STORED, True)] * 2,
    ]
    assert results[0].message == "cannot read the file (Input/output error)"
    assert scp.associations == 5


@pytest.mark.parametrize(("times", "outcome"), [(1, SendOutcome.STORED), (9, SendOutcome.FAILED)])
def test_an_association_that_ends_before_a_file_is_sent_is_replaced(
    chests: list[Path], monkeypatch: pytest.MonkeyPatch, times: int, outcome: SendOutcome
) -> None:
    left = [*range(times)]

    def abort(association: Association, _: Path) -> None:
        if left:
            left.pop()
            association.abort()

    sending(monkeypatch, abort)
    with listener([(DX, [ExplicitVRLittleEndian])]) as scp:
        results = list(peer(scp.port).send(chests))
    assert [sent.path for sent in results] == chests
    assert outcomes(results) == [outcome] * 5


def test_a_file_that_changes_while_it_is_transcoded_is_not_sent(
    chests: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(path: Path, syntax: UID, target: Path) -> None:
        transcode(path, syntax, target)
        with path.open("ab") as writing:
            writing.write(bytes(8))

    monkeypatch.setattr("cxrsr_cli.send.store.transcode", late)
    with listener([(DX, [ImplicitVRLittleEndian])]) as scp:
        (sent,) = peer(scp.port).send(chests[:1])
        assert not scp.data_sets
    assert (sent.outcome, sent.decided_by_peer) == (SendOutcome.FAILED, False)
    assert "the file changed while it was read" in sent.message


@pytest.mark.parametrize("option", ["--abort-during", "--abort-after"])
def test_a_peer_that_always_aborts_fails_all_files_after_three_associations(
    shared: Path, tmp_path: Path, option: str
) -> None:
    paths = [EXAMPLE] * 6
    with storescp(tmp_path / "got", "+xa", option) as scp:
        results = list(peer(scp.port).send(paths))
    assert outcomes(results) == [SendOutcome.FAILED] * 6
    assert results[-1].message.endswith("were lost")


def test_a_peer_that_stops_reading_fails_after_the_timeout(tmp_path: Path) -> None:
    """Without a timeout for sending, this test would not end."""
    large = tmp_path / "large.dcm"
    dataset = small_chest()
    dataset.Rows = dataset.Columns = 4096
    dataset.PixelData = bytes(2 * 4096 * 4096)
    dataset.save_as(large)
    with storescp(tmp_path / "got", "+xa", "--sleep-during", "60") as scp:
        results = list(peer(scp.port, timeout=0.5).send([large]))
    assert outcomes(results) == [SendOutcome.FAILED]


def test_memory_does_not_depend_on_the_size_of_the_file(tmp_path: Path) -> None:
    """A file is read while it is sent: 150 MB take as much memory as some kilobytes."""
    small, large = tmp_path / "small.dcm", tmp_path / "large.dcm"
    dataset = small_chest()
    dataset.save_as(small)
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = 3, 5000, 5000
    dataset.PixelData = bytes(2 * 3 * 5000 * 5000)
    dataset.save_as(large)
    del dataset
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from cxrsr_cli.send.store import CStoreDestination\n"
        "scp = CStoreDestination(host='127.0.0.1', port=int(sys.argv[1]), called_ae='PEER')\n"
        "(sent,) = scp.send([Path(sys.argv[2])])\n"
        "assert sent.is_stored, sent\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    with storescp(tmp_path / "got", "+xa", "--ignore") as scp:
        peaks = [
            int(
                subprocess.run(
                    [sys.executable, "-c", code, str(scp.port), str(path)],
                    check=True,
                    capture_output=True,
                    text=True,
                    timeout=120,
                    cwd=ROOT,
                ).stdout
            )
            for path in (small, large)
        ]
    assert peaks[1] - peaks[0] < 40 << 10, "KiB"


def test_tls_verifies_both_sides(chests: list[Path], tmp_path: Path, secured: Certificates) -> None:
    server = secured.server
    options = ("+tls", str(server.key), str(server.certificate), "+cf", str(server.ca_file))
    with storescp(tmp_path / "got", "+xa", *options) as scp:
        trusted = list(peer(scp.port, tls=secured.client).send(chests))
        distrusted = list(peer(scp.port, tls=TlsConfig(ca_file=secured.stranger)).send(chests))
        nameless = list(peer(scp.port, tls=TlsConfig(ca_file=secured.authority)).send(chests))
        plain = list(peer(scp.port, timeout=2.0).send(chests))
    assert outcomes(trusted) == [SendOutcome.STORED] * 5
    for results in (distrusted, nameless, plain):
        assert outcomes(results) == [SendOutcome.FAILED] * 5
    assert "certificate is not trusted" in distrusted[0].message


def test_a_certificate_for_another_host_is_not_trusted(
    chests: list[Path], tmp_path: Path, secured: Certificates
) -> None:
    server = secured.server
    options = ("+tls", str(server.key), str(server.certificate), "-ic")
    with storescp(tmp_path / "got", "+xa", *options) as scp:
        other = CStoreDestination(
            host="127.0.0.2", port=scp.port, called_ae="PEER", tls=secured.client
        ).send(chests[:1])
        assert "certificate is not trusted" in next(iter(other)).message


def test_the_error_names_a_file_that_is_not_a_certificate(
    tmp_path: Path, secured: Certificates
) -> None:
    text, missing = tmp_path / "text.pem", tmp_path / "missing.pem"
    text.write_text("none")
    client = secured.client
    for files, words in [
        (TlsConfig(ca_file=text), f"{text} contains no certificate"),
        (TlsConfig(ca_file=missing), f"cannot read {missing}: No such file"),
        (TlsConfig(certificate=text), f"{text} contains no certificate"),
        (
            TlsConfig(certificate=client.certificate),
            f"{client.certificate} contains no private key",
        ),
        (
            TlsConfig(certificate=client.certificate, key=secured.server.key),
            "does not belong to the certificate",
        ),
    ]:
        with pytest.raises(UsageError, match=words):
            list(peer(1, tls=files).send([EXAMPLE]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"called_ae": ""},
        {"called_ae": "X" * 17},
        {"called_ae": "back\\slash"},
        {"called_ae": "   "},
        {"called_ae": " PEER"},
        {"calling_ae": "ü"},
        {"port": 0},
        {"port": 70000},
        {"host": ""},
        {"timeout": 0},
        {"commitment_port": -1},
    ],
    ids=str,
)
def test_an_invalid_title_port_host_or_timeout_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"_ae|port|host|timeout"):
        CStoreDestination(**{"host": "localhost", "port": 104, "called_ae": "PEER"} | wrong)  # type: ignore[arg-type]
