"""Links that loop, deep folders, pipes and file systems with other rules harm no other file."""

import errno
import json
import os
import stat
import time
from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from cxrsr_cli.batch.discover import NameFilter, find_inputs
from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.batch.plan import RecordPaths, plan_batch
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.report import check_report_path
from cxrsr_cli.batch.result import FileStatus
from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.commands.app import app
from cxrsr_cli.common.files import remove_stale_temporaries
from cxrsr_cli.dicom.write import check_target, os_errors_as_output_error
from cxrsr_cli.errors import CxrsrError, ExitCode, NotDicomError, OutputError
from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import COUNT, Command, small_chest
from tests.helpers.batches import run, statuses


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """Make a link that leads to itself."""
    path = tmp_path / "loop.dcm"
    path.symlink_to(path)
    return path


def test_a_link_that_loops_fails_alone(upscaler: Upscaler, inputs: Path) -> None:
    (inputs / "loop.dcm").symlink_to("loop.dcm")
    results = run(upscaler, inputs)
    assert statuses(results) == [*[FileStatus.DONE] * COUNT, FileStatus.FAILED]
    assert "symbolic links" in str(results[-1].error)


@pytest.mark.parametrize(
    ("sources", "target", "records"),
    [
        (["loop.dcm"], "out", {}),
        (["loop.dcm", "in"], "out", {}),
        (["in"], "loop.dcm", {}),
        (["in"], "loop.dcm/out", {}),
        (["in/0.dcm"], "loop.dcm", {}),
        (["in/0.dcm"], "loop.dcm/out.dcm", {}),
        (["in"], "out", {"ledger": "loop.dcm"}),
        (["in"], "out", {"report": "loop.dcm"}),
        (["in"], "out", {"quarantine": "loop.dcm"}),
        (["in"], "out", {"ledger": "loop.dcm/x"}),
        (["in"], "out", {"report": "loop.dcm/x"}),
    ],
    ids=str,
)
def test_a_link_that_loops_is_no_internal_error(
    upscaler: Upscaler,
    inputs: Path,
    loop: Path,
    sources: list[str],
    target: str,
    records: dict[str, str],
) -> None:
    """Whatever it is given for, a sentence tells it."""
    root = inputs.parent
    paths = RecordPaths(**{name: root / path for name, path in records.items()})
    try:
        if paths.report:
            check_report_path(paths.report)
        plan = plan_batch([root / source for source in sources], root / target, skipped=[*paths])
        paths.check(plan)
        ledger = Ledger(paths.ledger) if paths.ledger else None
        copies = Quarantine(paths.quarantine) if paths.quarantine else None
        results = list(BatchRunner(LocalExecutor(upscaler), ledger, copies).run(plan.jobs))
    except CxrsrError as error:
        assert str(error)  # noqa: PT017 - either is right
    else:
        errors = {type(result.error).__name__ for result in results}
        assert "InternalError" not in errors
    assert loop.is_symlink()


@pytest.mark.parametrize("name", ["loop.dcm/out.dcm", "loop.dcm/new/out.dcm", "nowhere/out.dcm"])
def test_a_folder_behind_a_link_that_leads_nowhere_is_refused_before_any_work(
    tmp_path: Path, loop: Path, name: str
) -> None:
    (loop.parent / "nowhere").symlink_to("missing")
    with pytest.raises(OutputError, match="is not a writable folder"):
        check_target(tmp_path / "in.dcm", tmp_path / name, overwrite=False)


