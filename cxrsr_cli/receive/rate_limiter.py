"""How often a peer may come."""

import threading
import time
from collections import deque

_WINDOW = 60.0
_MANY = 1024


class RateLimiter:
    """Counts associations of the last minute.

    Parameters
    ----------
    per_minute : int or None
        How many one peer may open; None for any number.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._opened: dict[tuple[str, str], deque[float]] = {}

    def allow(self, peer: tuple[str, str]) -> bool:
        """Tell whether a peer may open one more association now, and count it if so."""
        if self._per_minute is None:
            return True
        now = time.monotonic()
        with self._lock:
            if len(self._opened) > _MANY:
                self._forget(now)
            opened = self._opened.setdefault(peer, deque())
            while opened and opened[0] <= now - _WINDOW:
                opened.popleft()
            if len(opened) >= self._per_minute:
                return False
            opened.append(now)
            return True

    def _forget(self, now: float) -> None:
        for peer in [p for p, opened in self._opened.items() if opened[-1] <= now - _WINDOW]:
            del self._opened[peer]
