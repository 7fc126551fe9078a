"""The node runs as a process with real senders and receivers, and survives kills."""

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import UID, CTImageStorage
from pynetdicom import AE

from cxrsr_cli.errors import ExitCode
from cxrsr_cli.serve.queue import Queue
from tests.conftest import EXAMPLE, ROOT, Command, small_chest
from tests.helpers.nodes import Node, configure, running
from tests.helpers.orthanc import free_port
from tests.helpers.peers import certificates, program
from tests.helpers.waiting import wait_until

pytestmark = [pytest.mark.peer, pytest.mark.process]

SUCCESS = 0x0000


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path, out: Path) -> Path:
    """Upscale all into a folder."""
    return configure(tmp_path, tiny_model, {"share": {"kind": "folder", "path": str(out)}})


@pytest.fixture
def node(config: Path) -> Iterator[Node]:
    with running(config) as node:
        yield node


def send(node: Node, *datasets: pydicom.FileDataset) -> list[int | None]:
    """Send objects over one association; return the statuses, None for no answer."""
    ae = AE("PACS")
    for sop_class in {dataset.SOPClassUID for dataset in datasets}:
        syntaxes = {
            dataset.file_meta.TransferSyntaxUID
            for dataset in datasets
            if dataset.SOPClassUID == sop_class
        }
        for syntax in syntaxes:
            ae.add_requested_context(sop_class, syntax)
    association = ae.associate("127.0.0.1", node.port, ae_title="CXRSR")
    if not association.is_established:
        return [None] * len(datasets)
    statuses: list[int | None] = []
    for dataset in datasets:
        try:
            statuses.append(association.send_c_store(dataset).get("Status"))
        except RuntimeError:  # the association is gone
            statuses.append(None)
    if association.is_established:
        association.release()
    return statuses


def store_by_dcmtk(node: Node) -> "subprocess.CompletedProcess[bytes]":
    """Send the example with DCMTK, without TLS."""
    return subprocess.run(
        [program("storescu"), "-aec", "CXRSR", "127.0.0.1", str(node.port), str(EXAMPLE)],
        check=False,
        capture_output=True,
        timeout=60,
    )


def names(folder: Path) -> list[str]:
    """List the files that are not hidden."""
    return sorted(path.name for path in folder.glob("[!.]*"))


def empty(node: Node) -> bool:
    """Tell whether only ledger and lock are left in the spool."""
    left = [path for path in node.spool.root.rglob("*") if path.is_file()]
    return {path.name for path in left} <= {node.spool.ledger.name, ".lock"}


# The way through.


def test_a_radiograph_is_received_upscaled_and_delivered(
    node: Node, out: Path, cxrsr: Command, dciodvfy: Callable[[Path], set[str]]
) -> None:
    assert send(node, pydicom.dcmread(EXAMPLE)) == [SUCCESS]
    (event,) = node.wait("sent")
    (derived,) = out.iterdir()
    assert derived.name == f"{event['instance']}.dcm"
    assert cxrsr("verify", EXAMPLE, derived).returncode == ExitCode.OK
    assert dciodvfy(derived) <= dciodvfy(EXAMPLE)
    wait_until(lambda: empty(node), "the spool is emptied")
    assert node.stop() == ExitCode.OK
    assert [event["event"] for event in node.events()] == [
        "listening", "received", "upscaled", "sent", "stopping",
    ]  # fmt: skip


def test_dcmtk_can_send_to_the_node(node: Node, out: Path) -> None:
    assert store_by_dcmtk(node).returncode == 0
    node.wait("sent")
    assert len(names(out)) == 1


def test_no_patient_data_is_logged(node: Node, out: Path) -> None:
    dataset = small_chest(PatientName="Doe^Jane", PatientID="S3cret", SeriesDescription="for Doe")
    broken = small_chest(1, PatientName="Doe^Jane", PatientID="S3cret", PixelData=b"\0" * 7)
    assert send(node, dataset, broken)[0] == SUCCESS
    node.wait("sent")
    node.wait("dead")
    node.stop()
    said = node.log.read_bytes()
    kept = b"".join(path.read_bytes() for path in node.spool.root.rglob("*.*") if path.is_file())
    ledger = node.spool.ledger.read_bytes()
    for secret in (b"Doe", b"Jane", b"S3cret", dataset.SOPInstanceUID.encode()):
        assert secret not in said
        assert secret not in ledger
        assert secret not in " ".join(names(out)).encode()
    assert b"S3cret" in kept  # the dead one's file, for people who look for it


