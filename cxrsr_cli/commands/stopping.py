"""What SIGTERM does: interrupt, or in a batch end after the file in hand."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Stop as Ctrl-C does."""
    raise KeyboardInterrupt


@contextmanager
def stop_between_files() -> Iterator[Callable[[], bool]]:
    """Let a first SIGTERM only be asked for; a second one interrupts.

    Yields
    ------
    callable
        Tells whether it came.
    """
    asked = False

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGTERM, interrupt)

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGTERM, before)
