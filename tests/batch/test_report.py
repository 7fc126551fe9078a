"""Dry run, quarantine, report and log of a run."""

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.result import FileStatus
from cxrsr_cli.common.files import sha256_file
from cxrsr_cli.errors import ExitCode
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import COUNT, Command, small_chest
from tests.helpers.batches import command, run, statuses


def test_a_dry_run_says_what_would_happen_and_writes_nothing(
    cxrsr: Command, upscaler: Upscaler, inputs: Path, tiny_model: Path
) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    options = ("-s", 2, "-m", tiny_model, "--quarantine", inputs.parent / "q")
    done = cxrsr("upscale", "--dry-run", *options, inputs, inputs.parent / "out")
    assert done.returncode == ExitCode.SOME_FAILED
    assert f"Dry run: {COUNT - 1} would be upscaled, 1 failed" in done.stdout
    assert done.stderr.count("would upscale: ") == COUNT - 1
    assert "20x24 -> 40x48" in done.stderr
    assert "failed: " in done.stderr
    assert {path.name for path in inputs.parent.iterdir()} == {"in"}
    run(upscaler, inputs)
    (inputs.parent / "out" / "3.dcm").unlink()
    before = sorted(inputs.parent.rglob("*"))
    done = cxrsr("upscale", "--dry-run", *options, inputs, inputs.parent / "out")
    assert f"Dry run: 1 would be upscaled, 1 failed, {COUNT - 2} up to date" in done.stdout
    assert sorted(inputs.parent.rglob("*")) == before


def test_bad_inputs_are_copied_to_the_quarantine_with_a_reason(
    upscaler: Upscaler, inputs: Path, tmp_path: Path
) -> None:
    """Other files in the quarantine are not changed."""
    (inputs / "sub").mkdir()
    (inputs / "sub" / "bad.dcm").write_bytes(b"bad")
    shutil.copy(inputs / "0.dcm", inputs / "sub" / "taken.dcm")
    small_chest(3, PhotometricInterpretation="RGB").save_as(inputs / "2.dcm")
    quarantine = tmp_path / "q"
    (quarantine / "sub").mkdir(parents=True)
    (quarantine / "sub" / "bad.dcm").write_bytes(b"another night's")
    (tmp_path / "out" / "sub").mkdir(parents=True)
    (tmp_path / "out" / "sub" / "taken.dcm").write_bytes(b"precious")
    for _ in range(2):
        results = run(upscaler, inputs, quarantine=Quarantine(quarantine, tmp_path / "out"))
        assert statuses(results).count(FileStatus.FAILED) == 3
        assert FileStatus.SKIPPED not in statuses(results)
    digest = sha256_file(inputs / "sub" / "bad.dcm")[:12]
    assert {str(path.relative_to(quarantine)) for path in quarantine.rglob("*.*")} == {
        "2.dcm", "2.dcm.reason.json",
        "sub/bad.dcm", f"sub/bad.{digest}.dcm", f"sub/bad.{digest}.dcm.reason.json",
    }  # fmt: skip
    assert (quarantine / "2.dcm").read_bytes() == (inputs / "2.dcm").read_bytes()
    reason = json.loads((quarantine / "2.dcm.reason.json").read_text())
    assert "colour" in reason["reason"]
    assert reason["source_sha256"] == sha256_file(inputs / "2.dcm")
    assert "Example" not in str(reason)


def test_a_quarantine_that_cannot_be_written_is_reported(
    upscaler: Upscaler, inputs: Path, tmp_path: Path
) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    (tmp_path / "q").write_bytes(b"a file")
    results = run(upscaler, inputs, quarantine=Quarantine(tmp_path / "q"))
    assert statuses(results).count(FileStatus.DONE) == COUNT - 1
    assert "quarantine" in results[1].record_errors[0]