def test_a_duplicate_is_upscaled_once(node: Node, out: Path) -> None:
    """Both while it is processed and after it is done."""
    datasets = [small_chest(0), small_chest(0), small_chest(1)]
    assert send(node, *datasets) == [SUCCESS] * 3
    node.wait("sent", 2)
    assert send(node, *datasets) == [SUCCESS] * 3
    assert len(node.wait("duplicate", 4)) == 4
    assert node.stop() == ExitCode.OK
    assert len(node.events("upscaled")) == 2
    assert len(names(out)) == 2


def test_a_different_object_with_a_known_uid_is_upscaled(node: Node, out: Path) -> None:
    corrected = small_chest(0, StudyDescription="corrected")
    assert send(node, small_chest(0), corrected) == [SUCCESS] * 2
    node.wait("sent", 2)
    descriptions = {str(pydicom.dcmread(path).get("StudyDescription")) for path in out.iterdir()}
    assert len(descriptions) == 2


def test_own_outputs_are_ignored(node: Node, out: Path) -> None:
    """An output that an archive sends back is acknowledged and dropped."""
    assert send(node, small_chest()) == [SUCCESS]
    node.wait("sent")
    (derived,) = out.iterdir()
    assert send(node, pydicom.dcmread(derived)) == [SUCCESS]
    (event,) = node.wait("ignored")
    assert "output of cxrsr" in event["reason"]
    assert len(names(out)) == 1
    wait_until(lambda: empty(node), "the spool is emptied")


def test_rules_decide_between_upscaling_and_ignoring(tmp_path: Path, tiny_model: Path) -> None:
    """The first match decides; without a match, the instance is dropped and reported."""
    places = {name: tmp_path / name for name in ("a", "b")}
    for place in places.values():
        place.mkdir()
    how = {"scale": 2, "model": str(tiny_model)}
    rules: list[dict[str, Any]] = [
        {"name": "scouts", "when": {"description": "scout"}, "ignore": True},
        {"name": "cr", "when": {"modality": ["CR"]}, "upscale": how, "send_to": ["a", "b"]},
        {"name": "pacs", "when": {"modality": ["DX"]}, "upscale": how, "send_to": ["b"]},
    ]
    folders = {name: {"kind": "folder", "path": str(path)} for name, path in places.items()}
    with running(configure(tmp_path, tiny_model, folders, rules)) as node:
        described = {"SeriesDescription": "Scout", "Modality": "CR"}
        objects = [
            small_chest(0, **described),
            small_chest(1, Modality="CR"),
            small_chest(2, Modality="DX"),
            small_chest(3, Modality="RG"),
        ]
        assert send(node, *objects) == [SUCCESS] * 4
        node.wait("sent", 3)
        reasons = sorted(event["reason"] for event in node.wait("ignored", 2))
        assert reasons == ["its rule ignores it", "no rule matches"]
        assert (len(names(places["a"])), len(names(places["b"]))) == (1, 2)


def test_other_images_are_received_if_a_rule_allows_them(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "out").mkdir()
    share = {"share": {"kind": "folder", "path": str(tmp_path / "out")}}
    other = small_chest(SOPClassUID=CTImageStorage, Modality="CT")
    other.file_meta.MediaStorageSOPClassUID = CTImageStorage
    for allow, answer in (([], None), (["modality"], SUCCESS)):
        how = {"scale": 2, "model": str(tiny_model), "allow": allow}
        rules = [{"name": "all", "upscale": how, "send_to": ["share"]}]
        with running(configure(tmp_path, tiny_model, share, rules)) as node:
            assert send(node, other) == [answer]
            if answer == SUCCESS:
                node.wait("sent")


# Trouble.


