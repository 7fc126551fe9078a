"""Wait for what must happen: a bound that a slow machine keeps, and only a hang misses."""

import time
from collections.abc import Callable

HANG_SECONDS = 300.0
"""After this long, what is waited for does not happen."""


def wait_until(
    is_true: Callable[[], object], what: str, seconds: float = HANG_SECONDS, pause: float = 0.05
) -> None:
    """Ask again and again until the answer is true; fail after `seconds` and say `what`."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(pause)
