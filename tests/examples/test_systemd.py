"""The units for systemd: verified by it, and their commands run."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from cxrsr_cli.errors import ExitCode
from tests.conftest import skip_or_fail, small_chest
from tests.helpers.scripts import EXAMPLES, environment, install_command, run

pytestmark = pytest.mark.process

FOLDER = EXAMPLES / "systemd"
COMMAND = "/opt/cxrsr/bin/cxrsr"
SERVICES = ["cxrsr-serve.service", "cxrsr-night.service"]
EXPOSED = 2.0
"""Of ten, as `systemd-analyze security` counts what a break-in could reach."""


def analyze(*words: object) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        skip_or_fail("needs systemd-analyze (Debian: systemd)")
    return subprocess.run(
        ["systemd-analyze", *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def section(unit: str, name: str) -> list[tuple[str, str]]:
    """Return the keys of a unit's section; one can stand there several times."""
    text = (FOLDER / unit).read_text(encoding="utf-8").replace("\\\n", " ")
    part = re.search(rf"^\[{name}\]\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    assert part
    lines = [line for line in part[1].splitlines() if line and not line.startswith("#")]
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


def test_systemd_analyze_accepts_the_units(tmp_path: Path) -> None:
    units = []
    for path in [*FOLDER.glob("*.service"), *FOLDER.glob("*.timer")]:
        unit = tmp_path / path.name
        command = str(install_command(tmp_path / "bin"))
        unit.write_text(path.read_text(encoding="utf-8").replace(COMMAND, command))
        units.append(unit)
    assert len(units) == 3
    done = analyze("verify", "--man=no", *units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_is_confined(unit: str) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", FOLDER / unit)
    level = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert level, done.stdout + done.stderr
    assert float(level[1]) < EXPOSED


@pytest.mark.parametrize("unit", SERVICES)
def test_a_stop_lets_the_current_files_finish(unit: str) -> None:
    service = dict(section(unit, "Service"))
    assert service["KillSignal"] == "SIGTERM"
    assert service["TimeoutStopSec"].endswith("min")
    assert service["User"] == "cxrsr"


def test_a_service_with_an_invalid_configuration_is_not_restarted() -> None:
    service = dict(section("cxrsr-serve.service", "Service"))
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "2"
    assert service["ExecStart"] == f"{COMMAND} serve /etc/cxrsr/serve.yaml"


@pytest.mark.parametrize("key", ["", "listn: {}"], ids=["right", "wrong"])
def test_the_command_of_the_service_takes_the_example(tmp_path: Path, key: str) -> None:
    """With the words of ExecStart, the configuration's path apart."""
    word, command, path = dict(section("cxrsr-serve.service", "Service"))["ExecStart"].split()
    assert word == COMMAND
    config = tmp_path / Path(path).name
    text = (EXAMPLES / "serve.yaml").read_text(encoding="utf-8")
    adapted = text.replace("/var/lib/cxrsr/spool", str(tmp_path / "spool"))
    assert adapted != text
    config.write_text(f"{adapted}\n{key}\n", encoding="utf-8")
    done = run(
        install_command(tmp_path / "bin"), command, "--check", config, env={"PATH": "/usr/bin:/bin"}
    )
    refused = dict(section("cxrsr-serve.service", "Service"))["RestartPreventExitStatus"]
    assert str(done.returncode) == (refused if key else "0"), done.stderr
    assert not (tmp_path / "spool").exists()


def test_a_stopped_service_counts_as_successful() -> None:
    """With 0 after one signal, and with this after two (see the tests of the node)."""
    success = dict(section("cxrsr-serve.service", "Service"))["SuccessExitStatus"]
    assert success == str(int(ExitCode.INTERRUPTED))


def night(tmp_path: Path, model: Path) -> subprocess.CompletedProcess[str]:
    """Run ExecStart as systemd does: ``$NAME`` is split at spaces, ``${NAME}`` is not."""
    service = section("cxrsr-night.service", "Service")
    defaults = [shlex.split(value)[0] for key, value in service if key == "Environment"]
    names = dict(word.split("=", 1) for word in defaults)
    known = names | {
        "CXRSR_IN": str(tmp_path / "in dir"),
        "CXRSR_OUT": str(tmp_path / "out dir"),
        "CXRSR_STATE": str(tmp_path / "state dir"),
        "CXRSR_OPTIONS": f"--scale 2 --model {model}",
    }
    assert set(known) == set(names), "night.env says what the unit has a default for"
    words = []
    for word in dict(service)["ExecStart"].split():
        if re.fullmatch(r"\$\w+", word):
            words += known[word[1:]].split()
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda match: known[match[1]], word))
    assert words[0] == COMMAND
    words[0] = str(install_command(tmp_path / "bin"))
    return run(*words, env=environment(tmp_path, model))


def test_the_nightly_unit_upscales_a_folder(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "in dir").mkdir()
    nothing = night(tmp_path, tiny_model)
    assert (
        str(nothing.returncode)
        in dict(section("cxrsr-night.service", "Service"))["SuccessExitStatus"].split()
    )
    small_chest(0).save_as(tmp_path / "in dir" / "a.dcm")
    assert night(tmp_path, tiny_model).returncode == 0
    (tmp_path / "in dir" / "b.dcm").write_bytes(b"bad")
    assert night(tmp_path, tiny_model).returncode == 4
    assert (tmp_path / "out dir" / "a.dcm").is_file()
    assert (tmp_path / "state dir" / "bad" / "b.dcm.reason.json").is_file()
    assert (tmp_path / "state dir" / "report.json").is_file()


def test_the_timer_starts_the_nightly_unit() -> None:
    timer = dict(section("cxrsr-night.timer", "Timer"))
    assert analyze("calendar", timer["OnCalendar"]).returncode == 0
    assert timer["Persistent"] == "true"
    assert "Unit" not in timer, "a timer starts the service of its name"


def test_the_user_of_the_service_can_be_created() -> None:
    if shutil.which("systemd-sysusers") is None:
        skip_or_fail("needs systemd-sysusers (Debian: systemd)")
    words = ["systemd-sysusers", "--dry-run", str(FOLDER / "cxrsr.sysusers")]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "cxrsr" in done.stdout + done.stderr