def test_an_instance_that_cannot_be_upscaled_becomes_a_dead_letter(
    node: Node, out: Path, cxrsr: Command, tmp_path: Path
) -> None:
    other = small_chest(0, BodyPartExamined="HAND")
    assert send(node, other, small_chest(1)) == [SUCCESS] * 2
    (event,) = node.wait("dead")
    node.wait("sent")
    assert len(names(out)) == 1
    letter, reason = sorted(node.spool.dead(event["instance"]).parent.iterdir())
    assert pydicom.dcmread(letter).SOPInstanceUID == other.SOPInstanceUID
    assert "body part" in json.loads(reason.read_text(encoding="utf-8"))["reason"]
    assert "body part" in cxrsr("queue", "list", node.spool.root).stdout
    # It can be sent again, and is judged again.
    assert send(node, other) == [SUCCESS]
    node.wait("dead", 2)
    assert cxrsr("queue", "retry", node.spool.root, "--all").returncode == ExitCode.OK
    node.wait("dead", 3)
    assert cxrsr("queue", "purge", node.spool.root, "--all").returncode == ExitCode.OK
    wait_until(lambda: empty(node), "the spool is emptied")


def test_a_frame_that_crashes_a_codec_makes_a_dead_letter_and_the_node_goes_on(
    node: Node, out: Path, shared: Path
) -> None:
    """The same process does the next instance."""
    killer = pydicom.dcmread(shared / "cases" / "jpeg_jfif_version2.dcm")
    killer.BodyPartExamined = "CHEST"
    killer.pop("AnatomicRegionSequence", None)
    assert send(node, killer, small_chest()) == [SUCCESS] * 2
    (event,) = node.wait("dead")
    assert "the codec crashed" in event["reason"]
    node.wait("sent")
    assert node.process.poll() is None
    assert len(names(out)) == 1


