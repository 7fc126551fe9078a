"""Run codecs in a process of their own, so that damaged data cannot end, stop or fill this one.

The codecs are written in C, C++ and Rust. On damaged data they may abort, loop, or take all
memory, and while they run no other Python thread does. So one process for all threads decodes
compressed frames, within limits of memory and time (`codec_worker`). It starts with the first
frame, and again after it ended. Encoders work on pixels that are known to be right, in this
process.

It is a new interpreter that imports no torch: a fork would copy the locks of other threads and
the memory of the model, and `multiprocessing` would run the main module again and is not allowed
in the workers of Dask.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydicom.uid import UID

from cxrsr_cli.dicom.codec_worker import read_message, write_message
from cxrsr_cli.errors import MemoryLimitError

_COMMAND = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from cxrsr_cli.dicom.codec_worker import main; main(int(sys.argv[2]))"
)
# JPEG 2000, the most demanding syntax, takes half of this memory and a twentieth of this time.
_BASE_MEMORY_BYTES = 128 << 20
_MEMORY_BYTES_PER_PIXEL = 48
_BASE_CPU_SECONDS = 5
_CPU_SECONDS_PER_MEGAPIXEL = 5
_WALL_SECONDS_PER_CPU_SECOND = 60
"""On a machine that does much other work. Only a codec that sleeps for ever reaches it."""

_OUTSIDE_SIGNALS = {-number for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM,
                                           signal.SIGHUP)}  # fmt: skip
"""Return codes of a process that was ended from outside; no codec raises these signals."""


class CodecError(Exception):
    """A codec failed; the text says how, without patient data."""


@dataclass(frozen=True, slots=True)
class CodecRequest:
    """One compressed frame, of one sample per pixel, to decode.

    Attributes
    ----------
    syntax : pydicom.uid.UID
        A compressed transfer syntax.
    options : dict
        Of pydicom's decoder.
    data : bytes or memoryview
        The compressed frame.
    pixels : int
        Rows times columns.
    """

    syntax: UID
    options: dict[str, Any]
    data: bytes
    pixels: int

    @property
    def cpu_seconds(self) -> int:
        """CPU time that it may take."""
        return _BASE_CPU_SECONDS + _CPU_SECONDS_PER_MEGAPIXEL * self.pixels // 1_000_000

    @property
    def memory(self) -> int:
        """Bytes that it may allocate."""
        return _BASE_MEMORY_BYTES + _MEMORY_BYTES_PER_PIXEL * self.pixels + 4 * len(self.data)

    @property
    def header(self) -> dict[str, Any]:
        """All but the data."""
        return {
            "syntax": self.syntax,
            "options": self.options,
            "cpu_seconds": self.cpu_seconds,
            "memory": self.memory,
        }


class CodecProcess:
    """The process. Threads may share it; one waits for the other."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._has_timed_out = False

    def run(self, request: CodecRequest) -> tuple[dict[str, Any], bytearray]:
        """Return the header of the response to a request, and its data.

        Raises
        ------
        CodecError
            If the codec raised an exception, crashed, or took more memory or time than it may.
        MemoryLimitError
            If the process was killed twice, as the system does when memory is short.
        """
        with self._lock:
            response = self._ask(request) or self._ask(request)
        if response is None:
            raise MemoryLimitError(
                "the process of the codecs was killed twice; the machine may lack memory"
            )
        header, data = response
        if error := header.get("error"):
            if "MemoryError" in error:
                error = f"the codec needs more than {request.memory >> 20} MiB of memory"
            raise CodecError(error)
        return header, data

    def close(self) -> None:
        """End the process; the next request starts another one."""
        if self._process:
            self._end(self._process, kill=True)

    def forget(self) -> None:
        """Leave the process to the one from which this one was forked."""
        if self._process:
            os.close(self._lifeline)
        self._reset()

    def _ask(self, request: CodecRequest) -> tuple[dict[str, Any], bytearray] | None:
        """Ask once; None if the process was killed from outside."""
        process = self._process or self._start()
        timer = threading.Timer(
            _WALL_SECONDS_PER_CPU_SECOND * request.cpu_seconds, self._time_out, [process]
        )
        timer.daemon = True
        timer.start()
        try:
            write_message(cast("BinaryIO", process.stdin), request.header, request.data)
            return read_message(cast("BufferedReader", process.stdout))
        except (EOFError, BrokenPipeError):
            code = self._end(process)
        except BaseException:
            # The rest of the response would be taken for the next one.
            self._end(process, kill=True)
            raise
        finally:
            timer.cancel()
        if self._has_timed_out or code == -signal.SIGXCPU:
            raise CodecError(f"the codec took more than {request.cpu_seconds} s")
        if code in _OUTSIDE_SIGNALS:
            return None
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise CodecError(f"the codec crashed, {name}")

    def _start(self) -> "subprocess.Popen[bytes]":
        reader, writer = os.pipe()
        paths = json.dumps([str(Path(path).absolute()) for path in sys.path])
        try:
            # Without -P the current folder could bring modules that this process does not use.
            self._process = subprocess.Popen(  # noqa: S603 - this program
                [sys.executable, "-P", "-c", _COMMAND, paths, str(reader)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(reader,),
                process_group=0,  # Ctrl-C is for this process
            )
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        self._lifeline, self._has_timed_out = writer, False
        return self._process

    def _time_out(self, process: "subprocess.Popen[bytes]") -> None:
        self._has_timed_out = True
        process.kill()

    def _end(self, process: "subprocess.Popen[bytes]", *, kill: bool = False) -> int:
        """Forget the process, which ended or is killed; return its return code."""
        if kill:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                cast("BinaryIO", pipe).close()
        os.close(self._lifeline)
        self._process = None
        return process.wait()


CODECS = CodecProcess()
"""The one that this process uses."""
atexit.register(CODECS.close)
os.register_at_fork(after_in_child=CODECS.forget)
