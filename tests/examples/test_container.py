"""The entry point for mercure, MONAI Deploy and Holoscan, and the image that holds it."""

import json
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT, small_chest
from tests.helpers.scripts import EXAMPLES, environment, pretend, run

pytestmark = pytest.mark.process

ENTRY = EXAMPLES / "container" / "entry.py"
DOCKERFILE = EXAMPLES / "container" / "Dockerfile"
PAIRS = [
    ("MERCURE_IN_DIR", "MERCURE_OUT_DIR"),
    ("MONAI_INPUTPATH", "MONAI_OUTPUTPATH"),
    ("HOLOSCAN_INPUT_PATH", "HOLOSCAN_OUTPUT_PATH"),
    ("CXRSR_INPUT", "CXRSR_OUTPUT"),
]


@pytest.fixture
def env(tmp_path: Path, tiny_model: Path) -> dict[str, str]:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    return environment(tmp_path, tiny_model, TMPDIR=str(temporary))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Make the two folders, with what platforms put beside the images."""
    source, target = tmp_path / "in dir", tmp_path / "out dir"
    (source / "study" / "series").mkdir(parents=True)
    target.mkdir()
    small_chest(0).save_as(source / "1.2#3.4.dcm")
    small_chest(1).save_as(source / "study" / "series" / "5.dcm")
    (source / "task.json").write_text("{}")
    (source / "study" / "series" / "5.dcm.json").write_text("{}")
    return source, target


def enter(
    env: Mapping[str, str],
    folders: tuple[Path, Path],
    pair: tuple[str, str] = PAIRS[0],
    more: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    given = dict(zip(pair, map(str, folders), strict=True))
    return run(sys.executable, ENTRY, env={**env, **given, **(more or {})})


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_the_entry_point_upscales_on_every_platform(
    env: dict[str, str], folders: tuple[Path, Path], pair: tuple[str, str]
) -> None:
    """Out come derived objects and nothing else; nothing else is left anywhere."""
    before = files(folders[0])
    done = enter(env, folders, pair)
    assert (done.returncode, done.stderr) == (0, "")
    assert files(folders[1]) == ["1.2#3.4.dcm", "study/series/5.dcm"]
    assert files(folders[0]) == before
    assert not list(Path(env["TMPDIR"]).iterdir())


def test_one_failed_file_makes_the_run_fail(
    env: dict[str, str], folders: tuple[Path, Path]
) -> None:
    (folders[0] / "bad.dcm").write_bytes(b"bad")
    done = enter(env, folders)
    assert done.returncode == 4
    assert "bad.dcm" in done.stderr


def test_an_empty_input_folder_makes_the_run_fail(
    env: dict[str, str], folders: tuple[Path, Path]
) -> None:
    for name in files(folders[0]):
        if name.endswith(".dcm"):
            (folders[0] / name).unlink()
    assert enter(env, folders).returncode == 3


@pytest.mark.parametrize(
    ("script", "code"),
    [*((f"exit {code}", code) for code in (0, 1, 2, 5, 6, 7, 8, 130)), ("kill -KILL $$", 137)],
)
def test_the_exit_code_of_cxrsr_is_passed_on(
    env: dict[str, str], folders: tuple[Path, Path], tmp_path: Path, script: str, code: int
) -> None:
    """A process that the memory killer took is no success either."""
    assert enter(env, folders, more=pretend(tmp_path / "a command", script)).returncode == code
    assert not list(Path(env["TMPDIR"]).iterdir())


def test_options_come_from_the_environment(
    env: dict[str, str], folders: tuple[Path, Path], tmp_path: Path, tiny_model: Path
) -> None:
    more = {
        "CXRSR_SCALE": "2",
        "CXRSR_MODEL": str(tiny_model),
        "CXRSR_MEMORY": "1GiB",
        "CXRSR_DEVICE": "cpu",
        "CXRSR_REPORT": str(tmp_path / "a report.json"),
        "CXRSR_LEDGER": str(tmp_path / "a ledger"),
        "CXRSR_OPTIONS": "--series-description 'two words' --drop-private",
    }
    assert enter(env, folders, more=more).returncode == 0
    report = json.loads((tmp_path / "a report.json").read_text())
    assert report["options"]["memory"] == 1 << 30
    assert report["options"]["keep_private"] is False
    again = enter(env, folders, more=more)
    assert again.returncode == 0, "a retry with a ledger finds all done"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"MERCURE_OUT_DIR": ""}, "MERCURE_OUT_DIR is not set"),
        ({"MERCURE_IN_DIR": "", "MERCURE_OUT_DIR": ""}, "are not set"),
        ({"MONAI_INPUTPATH": "/a", "MONAI_OUTPUTPATH": "/b"}, "different folders"),
        ({"CXRSR_OPTIONS": "'"}, "quotation mark"),
        ({"CXRSR_COMMAND": "no-such-program"}, "no program"),
        ({"CXRSR_OPTIONS": "--scale 3"}, "not one of"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_an_invalid_setting_is_refused(
    env: dict[str, str], folders: tuple[Path, Path], more: dict[str, str], message: str
) -> None:
    done = enter(env, folders, more=more)
    assert done.returncode == 2
    assert message in done.stderr
    assert not files(folders[1])


def test_an_unreadable_input_folder_is_refused(
    env: dict[str, str], folders: tuple[Path, Path]
) -> None:
    done = enter(env, (folders[0] / "none", folders[1]))
    assert done.returncode == 5
    assert "Traceback" not in done.stderr


def test_sigterm_is_passed_on_to_cxrsr(env: dict[str, str], folders: tuple[Path, Path]) -> None:
    for index in range(200):
        shutil.copy(folders[0] / "1.2#3.4.dcm", folders[0] / f"x{index:03}.dcm")
    given = dict(zip(PAIRS[0], map(str, folders), strict=True))
    with subprocess.Popen(
        [sys.executable, str(ENTRY)], env=env | given, stdout=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 120
        while not files(folders[1]) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert 0 < len(files(folders[1])) < 200
    assert not list(Path(env["TMPDIR"]).iterdir())


def instructions() -> list[tuple[str, str]]:
    """Read the Dockerfile: each instruction with its argument."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", "", lines)
    return [
        (word, rest)
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def test_the_dockerfile_copies_only_files_that_exist(tmp_path: Path) -> None:
    """The copied files alone make the wheel; the commands are commands."""
    context = tmp_path / "src"
    context.mkdir()
    for name, argument in instructions():
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", argument], check=True, timeout=10)
            for word in re.findall(r"==[\d.]+", argument):
                pytest.fail(f"{word} is no business of the Dockerfile: constraints.txt says it")
        if name == "COPY" and not argument.startswith("--from"):
            *sources, target = argument.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                if target == "./":
                    shutil.copy(ROOT / source, context)
                elif (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, context / target)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(context)], check=True, capture_output=True, timeout=120)
    assert list(tmp_path.glob("cxrsr-*.whl"))
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"^torch==[\d.]+$", constraints, re.MULTILINE)) == 1


def test_the_image_runs_the_entry_point_without_root() -> None:
    found = instructions()
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    final = dict(found[last:])
    entry = json.loads(final["ENTRYPOINT"])
    assert f"examples/container/entry.py {entry[-1]}" in [rest for name, rest in found]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", final["USER"])
    pythons = {rest.split()[0] for name, rest in found if name == "FROM"}
    assert pythons == {"python:3.12-slim"}, "one version, of requires-python, for both stages"
    assert shlex.split(final["ENV"])[0].startswith("PATH=/opt/cxrsr/bin:")


def test_the_entry_point_needs_no_library(env: dict[str, str]) -> None:
    """So that it runs in whatever Python the image has."""
    done = run(sys.executable, "-I", "-S", ENTRY, env=env)
    assert done.returncode == 2, done.stderr


def test_examples_are_in_the_source_distribution(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True, timeout=120)
    (archive,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    for path in EXAMPLES.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            there = unpacked / path.relative_to(ROOT)
            assert there.read_bytes() == path.read_bytes()
            wanted = path.stat().st_mode & stat.S_IXUSR
            assert there.stat().st_mode & stat.S_IXUSR == wanted
