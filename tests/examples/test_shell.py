"""Scripts for cron, storescp and Slurm, run as these run them."""

import fcntl
import json
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, skip_or_fail, small_chest
from tests.helpers.orthanc import free_port
from tests.helpers.scripts import EXAMPLES, environment, pretend, run
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.process

SCRIPTS = [
    path
    for path in sorted(EXAMPLES.rglob("*"))
    if path.suffix in {".sh", ".sbatch"} and path.is_file()
]
NIGHT = EXAMPLES / "cron" / "night.sh"
ON_STUDY = EXAMPLES / "storescp" / "on-study.sh"
MAKE_LIST = EXAMPLES / "slurm" / "make-list.sh"
SBATCH = EXAMPLES / "slurm" / "upscale.sbatch"


@pytest.fixture
def env(tmp_path: Path, tiny_model: Path) -> dict[str, str]:
    model = tmp_path / "a model's.safetensors"
    shutil.copy(tiny_model, model)
    return environment(tmp_path, model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder of four images, with spaces and a quotation mark in their paths."""
    folder = tmp_path / "the ward's images"
    (folder / "room 2").mkdir(parents=True)
    for index, name in enumerate(["a.dcm", "b c.dcm", "room 2/a.dcm", "room 2/d.dcm"]):
        small_chest(index).save_as(folder / name)
    return folder


def relative(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    )


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        skip_or_fail("needs shellcheck (Debian: shellcheck)")
    found = subprocess.run(
        ["shellcheck", str(script)], check=False, capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_strict_and_executable(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/bash\n")
    assert "\nset -euo pipefail\n" in text
    assert script.stat().st_mode & 0o111 == 0o111


def crontab_line(folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the crontab's line as cron does: by a shell, in the environment that it sets."""
    text = (EXAMPLES / "cron" / "cxrsr.crontab").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    names = {line.partition("=")[0] for line in lines[:-1]}
    assert {"PATH", "CXRSR_STATE", "CXRSR_OPTIONS"} <= names
    timing = re.match(r"(?:[\d*]+ ){5}", lines[-1])
    assert timing
    line = lines[-1][timing.end() :]
    assert "%" not in line, "cron would break it there"
    for there, here in (
        ("/opt/cxrsr/night.sh", NIGHT),
        ("/srv/dicom/in", folder),
        ("/srv/dicom/out", folder.parent / "out dir"),
    ):
        assert there in line
        line = line.replace(there, shlex.quote(str(here)))
    return run("/bin/sh", "-c", line, env=env | {"CXRSR_STATE": str(folder.parent / "st ate")})


def test_cron_prints_nothing_when_all_succeeds(folder: Path, env: dict[str, str]) -> None:
    for _night in range(2):
        done = crontab_line(folder, env)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert relative(folder.parent / "out dir") == relative(folder)
    (report,) = (folder.parent / "st ate" / "reports").iterdir()
    assert json.loads(report.read_text())["counts"]["up to date"] == 4


def test_cron_prints_the_failures(folder: Path, env: dict[str, str]) -> None:
    (folder / "b c.dcm").write_bytes(b"bad")
    done = crontab_line(folder, env)
    assert (done.returncode, done.stdout) == (4, "")
    first, last = done.stderr.splitlines()
    assert "b c.dcm" in first
    assert last.startswith("cxrsr: exit code 4; the report is ")
    assert Path(last.partition("report is ")[2]).is_file()
    assert relative(folder.parent / "st ate" / "bad") == ["b c.dcm", "b c.dcm.reason.json"]
    assert len(relative(folder.parent / "out dir")) == 3


def test_cron_succeeds_with_an_empty_folder(folder: Path, env: dict[str, str]) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    assert crontab_line(folder, env).returncode == 0


@pytest.mark.parametrize(
    ("code", "handed_on", "mailed"),
    [(0, 0, 0), (3, 0, 0), (1, 1, 1), (2, 2, 1), (5, 5, 1), (6, 6, 1), (7, 7, 1), (130, 130, 1)],
)
def test_cron_passes_on_exit_codes_that_need_a_person(
    folder: Path, env: dict[str, str], code: int, handed_on: int, mailed: int
) -> None:
    done = crontab_line(folder, env | pretend(folder.parent / "a command", f"exit {code}"))
    assert (done.returncode, len(done.stderr.splitlines())) == (handed_on, mailed)


def test_cron_does_not_start_a_second_run(folder: Path, env: dict[str, str]) -> None:
    state = folder.parent / "st ate"
    state.mkdir()
    with (state / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = crontab_line(folder, env)
    assert done.returncode == 75
    assert "still at work" in done.stderr
    assert not (folder.parent / "out dir").exists()


def received(base: Path, name: str, *indices: int) -> Path:
    """Make a study as storescp leaves it."""
    study = base / "in" / name
    study.mkdir(parents=True)
    for index in indices:
        small_chest(index).save_as(study / f"DX.{index}")
    return study


def test_a_study_moves_to_the_folder_of_its_exit_code(tmp_path: Path, env: dict[str, str]) -> None:
    base = tmp_path / "base dir"
    assert run(ON_STUDY, received(base, "good", 0, 1), env=env).returncode == 0
    partly = received(base, "partly", 2)
    (partly / "DX.9").write_bytes(bytes(200))
    done = run(ON_STUDY, partly, env=env)
    assert done.returncode == 4
    assert "cxrsr: partly: exit code 4" in done.stderr
    assert relative(base / "done") == ["good/DX.0", "good/DX.1"]
    assert relative(base / "failed") == ["partly/DX.2", "partly/DX.9"]
    outputs = [name for name in relative(base / "out") if "ledger" not in name]
    assert outputs == ["good/DX.0", "good/DX.1", "partly/DX.2"]
    assert relative(base / "reports") == ["good.json", "partly.json"]
    assert relative(base / "in") == relative(base / "work") == []


@pytest.mark.parametrize(
    ("code", "folder"),
    [
        (0, "done"),
        (3, "done"),
        *((code, "failed") for code in (1, 4, 5, 137)),
        *((code, "work") for code in (2, 6, 7, 8, 130)),
    ],
)
def test_each_exit_code_has_its_folder(
    tmp_path: Path, env: dict[str, str], code: int, folder: str
) -> None:
    study = received(tmp_path, "one", 0)
    done = run(ON_STUDY, study, env=env | pretend(tmp_path / "a command", f"exit {code}"))
    assert done.returncode == (0 if folder == "done" else code)
    assert relative(tmp_path / folder) == ["one/DX.0"]
    assert len(done.stderr.splitlines()) == bool(done.returncode)


def test_a_study_over_its_timeout_fails(tmp_path: Path, env: dict[str, str]) -> None:
    slow = pretend(tmp_path / "slow", "exec sleep 600") | {"CXRSR_TIMEOUT": "0.1"}
    assert run(ON_STUDY, received(tmp_path, "one", 0), env=env | slow).returncode == 124
    assert relative(tmp_path / "failed") == ["one/DX.0"]


def test_studies_are_done_one_at_a_time(tmp_path: Path, env: dict[str, str]) -> None:
    """The command fails if another one runs."""
    busy = shlex.quote(str(tmp_path / "busy"))
    slow = pretend(tmp_path / "slow", f"mkdir {busy} || exit 1; sleep 0.3; rmdir {busy}")
    studies = [received(tmp_path, f"study {index}", index) for index in range(3)]
    calls = [subprocess.Popen([ON_STUDY, study], env=env | slow) for study in studies]
    assert [call.wait(timeout=60) for call in calls] == [0, 0, 0]
    assert len(relative(tmp_path / "done")) == 3


def test_a_study_waits_while_the_installation_is_broken(
    tmp_path: Path, env: dict[str, str]
) -> None:
    base = tmp_path / "base dir"
    broken = env | {"CXRSR_OPTIONS": "--model none-such"}
    assert run(ON_STUDY, received(base, "one", 0), env=broken).returncode == 7
    assert relative(base / "work") == ["one/DX.0"]
    later = run(ON_STUDY, env=env | {"CXRSR_BASE": str(base)})
    assert (later.returncode, later.stderr) == (0, "")
    assert relative(base / "done") == ["one/DX.0"]


def test_a_study_that_arrives_again_replaces_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    base = tmp_path / "base dir"
    fine = env | pretend(tmp_path / "a command", "exit 0")
    for index in range(2):
        assert run(ON_STUDY, received(base, "one", index), env=fine).returncode == 0
    assert relative(base / "done") == ["one.2/DX.1", "one/DX.0"]


@pytest.mark.peer
def test_storescp_starts_the_script_for_each_study(tmp_path: Path, env: dict[str, str]) -> None:
    """With the line of its header, and a real sender."""
    if shutil.which("storescp") is None or shutil.which("storescu") is None:
        skip_or_fail("needs storescp and storescu (Debian: dcmtk)")
    base, port = tmp_path / "the base's dir", str(free_port())
    (base / "in").mkdir(parents=True)
    header = ON_STUDY.read_text(encoding="utf-8")
    match = re.search(r"^#   (storescp .*?11112)$", header, re.MULTILINE | re.DOTALL)
    assert match
    words = shlex.split(re.sub(r"\\\n#", "", match[1]))
    replaced = {
        "60": "1",
        "BASE/in": str(base / "in"),
        "11112": port,
        '/opt/cxrsr/on-study.sh "#p"': f'{shlex.quote(str(ON_STUDY))} "#p"',
    }
    assert set(replaced) < set(words)
    files = [tmp_path / f"{index}.dcm" for index in range(2)]
    for index, path in enumerate(files):
        small_chest(index).save_as(path)
    log = tmp_path / "log"
    with (
        log.open("wb") as said,
        subprocess.Popen(
            [replaced.get(word, word) for word in words], env=env, stdout=said, stderr=said
        ) as server,
    ):
        try:
            send = ["storescu", "127.0.0.1", port, *files]
            wait_until(lambda: run(*send, env=env).returncode == 0, "it listens")
            wait_until(lambda: len(relative(base / "done")) == 2, "the study is done")
        finally:
            server.terminate()
            server.wait(timeout=20)
    assert len(list((base / "out").rglob("DX.*"))) == 2, log.read_text(errors="replace")
    assert not relative(base / "failed")


def task(
    folder: Path, out: Path, env: dict[str, str], number: int, count: int, **more: str
) -> subprocess.CompletedProcess[str]:
    slurm = {
        "SLURM_ARRAY_TASK_ID": str(number),
        "SLURM_ARRAY_TASK_COUNT": str(count),
        "SLURM_ARRAY_TASK_MIN": "0",
        "SLURM_ARRAY_TASK_MAX": str(count - 1),
        "SLURM_JOB_ID": "77",
    }
    return run("bash", SBATCH, folder, folder.parent / "a list", out, env=env | slurm | more)


def test_every_file_is_in_one_shard(folder: Path, env: dict[str, str], tmp_path: Path) -> None:
    """Two tasks for four files, one of them again, and one for which there is none."""
    out = tmp_path / "out dir"
    (folder / "DICOMDIR").write_bytes(b"")
    (folder / ".hidden").write_bytes(b"")
    assert run(MAKE_LIST, folder, tmp_path / "a list", env=env).returncode == 0
    (folder / "DICOMDIR").unlink()
    (folder / ".hidden").unlink()
    shards = out / ".shards"
    for number in range(2):
        done = task(folder, out, env, number, 2)
        assert (done.returncode, done.stderr) == (0, ""), number
    files = [
        file for path in shards.glob("*.json") for file in json.loads(path.read_text())["files"]
    ]
    assert [file["status"] for file in files] == ["done"] * 4
    assert len({file["output"] for file in files}) == 4
    assert relative(out) == relative(folder)
    assert {path.name for path in shards.glob("*.sqlite")} == {"0-of-2.sqlite", "1-of-2.sqlite"}
    assert task(folder, out, env, 1, 2).returncode == 0
    again = json.loads((shards / "1-of-2.json").read_text())
    assert again["counts"]["up to date"] == len(again["files"]) == 2
    none = task(folder, tmp_path / "none", env, 6, 7)
    assert (none.returncode, none.stderr) == (0, "")


def test_an_incomplete_slurm_array_is_refused(
    folder: Path, env: dict[str, str], tmp_path: Path
) -> None:
    run(MAKE_LIST, folder, tmp_path / "a list", env=env)
    part = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "1"}
    refused = task(folder, tmp_path / "out", env, 1, 1, **part)
    assert refused.returncode == 2
    assert "CXRSR_SHARDS" in refused.stderr
    done = task(folder, tmp_path / "out", env, 1, 1, **part, CXRSR_SHARDS="2")
    assert done.returncode == 0
    assert len(relative(tmp_path / "out")) == 2


def test_a_listed_file_that_is_gone_is_a_failure(
    folder: Path, env: dict[str, str], tmp_path: Path
) -> None:
    run(MAKE_LIST, folder, tmp_path / "a list", env=env)
    (folder / "a.dcm").unlink()
    assert task(folder, tmp_path / "out", env, 0, 2).returncode == 4
    assert len(relative(tmp_path / "out")) == 1


@pytest.mark.parametrize("code", [0, 1, 2, 4, 5, 6, 7])
def test_a_slurm_task_ends_with_the_exit_code_of_cxrsr(
    folder: Path, env: dict[str, str], tmp_path: Path, code: int
) -> None:
    run(MAKE_LIST, folder, tmp_path / "a list", env=env)
    command = pretend(tmp_path / "a command", f"exit {code}")
    assert task(folder, tmp_path / "out", env, 0, 1, **command).returncode == code


def test_a_stopped_slurm_task_asks_for_a_requeue(
    folder: Path, env: dict[str, str], tmp_path: Path
) -> None:
    for index in range(200):
        shutil.copy(folder / "a.dcm", folder / f"x{index:03}.dcm")
    run(MAKE_LIST, folder, tmp_path / "a list", env=env)
    scontrol = tmp_path / "bin dir" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >{shlex.quote(str(tmp_path / "asked"))}\n')
    scontrol.chmod(0o755)
    out = tmp_path / "out"
    slurm = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_JOB_ID": "77"}
    words = ["bash", SBATCH, folder, tmp_path / "a list", out]
    with subprocess.Popen(list(map(str, words)), env=env | slurm, stderr=subprocess.PIPE) as job:
        deadline = time.monotonic() + 120
        while not list(out.glob("*.dcm")) and time.monotonic() < deadline:
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        said = job.communicate(timeout=60)[1]
    assert job.returncode == 130, said
    assert (tmp_path / "asked").read_text() == "requeue 77\n"
    report = json.loads((out / ".shards" / "0-of-1.json").read_text())
    assert report["counts"]["not processed"] > 100
    assert report["counts"]["done"] == len(relative(out)) > 0
