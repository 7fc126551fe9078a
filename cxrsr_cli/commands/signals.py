"""What SIGTERM and SIGHUP do: interrupt, or in a batch end after the file in hand."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_ASKING = (signal.SIGTERM, signal.SIGHUP)


def install_interrupt_handlers() -> None:
    """Let the signals that ask for an end do what Ctrl-C does."""
    _handle(_interrupt)


@contextmanager
def graceful_stop() -> Iterator[Callable[[], bool]]:
    """Let a first signal only be asked for; a second one interrupts.

    Yields
    ------
    callable
        Tells whether it came.
    """
    asked = False

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        install_interrupt_handlers()

    _handle(ask)
    try:
        yield lambda: asked
    finally:
        install_interrupt_handlers()


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in _ASKING:
        # nohup has SIGHUP ignored, and means it.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
