"""A log that nobody reads stops nothing: lines wait in memory, and then they are dropped."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxrsr_cli.commands.console import UnblockedStream
from cxrsr_cli.commands.options import Verbosity
from cxrsr_cli.commands.reporters import Message, make_reporter
from tests.conftest import COUNT
from tests.helpers.waiting import wait_until


@pytest.fixture
def full_pipe() -> Iterator[tuple[int, int]]:
    """Make a pipe that holds no byte more, and whose reader does not read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"." * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(writer, True)
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.mark.process
@pytest.mark.parametrize("options", [["-v"], ["--log-json"]])
def test_a_run_ends_although_nobody_reads_its_output(
    inputs: Path, tiny_model: Path, full_pipe: tuple[int, int], options: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cxrsr_cli", "upscale", *options, "-s", "2", "-m", tiny_model,
         "--report", "r.json", "in", "out"],
        check=False, cwd=inputs.parent, stdout=full_pipe[1], stderr=full_pipe[1], timeout=300,
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads((inputs.parent / "r.json").read_text())["counts"]["done"] == COUNT


def read_all(reader: int, sink: bytearray) -> None:
    with os.fdopen(reader, "rb", buffering=0) as file:
        while part := file.read(1 << 16):
            sink += part


def test_lines_that_nobody_reads_are_kept_up_to_a_limit_and_counted(
    full_pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = full_pipe
    stream = UnblockedStream(os.dup(writer), "utf-8")
    monkeypatch.setattr(sys, "stderr", stream)
    reporter = make_reporter(Verbosity.NORMAL, as_json=True)
    for number in range(3000):
        reporter.report(Message("file", "info", {"number": number, "filler": "x" * 1000}))
    assert stream.take_dropped() == 0, "there is no room yet to tell"
    read = bytearray()
    reading = threading.Thread(target=read_all, args=[os.dup(reader), read], daemon=True)
    reading.start()
    wait_until(lambda: not stream._waiting, "the lines are written")
    reporter.report(Message("summary", "info", {}))
    wait_until(lambda: b'"summary"' in read, "the last line is read")
    lines = [json.loads(line) for line in read.lstrip(b".").splitlines()]
    numbers = [line["number"] for line in lines if "number" in line]
    assert numbers == list(range(len(numbers)))
    assert 500 < len(numbers) < 1100
    dropped = next(line for line in lines if line["event"] == "dropped")
    assert dropped["message"] == f"{3000 - len(numbers)} lines were dropped: nobody read them"
    os.close(stream.fileno())


def test_a_descriptor_that_does_not_block_loses_nothing() -> None:
    """Another process can make the terminal so, which both have."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    stream = UnblockedStream(writer, "ascii")
    stream.write("x" * 200_000)
    read = b""
    while len(read) < 200_000:
        read += os.read(reader, 1 << 16)
    stream.drain()
    assert stream.take_dropped() == 0
    os.close(reader)
    os.close(writer)


def test_a_stream_whose_reader_is_gone_drops_everything() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = UnblockedStream(writer, "ascii")
    for _ in range(3):
        stream.write("Röntgen\n")
        stream.drain()
    assert stream.take_dropped() == 0
    os.close(writer)


def test_characters_that_the_encoding_lacks_are_escaped() -> None:
    reader, writer = os.pipe()
    stream = UnblockedStream(writer, "ascii")
    stream.write("Röntgen\udcff\n")
    stream.drain()
    assert os.read(reader, 99) == b"R\\xf6ntgen\\udcff\n"
    os.close(reader)
    os.close(writer)
