"""Exponential backoff: how long to wait before the next attempt, and how many there are."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Wait before each retry; the wait doubles after each failure, up to a limit.

    Attributes
    ----------
    initial_delay, max_delay : float
        First and longest wait in seconds.
    max_attempts : int
        Attempts before giving up. The default covers more than four days, so that
        a failure over a long weekend loses nothing.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    initial_delay: float = 10.0
    max_delay: float = 3600.0
    max_attempts: int = 110

    def __post_init__(self) -> None:
        """Raise ValueError for delays that are not positive and finite, or no attempt."""
        if not 0 < self.initial_delay <= self.max_delay < math.inf:
            raise ValueError("needs 0 < initial_delay <= max_delay < infinity")
        if self.max_attempts < 1:
            raise ValueError("max_attempts must be at least 1")

    def delay_after(self, attempts: int) -> float | None:
        """Return the seconds to wait after this many attempts; None to give up."""
        if attempts >= self.max_attempts:
            return None
        doublings = min(attempts - 1, 64)
        return min(self.max_delay, self.initial_delay * 2.0**doublings)
