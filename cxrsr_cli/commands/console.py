"""The terminal and its signals: lines on stdout and stderr, and what SIGTERM and SIGHUP do."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TextIO

import typer

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


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
    """Open the standard streams that are closed, on the null device.

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


def install_interrupt_handlers() -> None:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does.

    This holds in every command, except in a run within `graceful_stop`.
    """
    _handle_stop_signals(_interrupt)


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

    _handle_stop_signals(request)
    try:
        yield lambda: is_requested
    finally:
        install_interrupt_handlers()


def _handle_stop_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in _STOP_SIGNALS:
        # nohup ignores SIGHUP, and a command that it starts must keep that.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
