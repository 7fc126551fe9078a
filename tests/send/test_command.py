"""``cxrsr send`` as a user runs it: inputs, messages, report and exit code."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from cxrsr_cli.errors import ExitCode
from tests.conftest import Command, small_chest
from tests.helpers.orthanc import free_port
from tests.helpers.peers import (
    StoreScpProcess,
    certificates,
    data_set,
    listener,
    program,
    storescp,
    unread,
)
from tests.helpers.waiting import HANG_SECONDS, wait_until

pytestmark = pytest.mark.peer

DX = "1.2.840.10008.5.1.4.1.1.1.1"
CONTEXTS = [(DX, [ExplicitVRLittleEndian])]


@pytest.fixture
def chests(tmp_path: Path) -> Path:
    """Make a folder of three radiographs, one in a subfolder, and a hidden file."""
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    for index, name in enumerate(("a.dcm", "b.dcm", "deeper/c.dcm", ".hidden.dcm")):
        small_chest(index).save_as(folder / name)
    return folder


def address(port: int) -> str:
    return f"dicom://PEER@127.0.0.1:{port}"


def test_a_folder_is_sent_and_counted(cxrsr: Command, chests: Path, tmp_path: Path) -> None:
    with storescp(tmp_path / "got", "+xa") as scp:
        done = cxrsr("send", "-v", chests, chests / "a.dcm", address(scp.port))
        assert len(scp.data_sets()) == 3
    assert done.returncode == 0
    assert re.fullmatch(r"3 stored, \d+\.\d s\n", done.stdout)
    assert done.stderr.splitlines() == [
        f"stored: {chests / name}" for name in ("a.dcm", "b.dcm", "deeper/c.dcm")
    ]


def test_a_dicomdir_is_followed(cxrsr: Command, tmp_path: Path) -> None:
    (tmp_path / "CD" / "A").mkdir(parents=True)
    small_chest(1).save_as(tmp_path / "CD" / "A" / "IM1")
    small_chest(2).save_as(tmp_path / "CD" / "A" / "NOTONIT")
    options = ["+I", "-Pgp", "+id", "CD", "+D", "CD/DICOMDIR", "A/IM1"]
    subprocess.run(
        [program("dcmmkdir"), *options], cwd=tmp_path, check=True, capture_output=True, timeout=60
    )
    with storescp(tmp_path / "got", "+xa") as scp:
        done = cxrsr("send", tmp_path / "CD" / "DICOMDIR", address(scp.port))
        assert scp.data_sets() == dict([data_set(tmp_path / "CD" / "A" / "IM1")])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 stored, ")


def test_a_file_that_is_not_dicom_is_reported_and_does_not_stop_the_others(
    cxrsr: Command, chests: Path, tmp_path: Path
) -> None:
    (chests / "b.dcm").write_text("Doe^Jane is no DICOM")
    report = tmp_path / "report.json"
    statuses = iter([0x0000, 0xB000])
    with listener(CONTEXTS, lambda _: next(statuses)) as scp:
        done = cxrsr("send", chests, address(scp.port), "--report", report)
    assert done.returncode == ExitCode.SOME_FAILED
    assert done.stdout.startswith("1 stored, 1 stored with a warning, 1 refused, ")
    assert f"refused: {chests / 'b.dcm'}: not a DICOM file (no DICM prefix)" in done.stderr
    assert "Doe" not in done.stderr
    told = json.loads(report.read_text())
    assert told["schema"] == "cxrsr-send-report/1"
    assert told["destination"] == address(scp.port)
    assert told["exit_code"] == 4
    assert told["counts"] == {
        "stored": 1,
        "stored with a warning": 1,
        "refused": 1,
        "failed": 0,
        "not processed": 0,
    }
    facts = {Path(item["file"]).name: item for item in told["files"]}
    assert facts["a.dcm"]["status"] == 0
    assert facts["c.dcm"]["status"] == 0xB000
    assert (facts["b.dcm"]["status"], facts["b.dcm"]["decided_by_peer"]) == (None, False)


def test_json_lines_contain_the_same_as_the_report(
    cxrsr: Command, chests: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    with storescp(tmp_path / "got", "+xa") as scp:
        done = cxrsr("send", "--log-json", chests, address(scp.port), "--report", report)
    assert (done.returncode, done.stdout) == (0, "")
    *files, summary = [json.loads(line) for line in done.stderr.splitlines()]
    told = json.loads(report.read_text())
    kept = told["files"][0].keys()
    assert [{key: line[key] for key in kept} for line in files] == told["files"]
    assert summary["event"] == "summary"
    assert summary["counts"] == told["counts"]


def test_quiet_prints_failures_only(cxrsr: Command, chests: Path) -> None:
    statuses = iter([0xB000, 0x0000, 0xC000])
    with listener(CONTEXTS, lambda _: next(statuses)) as scp:
        done = cxrsr("send", "-q", chests, address(scp.port))
    assert (done.returncode, done.stdout) == (4, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("refused: ")


def test_the_exit_code_is_8_for_network_failures_and_5_for_bad_files(
    cxrsr: Command, chests: Path, tmp_path: Path
) -> None:
    nowhere = address(free_port())
    done = cxrsr("send", chests, nowhere)
    assert done.returncode == ExitCode.NETWORK
    assert "no connection to PEER at 127.0.0.1" in done.stderr
    text = tmp_path / "text"
    text.write_text("not DICOM")
    assert cxrsr("send", text, nowhere).returncode == ExitCode.ALL_FAILED
    stow = cxrsr("send", chests, f"http://127.0.0.1:{free_port()}/dicom-web")
    assert stow.returncode == ExitCode.NETWORK
    assert "connection refused" in stow.stderr


def test_no_input_has_its_exit_code(cxrsr: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("empty", "missing"):
        done = cxrsr("send", tmp_path / source, "dicom://PEER@localhost:104")
        assert done.returncode == ExitCode.NO_INPUT


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dicom://PEER:hunter2@localhost:104"], "DESTINATION is not dicom://"),
        (["dicoms://PEER@localhost:104", "--key", "x"], "a TLS key needs a certificate"),
        (["dicoms://PEER@localhost:104", "--ca-file", "/missing"], "cannot read /missing"),
        ([""], "DESTINATION is empty"),
    ],
)
def test_invalid_options_are_a_usage_error(
    cxrsr: Command, chests: Path, arguments: list[str], words: str
) -> None:
    done = cxrsr("send", chests, *arguments)
    assert done.returncode == ExitCode.USAGE
    assert words in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_report_replaces_only_an_earlier_report(
    cxrsr: Command, chests: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    done = cxrsr("send", chests, address(free_port()), "--report", other)
    assert done.returncode == ExitCode.CANNOT_WRITE
    assert other.read_text() == "{}"


def test_tls_and_ae_titles_are_options(cxrsr: Command, chests: Path, tmp_path: Path) -> None:
    made = certificates(tmp_path)
    server, client = made.server, made.client
    options = ("+tls", str(server.key), str(server.certificate), "+cf", str(made.authority))
    with storescp(tmp_path / "got", "+xa", *options) as scp:
        destination = f"dicoms://A%20PEER@localhost:{scp.port}"
        identity = ("--cert", client.certificate, "--key", client.key)
        trust = ("--ca-file", made.authority, "--calling-ae", "US")
        assert cxrsr("send", chests, destination, *identity, *trust).returncode == 0
        stranger = cxrsr("send", chests, destination, *identity, "--ca-file", made.stranger)
    assert stranger.returncode == ExitCode.NETWORK
    assert "certificate is not trusted" in stranger.stderr


def test_commitment_is_an_option(cxrsr: Command, chests: Path) -> None:
    with listener(CONTEXTS) as scp:
        done = cxrsr("send", chests, address(scp.port), "--commitment", "--commitment-timeout", "5")
    assert done.returncode == ExitCode.NETWORK
    assert "stored, but not committed" in done.stderr


def test_files_that_a_busy_peer_failed_are_sent_again(cxrsr: Command, chests: Path) -> None:
    statuses = iter([0xA700, 0x0000, 0xC000, 0x0000])
    with listener(CONTEXTS, lambda _: next(statuses)) as scp:
        done = cxrsr("send", chests, address(scp.port), "--retries", "3", "-v")
    assert done.returncode == ExitCode.SOME_FAILED, "refused is refused"
    assert done.stdout.startswith("2 stored, 1 refused, ")
    assert "info: retry 1 of 3: sending 1 files again" in done.stderr
    assert scp.associations == 2


def test_sigterm_ends_the_run_after_the_current_file(chests: Path, tmp_path: Path) -> None:
    """The report says which files were sent and which were not processed."""
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "cxrsr_cli", "send", str(chests), "--report", str(report)]

    def answer(_: object) -> int:
        run.send_signal(signal.SIGTERM)
        return 0

    with (
        listener(CONTEXTS, answer) as scp,
        subprocess.Popen([*command, address(scp.port)], stdout=subprocess.PIPE) as run,
    ):
        try:
            said, _ = run.communicate(timeout=60)
        finally:
            run.kill()
        came = list(scp.data_sets)
    assert run.returncode == ExitCode.INTERRUPTED
    assert said.startswith(b"Interrupted: 1 stored, 2 not processed, ")
    told = json.loads(report.read_text())
    assert [item["outcome"] for item in told["files"]] == ["stored"] + ["not processed"] * 2
    assert came == [data_set(chests / "a.dcm")[0]]


def test_files_that_wait_for_a_retry_are_reported_when_sigterm_ends_the_pause(
    chests: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "cxrsr_cli", "send", str(chests), "--report", str(report)]
    count = iter(range(9))

    def answer(_: object) -> int:
        if next(count) == 2:
            run.send_signal(signal.SIGTERM)
        return 0xA700

    with (
        listener(CONTEXTS, answer) as scp,
        subprocess.Popen([*command, "--retries", "9", address(scp.port)]) as run,
    ):
        try:
            run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == ExitCode.INTERRUPTED
    told = json.loads(report.read_text())["files"]
    assert [(item["outcome"], item["status"]) for item in told] == [("failed", 0xA700)] * 3


def test_an_error_during_a_retry_still_writes_the_report(
    cxrsr: Command, chests: Path, tmp_path: Path
) -> None:
    """A certificate file that is missing when files are sent again."""
    report, made = tmp_path / "report.json", certificates(tmp_path)
    statuses = iter([0x0000, 0xA700, 0x0000])

    def answer(_: object) -> int:
        made.authority.unlink(missing_ok=True)
        return next(statuses)

    server = replace(made.server, ca_file=None).server_context()
    with listener(CONTEXTS, answer, ssl_context=server) as scp:
        done = cxrsr(
            "send", chests, f"dicoms://PEER@127.0.0.1:{scp.port}", "--retries", "3",
            "--report", report, "--ca-file", made.authority,
        )  # fmt: skip
    assert done.returncode == ExitCode.USAGE
    assert done.stdout.startswith("2 stored, 1 failed, ")
    assert f"cxrsr: cannot read {made.authority}" in done.stderr
    told = json.loads(report.read_text())
    assert told["exit_code"] == ExitCode.USAGE
    assert sorted(item["outcome"] for item in told["files"]) == ["failed", "stored", "stored"]


@pytest.mark.parametrize(
    ("side", "option", "is_waiting"),
    [
        (4096, "--sleep-during", lambda scp: unread(scp.port) > 100_000),
        (64, "--sleep-after", lambda scp: any(scp.folder.iterdir())),
    ],
    ids=["while it sends", "while it waits for an answer"],
)
def test_ctrl_c_does_not_wait_for_a_peer_that_does_not_read(
    tmp_path: Path, side: int, option: str, is_waiting: Callable[[StoreScpProcess], bool]
) -> None:
    """The timeout is an hour, so a run that ends did not wait for it."""
    file = tmp_path / "chest.dcm"
    dataset = small_chest()
    dataset.Rows = dataset.Columns = side
    dataset.PixelData = bytes(2 * side * side)
    dataset.save_as(file)
    command = [sys.executable, "-m", "cxrsr_cli", "send", str(file), "--timeout", "3600"]
    with (
        storescp(tmp_path / "got", "+xa", option, "3600") as scp,
        subprocess.Popen([*command, address(scp.port)], stdout=subprocess.PIPE) as run,
    ):
        try:
            wait_until(lambda: is_waiting(scp), "the peer sleeps")
            run.send_signal(signal.SIGINT)
            said, _ = run.communicate(timeout=HANG_SECONDS)
        finally:
            run.kill()
    assert run.returncode == ExitCode.INTERRUPTED
    assert said.decode().startswith("Interrupted: 1 ")


@pytest.mark.parametrize(
    ("library", "destination", "extra"),
    [
        ("pynetdicom", "dicom://PEER@127.0.0.1:1", "cxrsr[net]"),
        ("requests", "http://127.0.0.1:1", "cxrsr[web]"),
    ],
)
def test_the_error_names_a_missing_extra(
    chests: Path, library: str, destination: str, extra: str
) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from cxrsr_cli.commands.app import main\n"
        f"sys.argv = ['cxrsr', 'send', {str(chests)!r}, {destination!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == ExitCode.USAGE
    assert f"pip install '{extra}'" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_message_contains_patient_data(cxrsr: Command, tmp_path: Path) -> None:
    """Not even a warning of a library about an illegal value."""
    odd = small_chest(0, PatientName="Secret^Patient", PatientID="SECRET-ID")
    odd.save_as(tmp_path / "odd.dcm")
    path = tmp_path / "odd.dcm"
    path.write_bytes(path.read_bytes().replace(b"Secret^Patient", b"Secr\xe9t^Pati\x1bnt"))
    for destination in (address(free_port()), f"http://127.0.0.1:{free_port()}"):
        done = cxrsr("send", "-v", path, destination, "--log-json")
        assert "Sec" not in done.stderr
        assert "SECRET" not in done.stderr
        assert "2.25.1000" not in done.stderr