def test_the_report_says_what_became_of_each_file(
    cxrsr: Command, inputs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    path = tmp_path / "run.json"
    for _ in range(2):
        done = cxrsr("upscale", "-s", 2, "-m", tiny_model, "--report", path, inputs, tmp_path / "o")
        assert done.returncode == ExitCode.SOME_FAILED
        report = json.loads(path.read_text())
        if report["counts"]["done"]:
            first = report
    assert report["counts"]["up to date"] == first["counts"]["done"] == COUNT - 1
    assert first["schema"] == "cxrsr-run-report/1"
    assert first["model"]["sha256"] == sha256_file(tiny_model)
    assert first["exit_code"] == ExitCode.SOME_FAILED
    assert first["versions"]["torch"]
    assert datetime.fromisoformat(first["started"]) <= datetime.fromisoformat(first["finished"])
    good, bad = first["files"][:2]
    assert (good["status"], good["input_shape"], good["output_shape"]) == (
        "done", [24, 20], [48, 40],
    )  # fmt: skip
    assert good["seconds"]["total"] > 0
    assert good["peak_memory_bytes"] > 50e6
    assert good["source_sha256"] == sha256_file(inputs / "0.dcm")
    assert good["output_sha256"] == sha256_file(tmp_path / "o" / "0.dcm")
    assert bad["status"] == "failed"
    assert bad["error"]["kind"] == "NotDicomError"
    assert "Example" not in path.read_text()


def test_a_report_replaces_only_a_report(cxrsr: Command, inputs: Path, tmp_path: Path) -> None:
    source = inputs / "0.dcm"
    before = source.read_bytes()
    done = cxrsr("upscale", "--report", source, inputs, tmp_path / "out")
    assert done.returncode == ExitCode.CANNOT_WRITE
    assert "is not a report of cxrsr" in done.stderr
    assert source.read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_the_json_log_has_an_object_per_event(
    cxrsr: Command, inputs: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    done = cxrsr("upscale", "--log-json", "-s", 2, "-m", tiny_model, inputs, tmp_path / "out")
    assert done.stdout == ""
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events] == ["start", *["file"] * COUNT, "summary"]
    assert [event["level"] for event in events].count("error") == 1
    assert events[-1]["exit_code"] == done.returncode == ExitCode.SOME_FAILED
    assert all(datetime.fromisoformat(event["time"]) for event in events)
    fatal = cxrsr("upscale", "--log-json", tmp_path / "none", tmp_path / "out")
    assert fatal.returncode == ExitCode.NO_INPUT
    assert json.loads(fatal.stderr)["event"] == "fatal"


@pytest.mark.process
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--report", "in/0.dcm"], "is not a report of cxrsr"),
        (["--report", "out/0.dcm"], "is an output; choose another path for the report"),
        (["--report", "out/.cxrsr-ledger.sqlite"], "is the ledger"),
        (["--report", "pipe"], "is not a report of cxrsr"),
        (["--report", "/dev/full"], "is not a report of cxrsr"),
        (["--report", "pipe/r.json"], "not a writable folder"),
        (["--ledger", "in/0.dcm"], "ledger in/0.dcm cannot be used"),
        (["--ledger", "out/0.dcm"], "is an output"),
        (["--quarantine", "out"], "holds the output folder"),
        (["--quarantine", "in"], "same folder"),
        (["--quarantine", "."], "holds the output folder"),
    ],
    ids=" ".join,
)
def test_records_do_not_replace_other_files(inputs: Path, options: list[str], says: str) -> None:
    os.mkfifo(inputs.parent / "pipe")
    before = {path: path.read_bytes() for path in inputs.iterdir()}
    done = command(inputs.parent, "upscale", *options, "in", "out")
    assert done.returncode == ExitCode.CANNOT_WRITE, done.stderr
    assert says in done.stderr
    assert {path: path.read_bytes() for path in inputs.iterdir()} == before
    assert {path.name for path in inputs.parent.iterdir()} == {"in", "pipe"}


@pytest.mark.process
def test_report_and_ledger_in_the_input_folder_are_not_inputs(
    inputs: Path, tiny_model: Path
) -> None:
    options = ["-s", "2", "-m", str(tiny_model), "--report", "in/r.json", "--ledger", "in/l.sqlite"]
    for says in (f"{COUNT} upscaled, 0 failed", f"0 failed, {COUNT} up to date"):
        done = command(inputs.parent, "upscale", *options, "in", "out")
        assert says in done.stdout
        assert done.returncode == ExitCode.OK


@pytest.mark.process
def test_a_file_name_cannot_forge_a_line(inputs: Path, tiny_model: Path) -> None:
    """Names may hold bytes that are not Unicode, and line breaks."""
    for name in (b"a\xff.dcm", b"b\nfailed: nothing \x1b[2J.dcm"):
        (inputs.parent / "out").mkdir(exist_ok=True)
        for folder in (b"in/", b"out/"):
            Path(os.fsdecode(os.fsencode(inputs.parent) + b"/" + folder + name)).write_bytes(b"bad")
    options = ["-s", "2", "-m", str(tiny_model), "--report", "r.json", "in", "out"]
    done = command(inputs.parent, "upscale", *options)
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    assert f"{COUNT} upscaled, 2 failed" in done.stdout
    assert len(done.stderr.splitlines()) == 2
    assert "\x1b" not in done.stderr
    sources = [
        file["source"] for file in json.loads((inputs.parent / "r.json").read_text())["files"]
    ]
    assert "in/a\\xff.dcm" in sources
    assert "failed: in/a\\xff.dcm: " in done.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    "ending", ["| true", "2>&1 | true", ">/dev/full", "2>/dev/full", ">&-", "2>&-", ">&- 2>&- <&-"]
)
def test_a_run_finishes_without_readers_of_its_output(
    inputs: Path, tiny_model: Path, ending: str
) -> None:
    """Outputs and report are written although stdout or stderr is closed or full."""
    (inputs / "1.dcm").write_bytes(b"bad")
    line = (
        f"{sys.executable} -m cxrsr_cli upscale -v -s 2 -m {tiny_model} --report r.json in out "
        f"{ending}; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", line], check=False, cwd=inputs.parent, capture_output=True)
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    report = json.loads((inputs.parent / "r.json").read_text())
    assert report["counts"]["done"] == COUNT - 1
    assert report["exit_code"] == ExitCode.SOME_FAILED


@pytest.mark.process
def test_record_errors_are_shown_even_with_quiet(inputs: Path, tiny_model: Path) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    (inputs.parent / "q").write_bytes(b"a file")
    options = ["-q", "-s", "2", "-m", str(tiny_model), "--quarantine", "q", "in", "out"]
    done = command(inputs.parent, "upscale", *options)
    assert "error: in/1.dcm: no copy in quarantine" in done.stderr


def test_the_reason_of_a_long_file_name_has_a_short_name(
    upscaler: Upscaler, inputs: Path, tmp_path: Path
) -> None:
    (inputs / f"{'x' * 250}.dcm").write_bytes(b"bad")
    run(upscaler, inputs, quarantine=Quarantine(tmp_path / "q", tmp_path / "out"))
    names = sorted(path.name for path in (tmp_path / "q").iterdir())
    assert names[1] == f"{'x' * 250}.dcm"
    assert names[0].endswith(".reason.json")


@pytest.mark.process
@pytest.mark.parametrize("arguments", [["in", ""], ["", "out"], ["in", "", "out"]], ids=str)
def test_an_empty_path_is_refused(inputs: Path, arguments: list[str]) -> None:
    done = command(inputs.parent, "upscale", *arguments)
    assert done.returncode == ExitCode.USAGE
    assert "empty" in done.stderr
