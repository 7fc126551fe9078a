"""Reporters show messages and the log; CXRSR_DEBUG shows tracebacks."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxrsr_cli.batch.result import to_reportable_error
from cxrsr_cli.commands.app import TracebackFormatter
from cxrsr_cli.commands.options import Verbosity
from cxrsr_cli.commands.reporters import Message, make_reporter
from cxrsr_cli.common.byte_size import parse_byte_size
from cxrsr_cli.errors import InputError, InternalError, NotDicomError

LOG = logging.getLogger("cxrsr_cli.somewhere")
MESSAGE = Message(
    "file",
    "warning",
    {"number": 1},
    [(Verbosity.NORMAL, "a\nwarning"), (Verbosity.VERBOSE, "a detail")],
)
FAILURE = Message("file", "error", {"number": 2}, [(Verbosity.QUIET, "a failure")])
SUMMARY = Message("summary", "info", {"number": 3}, [(Verbosity.NORMAL, "a summary")])


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[logging.Logger]:
    """Restore the logger of the package."""
    logger = logging.getLogger("cxrsr_cli")
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.mark.parametrize(
    ("verbosity", "stdout", "stderr"),
    [
        (Verbosity.QUIET, "", "a failure\n"),
        (Verbosity.NORMAL, "a summary\n", "a\ufffdwarning\na failure\n"),
        (Verbosity.VERBOSE, "a summary\n", "a\ufffdwarning\na detail\na failure\n"),
    ],
)
@pytest.mark.parametrize("show_bar", [False, True])
def test_text_shows_the_lines_of_its_verbosity(
    verbosity: Verbosity,
    stdout: str,
    stderr: str,
    show_bar: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reporter = make_reporter(verbosity, as_json=False, show_bar=show_bar)
    with reporter.progress(2, "file") as advance:
        for message in (MESSAGE, FAILURE, SUMMARY):
            reporter.report(message)
        advance(1)
    shown = capsys.readouterr()
    assert shown.out == stdout
    lines = [line.rpartition("\r")[2] for line in shown.err.splitlines()]
    assert [line for line in lines if line.startswith("a")] == stderr.splitlines()
    assert ("file" in shown.err) is show_bar


@pytest.mark.parametrize(
    ("verbosity", "numbers"), [(Verbosity.QUIET, [2]), (Verbosity.NORMAL, [1, 2, 3])]
)
def test_json_shows_facts_on_stderr_only(
    verbosity: Verbosity, numbers: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = make_reporter(verbosity, as_json=True)
    for message in (MESSAGE, FAILURE, SUMMARY):
        reporter.report(message)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [json.loads(line)["number"] for line in shown.err.splitlines()] == numbers


@pytest.mark.parametrize("as_json", [False, True])
def test_verbose_shows_the_log_without_tracebacks(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    make_reporter(Verbosity.VERBOSE, as_json=as_json)
    LOG.info("retry %d of 2", 1)
    LOG.warning("a warning", exc_info=ValueError("Doe^Jane"))
    LOG.debug("a detail")
    lines = capsys.readouterr().err.splitlines()
    if as_json:
        facts = [json.loads(line) for line in lines]
        assert {(one["event"], one["logger"]) for one in facts} == {("log", LOG.name)}
        lines = [f"{one['level']}: {one['message']}" for one in facts]
    assert lines == ["info: retry 1 of 2", "warning: a warning"]


def test_the_log_is_silent_without_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    make_reporter(Verbosity.NORMAL, as_json=False)
    LOG.info("a line")
    assert capsys.readouterr().err == ""


@pytest.mark.process
def test_the_library_writes_nothing_by_itself() -> None:
    code = "import cxrsr_cli, logging; logging.getLogger('cxrsr_cli.x').critical('a line')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout + done.stderr == ""


@pytest.mark.process
@pytest.mark.parametrize("options", [[], ["--log-json"]])
def test_cxrsr_debug_shows_the_traceback_of_the_error_that_ends_the_command(
    options: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "cxrsr_cli", "upscale", *options, "missing", "out"]
    shown = {}
    for debug in ("0", "1"):
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "CXRSR_DEBUG": debug},
        )
        assert done.returncode == 3
        assert "no file or folder missing" in done.stderr
        shown[debug] = "Traceback (most recent call last)" in done.stderr
    assert shown == {"0": False, "1": True}


def test_the_traceback_of_a_file_that_failed_is_logged_for_debugging_only(
    root_logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    root_logger.setLevel(logging.DEBUG)
    error = NotDicomError("not a DICOM file")
    assert to_reportable_error(error) is error
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.exc_info
    assert record.exc_info[1] is error


def test_an_internal_error_names_type_and_place_but_no_value() -> None:
    with pytest.raises(ValueError, match="Doe") as caught:
        parse_byte_size("Doe^Jane")
    message = str(InternalError.of(caught.value))
    assert message.startswith("internal error: ValueError in common/byte_size.py, line ")
    assert message.endswith("; please report it, with CXRSR_DEBUG=1 for the traceback")
    assert "Doe" not in message


def test_an_internal_error_outside_the_package_names_the_file() -> None:
    with pytest.raises(KeyError) as caught:
        os.environ["CXRSR_NO_SUCH_VARIABLE"]
    message = str(InternalError.of(caught.value))
    assert message.startswith("internal error: KeyError in ")
    assert os.sep not in message.partition(",")[0]


def test_a_traceback_has_no_text_of_a_library() -> None:
    formatter = TracebackFormatter()
    try:
        try:
            raise ValueError("Example^Patient")
        except ValueError as error:
            raise InputError("damaged DICOM") from error
    except InputError:
        text = formatter.formatException(sys.exc_info())
    assert "Example^Patient" not in text.replace('raise ValueError("Example^Patient")', "")
    assert "ValueError\n" in text
    assert text.endswith("InputError: damaged DICOM")