def test_an_unavailable_destination_gets_the_output_later(
    tmp_path: Path, tiny_model: Path, out: Path
) -> None:
    """Other destinations are not delayed."""
    port = free_port()
    destinations = {
        "away": {"kind": "store", "host": "127.0.0.1", "port": port, "called_ae": "ARCHIVE"},
        "share": {"kind": "folder", "path": str(out)},
    }
    with running(configure(tmp_path, tiny_model, destinations)) as node:
        assert send(node, small_chest(0), small_chest(1)) == [SUCCESS] * 2
        assert {event["destination"] for event in node.wait("sent", 2)} == {"share"}
        assert {event["destination"] for event in node.wait("retry", 2)} == {"away"}
        folder = tmp_path / "archive"
        folder.mkdir()
        with subprocess.Popen(
            [program("storescp"), "-aet", "ARCHIVE", "-od", str(folder), str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as archive:
            try:
                wait_until(lambda: len(names(folder)) == 2, "the archive has both")
                node.wait("sent", 4)
            finally:
                archive.kill()
        wait_until(lambda: empty(node), "the spool is emptied")


def test_a_destination_that_refuses_makes_a_dead_letter(
    node: Node, out: Path, cxrsr: Command
) -> None:
    """A different file of the same name is not replaced, and the output is kept."""
    assert send(node, small_chest()) == [SUCCESS]
    (event,) = node.wait("sent")
    key = event["instance"]
    node.stop()
    (out / f"{key}.dcm").write_bytes(b"another's")
    queue = Queue(node.spool.ledger)
    queue.delete_finished_before(inf)
    queue.close()
    with running(node.log.with_suffix(".yaml")) as again:
        assert send(again, small_chest()) == [SUCCESS]
        (dead,) = again.wait("dead")
        assert (dead["instance"], dead["destination"]) == (key, "share")
        wait_until(lambda: again.spool.dead(key).exists(), "the dead letter is there")
        assert (out / f"{key}.dcm").read_bytes() == b"another's"
        (out / f"{key}.dcm").unlink()
        assert cxrsr("queue", "retry", again.spool.root, key).returncode == ExitCode.OK
        again.wait("sent")
        assert again.events("upscaled") == again.events("upscaled")[:1]
        assert pydicom.dcmread(out / f"{key}.dcm").Rows == 48


def test_an_instance_that_crashes_the_process_is_given_up(config: Path) -> None:
    """The count of crashes is on the disk."""
    with running(config) as node:
        node.wait("listening")
        assert node.stop() == ExitCode.OK
    key = "f" * 32
    small_chest().save_as(node.spool.received(key))
    queue = Queue(node.spool.ledger)
    queue.enqueue(key)
    for _ in range(5):
        queue.mark_started([key])
    queue.close()
    with running(config) as node:
        (event,) = node.wait("dead")
        assert "ended 5 times" in event["reason"]


# Kills.


COUNT = 1000 if os.environ.get("CXRSR_NIGHTLY") else 150
KILLED_AFTER = ("received", "upscaled", "sent", "sent")


@contextmanager
def senders(folder: Path, port: int, count: int) -> Iterator[Callable[[], int]]:
    """Send from four processes; yield a function that counts the acknowledged instances."""
    for index in range(count):
        part = folder / str(index % 4)
        part.mkdir(parents=True, exist_ok=True)
        dataset = small_chest(index % 256)
        uid = UID(f"2.25.{7000 + index}")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.save_as(part / f"{index}.dcm")
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.sender", str(port), str(part)], cwd=ROOT
        )
        for part in folder.iterdir()
    ]
    try:
        yield lambda: len(list(folder.glob("*/*.sent")))
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_instances_survive_kills_of_the_node(tmp_path: Path, tiny_model: Path, out: Path) -> None:
    """No instance is lost or duplicated, whenever the process is killed."""
    port = free_port()
    share = {"share": {"kind": "folder", "path": str(out)}}
    config = configure(tmp_path, tiny_model, share, scp={"port": port})
    with senders(tmp_path / "sending", port, COUNT) as acknowledged:
        counts = []
        for moment in KILLED_AFTER:
            with running(config) as node:
                node.wait(moment, 40)
                node.process.send_signal(signal.SIGKILL)
                node.process.wait()
                counts.append(acknowledged())
        assert counts[0] < COUNT  # instances were still arriving
        with running(config) as node:
            wait_until(lambda: acknowledged() == COUNT, "all are received", 300)
            wait_until(lambda: len(names(out)) == COUNT, "all are sent", 300)
            wait_until(lambda: empty(node), "the spool is emptied")
            assert node.stop() == ExitCode.OK
    derived = [pydicom.dcmread(path, stop_before_pixels=True) for path in out.glob("[!.]*")]
    sources = {each.SourceImageSequence[0].ReferencedSOPInstanceUID for each in derived}
    assert sources == {f"2.25.{7000 + index}" for index in range(COUNT)}
    assert len({each.SOPInstanceUID for each in derived}) == COUNT
    # What was in hand at a kill is done again, and nothing else; what was done just before it
    # was perhaps not said.
    upscaled = node.events("upscaled", earlier=True)
    assert abs(len(upscaled) - COUNT) <= len(KILLED_AFTER) * 3


def test_a_second_node_in_one_spool_is_refused(node: Node, config: Path) -> None:
    node.wait("listening")
    with running(config) as second:
        assert second.process.wait(60) == ExitCode.CANNOT_WRITE
        assert "another cxrsr serve" in second.events("fatal")[0]["message"]
    assert node.process.poll() is None


def test_a_stop_finishes_the_work_in_progress(node: Node, out: Path) -> None:
    """The next process does the rest."""
    count = 40
    assert send(node, *(small_chest(index) for index in range(count))) == [SUCCESS] * count
    node.wait("upscaled")
    assert node.stop() == ExitCode.OK
    assert not list(out.glob(".*"))
    done = len(node.events("upscaled"))
    with running(node.log.with_suffix(".yaml")) as again:
        again.wait("sent", count - len(node.events("sent", earlier=True)))
        wait_until(lambda: len(names(out)) == count, "all are sent")
        assert len(again.events("upscaled")) == count - done