def test_the_command_does_the_rest_of_a_folder(
    cxrsr: Command, inputs: Path, tiny_model: Path
) -> None:
    out, report = inputs.parent / "out", inputs.parent / "report.json"
    (inputs / "loop.dcm").symlink_to("loop.dcm")
    os.mkfifo(inputs / "pipe.dcm")
    records = ("--report", report, "--quarantine", inputs.parent / "bad")
    done = cxrsr("upscale", inputs, out, "--scale", 2, "--model", tiny_model, *records)
    assert done.returncode == ExitCode.SOME_FAILED
    assert done.stdout.startswith(f"{COUNT} upscaled, 2 failed")
    assert "unexpected" not in done.stderr
    files = json.loads(report.read_text())["files"]
    failed = {Path(file["source"]).name for file in files if file["status"] == "failed"}
    assert failed == {"loop.dcm", "pipe.dcm"}


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--report", "loop.dcm/x"),
        ("--ledger", "loop.dcm"),
        ("--ledger", "loop.dcm/x"),
        ("OUTPUT", "loop.dcm"),
        ("OUTPUT", "loop.dcm/x"),
    ],
)
def test_the_command_writes_nothing_if_its_records_cannot_be_written(
    inputs: Path, loop: Path, tiny_model: Path, option: str, name: str
) -> None:
    out = inputs.parent / (name if option == "OUTPUT" else "out")
    record = [] if option == "OUTPUT" else [option, str(inputs.parent / name)]
    arguments = [str(inputs), str(out), "--scale", "2", "--model", str(tiny_model)]
    done = CliRunner().invoke(app, ["upscale", *arguments, *record])
    # The process ends with the exit code of an error that leaves the command.
    error = done.exception
    code = error.exit_code if isinstance(error, CxrsrError) else done.exit_code
    assert code == ExitCode.CANNOT_WRITE
    assert "unexpected" not in done.output
    assert loop.is_symlink()
    assert sorted(inputs.parent.iterdir()) == [inputs, loop]


def test_a_folder_that_is_nested_deeply_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    small_chest().save_as(tmp_path / "in" / "z.dcm")
    with chdir(tmp_path / "in"):
        for _ in range(5000):
            Path("d").mkdir()
            os.chdir("d")
        found = find_inputs(tmp_path / "in")
        for _ in range(5000):  # pytest's removal is recursive
            os.chdir("..")
            Path("d").rmdir()
    assert [file.path.name for file in found if file.error is None] == ["z.dcm"]
    (error,) = (file.error for file in found if file.error)
    assert "File name too long" in str(error)


