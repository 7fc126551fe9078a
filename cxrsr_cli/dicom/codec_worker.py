"""The process in which codecs run: it answers one request after the other (`codec_process`)."""

import fcntl
import json
import os
import resource
import signal
import struct
import sys
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.encaps import encapsulate
from pydicom.uid import UID

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.codecs import DAMAGE_MESSAGES, find_decoder

_LENGTHS = struct.Struct(">QQ")
"""Bytes of the JSON header and of the data that follow it, in requests and responses."""
_MAX_MESSAGE_BYTES = 1 << 16
_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def write_message(file: BinaryIO, header: dict[str, Any], data: bytes | bytearray) -> None:
    """Write a request or a response."""
    encoded = json.dumps(header).encode()
    file.write(_LENGTHS.pack(len(encoded), len(data)))
    file.write(encoded)
    file.write(data)
    file.flush()


def read_message(file: BufferedReader) -> tuple[dict[str, Any], bytearray]:
    """Read a request or a response; EOFError if the other process ended."""
    header_length, data_length = _LENGTHS.unpack(_read(file, _LENGTHS.size))
    return json.loads(_read(file, header_length)), _read(file, data_length)


def _read(file: BufferedReader, length: int) -> bytearray:
    data = bytearray(length)
    view, done = memoryview(data), 0
    while done < length:
        count = file.readinto(view[done:])
        if not count:
            raise EOFError
        done += count
    return data


def main(lifeline: int) -> None:
    """Answer requests on stdin until the other process closes it or ends.

    Parameters
    ----------
    lifeline : int
        Descriptor of a pipe whose other end only the other process has.
    """
    # The other process decides what a signal to the group does. It ends this one.
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _end_with(lifeline)
    # A core file would hold a patient's pixels.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, responses = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    messages = _capture_messages()
    with quiet_libraries():
        while True:
            try:
                request, data = read_message(requests)
            except EOFError:
                return
            response, result = _respond(request, data)
            said = b""
            with suppress(BlockingIOError):
                said = os.read(messages, _MAX_MESSAGE_BYTES)
            response["damaged"] = any(message in said for message in DAMAGE_MESSAGES)
            write_message(responses, response, result)


def _end_with(lifeline: int) -> None:
    """Have the system end this process when the other one ends, even inside a codec.

    Nothing is ever written to the pipe, so the signal comes when the other end is closed.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    try:
        if not os.read(lifeline, 1):
            sys.exit()
    except BlockingIOError:
        pass


def _capture_messages() -> int:
    """Return a descriptor from which the messages of codecs on stdout and stderr can be read.

    What does not fit is lost.
    """
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        os.set_blocking(descriptor, False)
    for stream in (1, 2):
        os.dup2(writer, stream)
    os.close(writer)
    return reader


def _respond(request: dict[str, Any], data: bytearray) -> tuple[dict[str, Any], bytes]:
    _limit(resource.RLIMIT_CPU, _used_cpu_seconds() + request["cpu_seconds"])
    _limit(resource.RLIMIT_AS, _used_address_space() + request["memory"])
    # On damaged data codecs raise any exception, with header values in its text. A panic of a
    # codec written in Rust is not even an Exception.
    try:
        return decode(UID(request["syntax"]), request["options"], bytes(data))
    except BaseException as error:
        return {"error": type(error).__name__}, b""
    finally:
        _limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)


def decode(syntax: UID, options: dict[str, Any], stream: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the type and the number of a frame's pixels, and their bytes."""
    # pydicom's correction of unused bits wraps the overshoot of lossy codecs and ignores High Bit.
    options["correct_unused_bits"] = False
    array, _ = find_decoder(syntax).as_array(
        encapsulate([stream], has_bot=False), raw=True, **options
    )
    return {"dtype": array.dtype.str, "size": array.size}, array.tobytes()


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = hard if value == resource.RLIM_INFINITY else min(value, hard)
    with suppress(ValueError, OSError):  # some systems do not limit address space
        resource.setrlimit(kind, (value, hard))


def _used_cpu_seconds() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return int(usage.ru_utime + usage.ru_stime) + 1


def _used_address_space() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()
