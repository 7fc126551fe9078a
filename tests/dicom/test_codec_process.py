"""Whatever a codec does on damaged data, only the file fails."""

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, JPEGLSLossless, RLELossless

from cxrsr_cli.dicom import codec_process
from cxrsr_cli.dicom.codec_process import CodecError, CodecProcess, CodecRequest
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import MemoryLimitError, NotDicomError, UndecodablePixelDataError
from tests.conftest import small_chest
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def values() -> NDArray[np.uint16]:
    return small_chest().pixel_array


@pytest.fixture(scope="module")
def request_of(values: NDArray[np.uint16]) -> Callable[..., CodecRequest]:
    """Make a request to decode a JPEG-LS frame, or what is given instead."""
    dataset = small_chest()
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1)).rstrip(b"\0")
    options: dict[str, Any] = {
        "rows": 24, "columns": 20, "number_of_frames": 1, "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2", "bits_allocated": 16, "bits_stored": 12,
        "pixel_representation": 0, "pixel_keyword": "PixelData",
    }  # fmt: skip

    def make(
        change: Callable[[bytes], bytes] = bytes, syntax: UID = JPEGLSLossless
    ) -> CodecRequest:
        return CodecRequest(syntax, options, change(stream), 24 * 20)

    return make


@pytest.fixture
def codecs() -> Iterator[CodecProcess]:
    process = CodecProcess()
    yield process
    process.close()


def decoded(codecs: CodecProcess, request: CodecRequest) -> NDArray[np.uint16]:
    response, data = codecs.run(request)
    return np.frombuffer(data, response["dtype"]).reshape(24, 20)


def test_threads_share_the_process(
    codecs: CodecProcess, request_of: Callable[..., CodecRequest], values: NDArray[np.uint16]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: decoded(codecs, request_of()), range(20)))
    assert all(np.array_equal(result, values) for result in results)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name
)
def test_a_signal_to_the_process_loses_no_file(
    codecs: CodecProcess,
    request_of: Callable[..., CodecRequest],
    values: NDArray[np.uint16],
    number: int,
) -> None:
    """One that it ignores, or one that ends it; then it is started again."""
    codecs.run(request_of())
    assert codecs._process
    os.kill(codecs._process.pid, number)
    assert np.array_equal(decoded(codecs, request_of()), values)


