"""Orthanc upscales what it is sent: by its Python plugin, and by a rule in Lua."""

import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.conftest import EXAMPLE, skip_or_fail, small_chest
from tests.helpers.orthanc import Orthanc, running_orthanc
from tests.helpers.scripts import EXAMPLES, install_command
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.peer

FOLDER = EXAMPLES / "orthanc"
PATIENT, SECRET = "Nobody^Knows", "PID-4711"
WAYS = {
    "plugin": partial(running_orthanc, python=FOLDER / "cxrsr_plugin.py"),
    "rule": partial(running_orthanc, lua=[FOLDER / "cxrsr_rule.lua"]),
}
Way = Callable[[Path], AbstractContextManager[Orthanc]]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture
def spool(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set Orthanc's environment; return where series wait."""
    spool = tmp_path / "the spool's dir"
    spool.mkdir(mode=0o700)
    monkeypatch.setenv("CXRSR_COMMAND", str(install_command(tmp_path / "bin dir")))
    monkeypatch.setenv("CXRSR_OPTIONS", f"--scale 2 --model {shlex.quote(str(tiny_model))}")
    monkeypatch.setenv("CXRSR_SPOOL", str(spool))
    monkeypatch.setenv("CXRSR_SERIES", str(FOLDER / "cxrsr_series.py"))
    return spool


def chest(path: Path, index: int, series: int, **changes: object) -> Path:
    """Write an instance of a series of one study."""
    names = {"PatientName": PATIENT, "PatientID": SECRET, "SeriesInstanceUID": f"1.2.3.{series}"}
    small_chest(index, **names, **changes).save_as(path)
    return path


def send(server: Orthanc, *paths: Path) -> None:
    """C-STORE, as a modality does."""
    if shutil.which("storescu") is None:
        skip_or_fail("needs storescu (Debian: dcmtk)")
    words = ["storescu", "-aec", server.ae_title, "127.0.0.1", str(server.dicom_port)]
    subprocess.run([*words, *map(str, paths)], check=True, timeout=60, capture_output=True)


def told(server: Orthanc, spool: Path) -> str:
    """Return all that was logged, by Orthanc and by the process that the rule starts."""
    log = spool / "log"
    return server.log.read_text(errors="replace") + (log.read_text() if log.exists() else "")


def idle(spool: Path) -> bool:
    """Tell whether no series waits."""
    return not any((spool / "waiting").iterdir())


def test_an_incoming_series_is_upscaled_once(way: Way, tmp_path: Path, spool: Path) -> None:
    files = [chest(tmp_path / f"{index}.dcm", index, series=index // 2) for index in range(3)]
    other = chest(tmp_path / "ct.dcm", 5, series=5, Modality="CT")
    with way(tmp_path / "orthanc") as server:
        send(server, *files, other)
        # Two derived series come, are stable in their turn, and are seen to be cxrsr's.
        wait_until(
            lambda: told(server, spool).count("made by cxrsr, left alone") == 2,
            "derived series are left alone",
        )
        wait_until(lambda: idle(spool), "nothing waits")
        changes = server.get("/changes?limit=1000")["Changes"]
        assert [change["ChangeType"] for change in changes].count("StableSeries") == 5
        (study,) = server.get("/studies?expand")
        assert len(study["Series"]) == 5
        stored = [pydicom.dcmread(BytesIO(file)) for file in server.files().values()]
        assert "exit code 0, 2 of 2 instances imported" in told(server, spool)
        assert not any((spool / "failed").iterdir())
        assert not (spool / "work").exists()
        for secret in (PATIENT, SECRET):
            assert secret not in told(server, spool)
    derived = [dataset for dataset in stored if "SUPERRESOLUTION" in dataset.ImageType]
    assert sorted(dataset.Rows for dataset in derived) == [48, 48, 48]
    sources = {item.SourceImageSequence[0].ReferencedSOPInstanceUID for item in derived}
    assert sources == {pydicom.dcmread(path).SOPInstanceUID for path in files}


def test_one_failed_instance_does_not_stop_its_series(
    way: Way, tmp_path: Path, spool: Path
) -> None:
    """What could be done is imported, and the rest told of in a file without a patient in it."""
    good = chest(tmp_path / "good.dcm", 0, series=1)
    bad = chest(tmp_path / "bad.dcm", 1, series=1, Rows=25)
    with way(tmp_path / "orthanc") as server:
        send(server, good, bad)
        failed = spool / "failed"
        wait_until(lambda: failed.is_dir() and any(failed.iterdir()), "the series fails")
        wait_until(lambda: idle(spool), "nothing waits")
        (reason,) = failed.iterdir()
        assert reason.name in {entry["ID"] for entry in server.get("/series?expand")}
        assert len(server.instances()) == 3
        assert "exit code 4, 1 of 2 instances imported" in told(server, spool)
        text = reason.read_text()
    assert json.loads(text)["exit_code"] == 4
    assert "bytes of pixels" in text
    for secret in (PATIENT, SECRET):
        assert secret not in text


def test_a_real_chest_radiograph_is_upscaled(tmp_path: Path, spool: Path, shared: Path) -> None:
    """The smallest of the real chests, as it was made, by REST."""
    chests = sorted((shared / "dicom" / "chest").rglob("*.dcm"))
    real = min(chests, key=lambda path: path.stat().st_size)
    with WAYS["plugin"](tmp_path / "orthanc") as server:
        server.store(real)
        wait_until(lambda: len(server.instances()) == 2, "a derived instance comes", 120)
        (study,) = server.get("/studies?expand")
        assert len(study["Series"]) == 2


def test_a_series_that_waited_at_a_stop_is_upscaled_at_the_next_start(
    tmp_path: Path, spool: Path
) -> None:
    folder = tmp_path / "orthanc"
    with running_orthanc(folder) as server:
        server.store(chest(tmp_path / "a.dcm", 0, series=1))
        (series,) = server.get("/series")
    (spool / "waiting").mkdir()
    (spool / "waiting" / series).touch()
    with WAYS["plugin"](folder) as server:
        wait_until(lambda: len(server.get("/series")) == 2, "the derived series comes")


def test_orthanc_takes_images_while_it_works(
    way: Way, tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that waited for its command would hold up C-STORE; so would a plugin's callback."""
    command, begun, go = tmp_path / "slow", tmp_path / "begun", tmp_path / "go"
    wait = f"until [ -e {shlex.quote(str(go))} ]; do sleep 0.1; done"
    command.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(begun))}\n{wait}\n")
    command.chmod(0o755)
    monkeypatch.setenv("CXRSR_COMMAND", str(command))
    monkeypatch.setenv("CXRSR_TIMEOUT", "60")
    with way(tmp_path / "orthanc") as server:
        try:
            send(server, chest(tmp_path / "a.dcm", 0, series=1))
            wait_until(begun.exists, "the command begins")
            send(server, chest(tmp_path / "b.dcm", 1, series=2))
            assert len(server.instances()) == 2
            assert not idle(spool), "it was at work meanwhile"
        finally:
            go.touch()
        wait_until(lambda: told(server, spool).count("exit code 0") == 2, "both are done")


def test_the_rule_works_over_http(tmp_path: Path) -> None:
    """With users, as the rule's process meets it."""
    loaded = module()
    folder, users = tmp_path / "orthanc", {"ward": "secret: ä"}
    with running_orthanc(folder, AuthenticationEnabled=True, RegisteredUsers=users) as server:
        rest = loaded.Http(server.url, "ward", "secret: ä")
        assert json.loads(rest.get("/system"))["Name"] == "cxrsr tests"
        rest.post("/instances", EXAMPLE.read_bytes())
        assert len(json.loads(rest.get("/instances"))) == 1
        with pytest.raises(loaded.GoneError):
            rest.get("/series/none")
        with pytest.raises(ValueError, match="400"):
            rest.post("/instances", b"no DICOM")
        with pytest.raises(PermissionError, match="another user"):
            loaded.Http(server.url, "ward", "wrong").get("/system")
    with pytest.raises(OSError, match="refused"):
        rest.get("/system")


def test_orthanc_can_be_stopped_while_it_works(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for the hour that a series may take, and leaves nothing running."""
    command, pid = tmp_path / "slow", tmp_path / "pid"
    command.write_text(f"#!/bin/sh\necho $$ >{shlex.quote(str(pid))}\nexec sleep 600\n")
    command.chmod(0o755)
    monkeypatch.setenv("CXRSR_COMMAND", str(command))
    with WAYS["plugin"](tmp_path / "orthanc") as server:
        server.store(chest(tmp_path / "a.dcm", 0, series=1))
        wait_until(lambda: pid.exists() and runs(pid), "the command begins")
        server.get("/system")
        server.request("/tools/shutdown", b"")
        wait_until(lambda: not runs(pid), "the command ends")
        wait_until(lambda: "Orthanc has stopped" in told(server, spool), "Orthanc ends")
    assert not idle(spool)
    assert not (spool / "work").exists()


def module() -> Any:  # noqa: ANN401
    spec = importlib.util.spec_from_file_location("cxrsr_series", FOLDER / "cxrsr_series.py")
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


class Archive:
    """An Orthanc of one series with one instance, as far as a worker asks."""

    def __init__(self) -> None:
        self.posted: list[bytes] = []
        self.gone = False
        self.modality = "DX"
        self.tags = '{"0018,a001": [{"0008,1090": "Detector"}]}'

    def get(self, path: str) -> bytes:
        """Answer as Orthanc does."""
        if self.gone:
            raise ConnectionRefusedError(111, "Connection refused")
        return {
            "/series/s": json.dumps(
                {"MainDicomTags": {"Modality": self.modality}, "Instances": ["i"]}
            ).encode(),
            "/instances/i/tags?short": self.tags.encode(),
            "/instances/i/file": EXAMPLE.read_bytes(),
        }[path]

    def post(self, path: str, body: bytes) -> bytes:
        """Note what is imported."""
        assert path == "/instances"
        self.posted.append(body)
        return b"{}"


@pytest.fixture
def archive() -> Archive:
    return Archive()


def worker(
    archive: Archive, spool: Path, script: str, timeout: str = "60"
) -> tuple[Any, list[str]]:
    """Make a worker whose command is a script of shell."""
    command = spool / "command"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    known = {"CXRSR_COMMAND": str(command), "CXRSR_TIMEOUT": timeout, "CXRSR_SPOOL": str(spool)}
    lines: list[str] = []
    loaded = module()
    made = loaded.Worker(archive, loaded.Settings.of(known), lines.append)
    made.enqueue("s")
    return made, lines


def test_a_process_over_its_timeout_is_ended(archive: Archive, tmp_path: Path) -> None:
    """And what it started; what it had done whole is imported."""
    script = "mkdir out; echo x >out/0000.dcm; sleep 600 & echo $! >../pid; wait"
    made, lines = worker(archive, tmp_path, script, timeout="0.5")
    made.drain()
    assert lines == ["cxrsr: series s: exit code 124, 1 of 1 instances imported"]
    assert json.loads((tmp_path / "failed" / "s").read_text())["exit_code"] == 124
    assert archive.posted == [b"x\n"]
    assert idle(tmp_path)
    wait_until(lambda: not runs(tmp_path / "pid"), "what it started ends")


def runs(pid: Path) -> bool:
    """Tell whether a process runs; one that nobody has waited for does not."""
    try:
        status = Path("/proc", pid.read_text().strip(), "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("code", [1, 2, 5, 130])
def test_the_inputs_of_a_failure_are_kept(archive: Archive, tmp_path: Path, code: int) -> None:
    made, lines = worker(archive, tmp_path, f"echo why >&2; exit {code}")
    made.drain()
    expected = {"exit_code": code, "imported": 0, "messages": ["why"]}
    assert json.loads((tmp_path / "failed" / "s").read_text()) == expected
    assert lines == [f"cxrsr: series s: exit code {code}, 0 of 1 instances imported"]
    assert idle(tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_a_missing_command_is_reported(archive: Archive, tmp_path: Path, there: bool) -> None:
    made, _ = worker(archive, tmp_path, "")
    (tmp_path / "command").unlink()
    if there:
        (tmp_path / "command").touch(mode=0o644)
    made.drain()
    assert json.loads((tmp_path / "failed" / "s").read_text())["exit_code"] == 127


@pytest.mark.parametrize("tags", ["[]", '{"0018,a001": "odd"}', "no JSON"])
def test_an_invalid_answer_fails_only_its_instance(
    archive: Archive, tmp_path: Path, tags: str
) -> None:
    """It must not hold up what waits behind it."""
    made, _ = worker(archive, tmp_path, "exit 0")
    archive.tags = tags
    made.drain()
    assert json.loads((tmp_path / "failed" / "s").read_text())["exit_code"] == 1
    assert idle(tmp_path)


@pytest.mark.parametrize(
    ("equipment", "own"),
    [
        ([], False),
        ([{}], False),
        ([{"0008,1090": None}], False),
        ([{"0008,1090": "Detector"}], False),
        ([{"0008,1090": "Detector"}, {"0008,1090": "cxrsr "}], True),
    ],
)
def test_objects_made_by_cxrsr_are_recognised(
    equipment: list[dict[str, str | None]], own: bool
) -> None:
    assert module().is_own({"0018,a001": equipment}) is own
    assert not module().is_own({})
    assert not module().is_own({"0018,a001": None})


def test_a_series_waits_until_orthanc_answers(archive: Archive, tmp_path: Path) -> None:
    made, lines = worker(archive, tmp_path, "mkdir out; cp in/* out")
    archive.gone = True
    made.drain()
    assert lines == ["cxrsr: ConnectionRefusedError; series wait on"]
    assert not idle(tmp_path)
    archive.gone = False
    made.drain()
    assert archive.posted == [EXAMPLE.read_bytes()]
    assert idle(tmp_path)


def test_an_instance_that_arrives_during_the_work_is_upscaled(
    archive: Archive, tmp_path: Path
) -> None:
    """The script is told once more that the series is stable; the second time it is not."""
    again = "[ -e ../seen ] || { touch ../seen; touch ../waiting/s; }; mkdir out; cp in/* out"
    made, lines = worker(archive, tmp_path, again)
    made.drain()
    assert len(lines) == len(archive.posted) == 2
    assert idle(tmp_path)


def test_a_stop_ends_the_work_and_the_series_waits(archive: Archive, tmp_path: Path) -> None:
    made, _ = worker(archive, tmp_path, "touch ../begun; sleep 600")
    thread = threading.Thread(target=made.drain)
    thread.start()
    wait_until((tmp_path / "begun").exists, "the command begins")
    made.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert not idle(tmp_path)
    assert not (tmp_path / "work").exists()
    assert not archive.posted


def test_instances_of_other_modalities_are_not_fetched(archive: Archive, tmp_path: Path) -> None:
    made, lines = worker(archive, tmp_path, "exit 1")
    archive.modality = "CT"
    made.drain()
    assert idle(tmp_path)
    assert not lines


def test_two_workers_do_not_share_a_series(archive: Archive, tmp_path: Path) -> None:
    first, lines = worker(archive, tmp_path, "touch ../begun; cat ../pipe; mkdir out; cp in/* out")
    subprocess.run(["mkfifo", str(tmp_path / "pipe")], check=True, timeout=10)
    thread = threading.Thread(target=first.drain)
    thread.start()
    wait_until((tmp_path / "begun").exists, "the command begins")
    loaded = module()
    known = {"CXRSR_COMMAND": str(tmp_path / "command"), "CXRSR_SPOOL": str(tmp_path)}
    loaded.Worker(archive, loaded.Settings.of(known), lines.append).drain()
    assert not lines, "the second leaves it to the first"
    (tmp_path / "pipe").write_text("go on")
    thread.join(30)
    assert lines == ["cxrsr: series s: exit code 0, 1 of 1 instances imported"]


def test_the_private_folder_is_private(archive: Archive, tmp_path: Path) -> None:
    made, _ = worker(archive, tmp_path, "stat -c %a . >../mode; ls in >../names")
    made.drain()
    assert (tmp_path / "mode").read_text() == "700\n"
    assert (tmp_path / "names").read_text() == "0000.dcm\n"