@pytest.mark.skipif(
    signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, reason="nohup has SIGHUP ignored"
)
def test_a_second_signal_interrupts(node: Node, out: Path) -> None:
    """Both signals are pending at once, so that the second always comes in time."""
    node.wait("listening")
    node.process.send_signal(signal.SIGSTOP)
    for number in (signal.SIGHUP, signal.SIGTERM):
        node.process.send_signal(number)
    assert node.stop(signal.SIGCONT) == ExitCode.INTERRUPTED


def test_a_second_stop_signal_ends_the_node_at_once(node: Node, out: Path) -> None:
    """Ctrl-C or a second signal ends the node; the next process does the rest."""
    assert send(node, *(small_chest(index) for index in range(20))) == [SUCCESS] * 20
    assert node.stop(signal.SIGINT) == ExitCode.INTERRUPTED
    with running(node.log.with_suffix(".yaml")) as again:
        wait_until(lambda: len(names(out)) == 20, "all are sent")
        assert again.stop() == ExitCode.OK


def test_a_removed_destination_is_reported(tmp_path: Path, tiny_model: Path, out: Path) -> None:
    share = {"share": {"kind": "folder", "path": str(out)}}
    gone = {"gone": {"kind": "folder", "path": str(tmp_path / "gone")}}
    with running(configure(tmp_path, tiny_model, share | gone)) as node:
        assert send(node, small_chest()) == [SUCCESS]
        node.wait("retry")
        node.stop()
    with running(configure(tmp_path, tiny_model, share)) as node:
        (event,) = node.wait("error")
        assert "gave up 1 outputs: the configuration has no destination 'gone'" in event["reason"]
        wait_until(lambda: list(node.spool.root.glob("dead/*.json")), "a dead letter is there")


# How it is.


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_health_and_metrics_are_served(tmp_path: Path, tiny_model: Path, out: Path) -> None:
    port = free_port()
    share = {"share": {"kind": "folder", "path": str(out)}}
    config = configure(tmp_path, tiny_model, share, health={"port": port})
    with running(config) as node:
        assert send(node, small_chest(0), small_chest(0), small_chest(1)) == [SUCCESS] * 3
        node.wait("sent", 2)
        assert fetch(port, "/health") == (200, "ok\n")
        assert fetch(port, "/")[0] == 404
        status, text = fetch(port, "/metrics")
        lines = text.splitlines()
        assert status == 200
        for line in (
            "cxrsr_received_total 2",
            "cxrsr_duplicate_total 1",
            "cxrsr_upscaled_total 2",
            'cxrsr_sent_total{destination="share"} 2',
            'cxrsr_instances{state="done"} 2',
            'cxrsr_instances{state="dead"} 0',
            "# TYPE cxrsr_sent_total counter",
        ):
            assert line in lines
        assert all(len(line.rsplit(" ", 1)) == 2 for line in lines)


def test_health_is_bad_while_nothing_can_be_received(
    tmp_path: Path, tiny_model: Path, out: Path
) -> None:
    """Also while no peer sends; it is good again by itself."""
    port = free_port()
    share = {"share": {"kind": "folder", "path": str(out)}}
    with running(configure(tmp_path, tiny_model, share, health={"port": port})) as node:
        node.wait("listening")
        for name in ("received", "arriving"):
            folder = node.spool.root / name
            folder.rename(tmp_path / "away")
            wait_until(lambda: fetch(port, "/health")[0] == 503, "it is bad")
            (tmp_path / "away").rename(folder)
            wait_until(lambda: fetch(port, "/health")[0] == 200, "it is good again")
        assert "cannot receive into the spool" in node.events("error")[0]["reason"]


FAULTS: list[tuple[dict[str, Any], ExitCode, str]] = [
    ({"listn": {}}, ExitCode.USAGE, "listn"),
    ({"device": "cuda:77"}, ExitCode.USAGE, "cuda"),
    (
        {"rules": [{"name": "a", "upscale": {"model": "none"}, "send_to": ["share"]}]},
        ExitCode.MODEL,
        "no model 'none'",
    ),
    ({"spool": "a\0b"}, ExitCode.USAGE, "spool: "),
    ({"tls": None}, ExitCode.USAGE, "tls: "),
    ({"scp": {"port": 1, "address": "203.0.113.1"}}, ExitCode.NETWORK, "203.0.113.1"),
]


