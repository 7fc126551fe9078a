"""The terminal and its signals: lines on stdout and stderr, and what SIGTERM and SIGHUP do."""

import atexit
import io
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn, TextIO

import typer

from cxrsr_cli.errors import ExitCode

_MAX_WAITING_BYTES = 1 << 20
"""Bytes that wait for the reader of a stream. A pipe itself holds 64 KiB more."""
_DRAIN_TIMEOUT_SECONDS = 5.0
"""Seconds that the end of the process waits for the reader."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_MAX_END_SECONDS = 1.5
"""After a second signal, whatever is done then. What it leaves is removed by the next run."""


class UnblockedStream(io.TextIOBase):
    """A text stream on a descriptor that never keeps a writer waiting.

    Lines wait in memory, up to a limit, for a thread that writes them. What exceeds the limit is
    dropped and counted. After an error everything is dropped.

    Parameters
    ----------
    descriptor : int
        Such as 2.
    encoding : str
        Characters that it lacks are written as escapes.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor, self._encoding = descriptor, encoding
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """Begin without a thread, and without the lines that another process writes."""
        self._waiting, self._waiting_bytes = deque[bytes](), 0
        self._dropped, self._is_broken = 0, False
        # Reentrant: a signal handler may write while this thread does.
        self._change = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override] # a property of this stream as well
        """Of the descriptor's bytes."""
        return self._encoding

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether the descriptor is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str, /) -> int:
        """Take a text to write."""
        data = text.encode(self._encoding, "backslashreplace")
        with self._change:
            if self._waiting_bytes + len(data) > _MAX_WAITING_BYTES:
                self._dropped += 1
            elif not self._is_broken:
                self._waiting.append(data)
                self._waiting_bytes += len(data)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._write_waiting, daemon=True)
                    self._thread.start()
                self._change.notify_all()
        return len(text)

    def take_dropped(self) -> int:
        """Return how many texts were dropped since the last call, once there is room again."""
        with self._change:
            if self._waiting_bytes > _MAX_WAITING_BYTES // 2:
                return 0
            dropped, self._dropped = self._dropped, 0
            return dropped

    def drain(self) -> None:
        """Wait a few seconds until everything is written."""
        with self._change:
            self._change.wait_for(lambda: not self._waiting, _DRAIN_TIMEOUT_SECONDS)

    def _write_waiting(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting)
                data = self._waiting[0]
            try:
                written = os.write(self._descriptor, data)
            except BlockingIOError:  # made so by another process that has the same terminal
                select.select([], [self._descriptor], [])
                continue
            except OSError:
                written = 0
            with self._change:
                self._waiting_bytes -= written
                if written == len(data):
                    self._waiting.popleft()
                elif written:
                    self._waiting[0] = data[written:]
                else:
                    self._is_broken, self._waiting_bytes = True, 0
                    self._waiting.clear()
                self._change.notify_all()


def dropped_lines() -> int:
    """Return how many lines on stderr were dropped since the last call because nobody read them."""
    return sys.stderr.take_dropped() if isinstance(sys.stderr, UnblockedStream) else 0


def drain_stderr() -> None:
    """Wait a few seconds until what was written to stderr is read."""
    if isinstance(sys.stderr, UnblockedStream):
        sys.stderr.drain()


def print_summary(line: str) -> None:
    """Write the last line to stdout; wait a few seconds only if nobody reads it."""
    if not isinstance(sys.stderr, UnblockedStream):  # the streams are the caller's
        print_line(line)
        return
    stream = UnblockedStream(1, sys.stdout.encoding)
    stream.write(replace_unprintable(line) + "\n")
    stream.drain()


def print_line(line: str, *, err: bool = False) -> None:
    """Write a line to stdout or stderr; after an error the stream is ignored."""
    try:
        typer.echo(replace_unprintable(line), err=err)
    except OSError:
        redirect_to_devnull(sys.stderr if err else sys.stdout)


def replace_unprintable(line: str) -> str:
    """Replace characters that do not print: a file name could forge lines with them."""
    return "".join(char if char.isprintable() else "\ufffd" for char in line)


def redirect_to_devnull(stream: TextIO) -> None:
    """Discard whatever is written to a stream from now on."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)


def ensure_standard_streams() -> None:
    """Open the standard streams that are closed, on the null device; let stderr stop nothing.

    If stderr were closed, the next opened file would get its descriptor, and
    warnings of libraries would be written into that file.
    """
    while (devnull := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(devnull)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", closefd=False))
        getattr(sys, name).reconfigure(errors="backslashreplace")
    stream = UnblockedStream(2, sys.stderr.encoding)
    sys.stderr = stream
    atexit.register(stream.drain)


def end_on_second_signal() -> None:
    """From now on, end the process soon after a second signal that asks to end.

    The main thread may wait for a thread that hangs, and Python's handlers run in no other one. So
    the system's handler wakes a thread of ours.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    # Each process counts its own signals: Ctrl-C goes to all.
    os.register_at_fork(after_in_child=_forget_wakeup)
    threading.Thread(target=_end_after_second_signal, args=[reader], daemon=True).start()


def _forget_wakeup() -> None:
    with suppress(ValueError):  # not the main thread, which has none then
        signal.set_wakeup_fd(-1)


def _end_after_second_signal(reader: int) -> None:
    count = 0
    while count < 2:
        count += os.read(reader, 1)[0] in (signal.SIGINT, *_STOP_SIGNALS)
    time.sleep(_MAX_END_SECONDS)
    os._exit(ExitCode.INTERRUPTED)


def install_interrupt_handlers() -> None:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does.

    This holds in every command, except in a run within `graceful_stop`.
    """
    _handle_signals(_interrupt)


@contextmanager
def graceful_stop() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM or SIGHUP came; a second one interrupts.

    A run over many files then finishes the files in hand (`commands.run`).
    """
    is_requested = False

    def request(_signal: int, _frame: FrameType | None) -> None:
        nonlocal is_requested
        is_requested = True
        install_interrupt_handlers()

    _handle_signals(request)
    try:
        yield lambda: is_requested
    finally:
        install_interrupt_handlers()


def _handle_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in _STOP_SIGNALS:
        # nohup ignores SIGHUP, and a command that it starts must keep that.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