def test_a_bad_file_in_a_deep_folder_is_quarantined(tmp_path: Path) -> None:
    """Recursion ends at a thousand folders, long before the system's limit of a path."""
    (tmp_path / "bad.dcm").write_bytes(b"bad")
    target = tmp_path.joinpath("out", *["d"] * 1100, "bad.dcm")
    quarantine = Quarantine(tmp_path / "q", tmp_path / "out")
    job = Job(tmp_path / "bad.dcm", target)
    quarantine.add(job, NotDicomError("bad"))
    quarantine.remove_stale_temporaries([job])
    folder = tmp_path.joinpath("q", *["d"] * 1100)
    with os_errors_as_output_error(target):
        target.touch()
    assert sorted(path.name for path in folder.iterdir()) == ["bad.dcm", "bad.dcm.reason.json"]
    for path in (folder, target.parent):  # pytest's removal is recursive
        for file in path.iterdir():
            file.unlink()
        for empty in (path, *path.parents[:1100]):
            empty.rmdir()


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        (["*.dcm"], [], ["a.dcm", "b/c.dcm", "b/old/e.dcm"]),
        ([], ["*.txt"], ["a.dcm", "b/c.dcm", "b/old/e.dcm"]),
        ([], ["old"], ["a.dcm", "b/c.dcm", "b/d.txt"]),
        (["b/*"], ["b/old"], ["b/c.dcm", "b/d.txt"]),
        (["?.dcm"], ["b"], ["a.dcm"]),
        (["*.ima"], [], []),
    ],
    ids=str,
)
def test_files_of_a_folder_are_chosen_by_name(
    tmp_path: Path, include: list[str], exclude: list[str], names: list[str]
) -> None:
    for name in ("a.dcm", "b/c.dcm", "b/d.txt", "b/old/e.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_inputs(tmp_path, filters=NameFilter(include, exclude))
    assert [file.relative_path.as_posix() for file in found] == names


@pytest.mark.parametrize("where", ["in", "out"])
def test_a_pipe_stops_nothing(upscaler: Upscaler, inputs: Path, where: str) -> None:
    (inputs.parent / "out").mkdir()
    run(upscaler, inputs)
    name = "9.dcm" if where == "in" else "0.dcm"
    (inputs.parent / where / name).unlink(missing_ok=True)
    os.mkfifo(inputs.parent / where / name)
    results = run(upscaler, inputs)
    assert statuses(results).count(FileStatus.FAILED) == 1
    assert stat.S_ISFIFO((inputs.parent / where / name).lstat().st_mode)


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_what_is_named_as_a_temporary_file_but_is_none_is_kept(tmp_path: Path, kind: str) -> None:
    path, precious = tmp_path / ".cxrsr-x.part", tmp_path / "precious"
    precious.touch()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(precious)
    later = time.time() + 60
    with patch("time.time", lambda: later):
        remove_stale_temporaries(tmp_path)
    assert path.lstat()
    assert precious.exists()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "expected"),
    [(0o644, 0o755, 0o644), (0o600, 0o755, 0o600), (0o640, 0o755, 0o640), (0o644, 0o700, 0o600)],
)
def test_outputs_and_quarantined_copies_are_not_more_readable_than_the_source(
    upscaler: Upscaler, inputs: Path, file_mode: int, folder_mode: int, expected: int
) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    for path in inputs.iterdir():
        path.chmod(file_mode)
    inputs.chmod(folder_mode)
    copies = Quarantine(inputs.parent / "q", inputs.parent / "out")
    run(upscaler, inputs, quarantine=copies)
    assert mode(inputs.parent / "out" / "0.dcm") == expected
    assert mode(inputs.parent / "q" / "1.dcm") == expected


def test_a_link_is_not_copied_to_the_quarantine(upscaler: Upscaler, inputs: Path) -> None:
    secret = inputs.parent / "secret"
    secret.write_bytes(b"root:$6$SECRET")
    (inputs / "9.dcm").symlink_to(secret)
    copies = Quarantine(inputs.parent / "q", inputs.parent / "out")
    result = run(upscaler, inputs, quarantine=copies)[-1]
    assert "the input is a link" in result.record_errors[0]
    assert not list(inputs.parent.rglob("q/*"))


def test_a_file_system_without_modes_is_written_to(upscaler: Upscaler, inputs: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with patch("pathlib.Path.chmod", refuse):
        assert statuses(run(upscaler, inputs)) == [FileStatus.DONE] * COUNT


def test_two_outputs_that_are_one_file_do_not_replace_each_other(
    upscaler: Upscaler, inputs: Path
) -> None:
    """As in a folder that ignores case; a link stands for it here."""
    out = inputs.parent / "out"
    out.mkdir()
    (inputs / "0.dcm").rename(inputs / "A.dcm")
    (inputs / "1.dcm").rename(inputs / "a.dcm")
    other, real = out / "A.dcm", Path.samefile

    def samefile(self: Path, path: Path) -> bool:
        return {self.name.lower(), path.name.lower()} == {"a.dcm"} or real(self, path)

    jobs = [job for job in plan_batch([inputs], out).jobs if job.source.stem in "Aa"]
    with (
        patch("pathlib.Path.samefile", samefile),
        patch("cxrsr_cli.upscaler.check_target", lambda *_, **__: None),
    ):
        results = list(BatchRunner(LocalExecutor(upscaler)).run(jobs))
    assert statuses(results) == [FileStatus.DONE, FileStatus.FAILED]
    assert "are the same file" in str(results[1].error)
    assert [path.name for path in out.iterdir()] == [other.name]