@pytest.mark.parametrize(("changes", "code", "words"), FAULTS, ids=[f[2] for f in FAULTS])
def test_an_impossible_configuration_ends_the_node_at_once(
    tmp_path: Path,
    tiny_model: Path,
    changes: dict[str, Any],
    code: ExitCode,
    words: str,
    cxrsr: Command,
) -> None:
    config = configure(
        tmp_path, tiny_model, {"share": {"kind": "folder", "path": str(tmp_path)}}, **changes
    )
    done = cxrsr("serve", config)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_check_does_not_start_the_node(config: Path, cxrsr: Command) -> None:
    done = cxrsr("serve", "--check", config)
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    assert "1 rules, as CXRSR" in done.stdout
    assert not (config.parent / "spool").exists()


def test_check_reads_the_files_of_the_configuration(
    tmp_path: Path, tiny_model: Path, cxrsr: Command
) -> None:
    """A missing share is a warning, a missing certificate an error."""
    share = {"share": {"kind": "folder", "path": str(tmp_path / "out")}}
    done = cxrsr("serve", "--check", configure(tmp_path, tiny_model, share))
    assert done.returncode == ExitCode.OK
    assert done.stderr == (
        f"warning: destinations.share: cannot find {tmp_path / 'out'}: No such file or directory\n"
    )
    assert "is valid" in done.stdout
    missing = {"certificate": str(tmp_path / "none.pem")}
    done = cxrsr("serve", "--check", configure(tmp_path, tiny_model, share, tls=missing))
    assert done.returncode == ExitCode.USAGE
    assert f"tls: cannot read {missing['certificate']}" in done.stderr
    assert done.stdout == ""


def test_memory_stays_bounded_while_large_instances_arrive_together(
    tmp_path: Path, tiny_model: Path, shared: Path
) -> None:
    """As many senders as one address may have send 8 MB instances, which must go to the disk."""
    rules = [{"name": "none", "ignore": True}]
    config = configure(tmp_path, tiny_model, {}, rules)
    large = pydicom.dcmread(shared / "dicom" / "chest" / "966_fixed.dcm")
    large.decompress(generate_instance_uid=False)
    assert len(large.PixelData) > 8 << 20
    with running(config) as node:
        send(node, small_chest())
        node.wait("ignored")
        before = high_water(node.process.pid)
        senders = []
        for index in range(14):
            dataset = copy.deepcopy(large)
            uid = UID(f"2.25.{9000 + index}")
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
            senders.append(threading.Thread(target=send, args=(node, dataset)))
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        node.wait("ignored", 15)
        assert high_water(node.process.pid) - before < 64 << 20


def high_water(pid: int) -> int:
    """Return the peak memory of a process in bytes."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in text.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def test_tls_works_from_end_to_end(
    tmp_path: Path, tiny_model: Path, out: Path, cxrsr: Command
) -> None:
    """Only peers with a certificate of the authority can send."""
    made = certificates(tmp_path)
    files = {name: str(getattr(made.server, name)) for name in ("certificate", "key", "ca_file")}
    share = {"share": {"kind": "folder", "path": str(out)}}
    with running(configure(tmp_path, tiny_model, share, tls=files)) as node:
        address = f"dicoms://CXRSR@127.0.0.1:{node.port}"
        trusting = ["--ca-file", made.authority]
        showing = ["--cert", made.client.certificate, "--key", made.client.key]
        for arguments in ([], trusting, [*showing, "--ca-file", made.stranger]):
            assert cxrsr("send", *arguments, EXAMPLE, address).returncode == ExitCode.NETWORK
        assert store_by_dcmtk(node).returncode != 0
        assert {event["reason"] for event in node.wait("refused")} <= {
            "no TLS, or no certificate that is trusted",
            "the peer broke off",
        }
        assert node.events("received") == []
        assert cxrsr("send", *showing, *trusting, EXAMPLE, address).returncode == ExitCode.OK
        node.wait("sent")
        assert len(names(out)) == 1