def test_a_process_that_is_killed_again_is_no_damage(
    codecs: CodecProcess, request_of: Callable[..., CodecRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system kills when memory is short: the file is not put into quarantine."""
    command = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(codec_process, "_COMMAND", command)
    with pytest.raises(MemoryLimitError, match="killed twice"):
        codecs.run(request_of())


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("import os; os.abort()", "crashed, SIGABRT"),
        ("raise SystemExit(3)", "crashed, exit code 3"),
        ("while True: pass", "took more than 5 s"),
    ],
)
def test_a_crash_or_a_hang_fails_the_frame_alone(
    codecs: CodecProcess,
    request_of: Callable[..., CodecRequest],
    values: NDArray[np.uint16],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    says: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(codec_process, "_COMMAND", command)
        patch.setattr(codec_process, "_WALL_SECONDS_PER_CPU_SECOND", 0.2)
        with pytest.raises(CodecError, match=says):
            codecs.run(request_of())
    assert np.array_equal(decoded(codecs, request_of()), values)


def test_a_codec_that_takes_too_long_is_stopped(
    codecs: CodecProcess, request_of: Callable[..., CodecRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CharLS works for many seconds on a frame of 24x20 pixels that lost its end."""
    monkeypatch.setattr(codec_process, "_BASE_CPU_SECONDS", 0)
    with pytest.raises(CodecError, match="took more than 0 s"):
        codecs.run(request_of(lambda stream: stream[: len(stream) // 2]))


def test_a_codec_gets_no_more_memory_than_its_image_needs(
    codecs: CodecProcess, request_of: Callable[..., CodecRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame of black pixels is small, whatever its size is."""
    monkeypatch.setattr(codec_process, "_BASE_MEMORY_BYTES", 0)
    monkeypatch.setattr(codec_process, "_MEMORY_BYTES_PER_PIXEL", 1)
    side = 4096
    segment = bytes([129, 0]) * (side * side // 128)
    frame = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13) + 2 * segment
    request = request_of(lambda _: frame, RLELossless)
    options = request.options | {"rows": side, "columns": side}
    with pytest.raises(CodecError, match="more than 18 MiB of memory"):
        codecs.run(replace(request, options=options, pixels=side * side))


def test_an_exception_of_any_kind_is_an_answer(
    codecs: CodecProcess, request_of: Callable[..., CodecRequest]
) -> None:
    """Also the panic of a codec that is written in Rust."""
    with pytest.raises(CodecError):
        codecs.run(request_of(lambda _: bytes([1]) + bytes(63) + bytes([129, 0]) * 99, RLELossless))
    process = codecs._process
    codecs.run(request_of())
    assert codecs._process is process


def test_the_process_imports_no_torch() -> None:
    code = "import sys, cxrsr_cli.dicom.codec_worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


_ENDLESS = """
import sys
from tests.dicom.test_codec_process import *
codec_process._BASE_CPU_SECONDS = 600
codecs = CodecProcess()
codecs.run(CodecRequest(**eval(sys.stdin.readline())))
print(codecs._process.pid, flush=True)
codecs.run(CodecRequest(**eval(sys.stdin.readline())))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux")
def test_the_process_dies_with_its_parent_even_inside_a_codec(
    request_of: Callable[..., CodecRequest],
) -> None:
    requests = (request_of(), request_of(lambda stream: stream[: len(stream) // 2]))
    fields = ("syntax", "options", "data", "pixels")
    with subprocess.Popen(
        [sys.executable, "-c", _ENDLESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin
        assert parent.stdout
        for request in requests:
            print({f: getattr(request, f) for f in fields}, file=parent.stdin, flush=True)
        child = Path(f"/proc/{int(parent.stdout.readline())}")
        ticks = _cpu_ticks(child)
        wait_until(lambda: _cpu_ticks(child) > ticks + 10, "the codec works")
        parent.kill()
        ticks = _cpu_ticks(child)
        while _is_running(child):
            # The frame would take several more seconds.
            assert _cpu_ticks(child) < ticks + 2 * os.sysconf("SC_CLK_TCK")
            time.sleep(0.01)


def _cpu_ticks(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[11])
    except OSError:
        return 0


def _is_running(process: Path) -> bool:
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except OSError:
        return False


def test_messages_of_codecs_do_not_reach_stderr(
    tmp_path: Path, shared: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a log they would be no JSON."""
    with pytest.raises(UndecodablePixelDataError, match="pixels are missing"):
        decode(read_source(shared / "cases" / "jpeg_half_then_eoi.dcm"))
    assert capfd.readouterr() == ("", "")


def test_a_frame_may_have_an_offset_for_each_fragment(tmp_path: Path) -> None:
    """All fragments of a single frame belong to it (PS3.5 A.4)."""
    dataset = small_chest()
    expected = dataset.pixel_array.astype(np.int32)
    dataset.compress(RLELossless, generate_instance_uid=False)
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    half = len(stream) // 4 * 2
    dataset.PixelData = encapsulate([stream[:half], stream[half:]])
    dataset.save_as(tmp_path / "in.dcm")
    assert np.array_equal(decode(read_source(tmp_path / "in.dcm"))[0], expected)


def test_too_many_fragments_are_refused(tmp_path: Path) -> None:
    dataset = small_chest()
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.PixelData += bytes.fromhex("feff00e000000000") * (1 << 17)
    dataset.save_as(tmp_path / "in.dcm")
    with pytest.raises(NotDicomError, match="more than 65536 elements, items and fragments"):
        read_source(tmp_path / "in.dcm")
