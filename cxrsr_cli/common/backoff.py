"""When something that failed is tried again."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Waiting twice as long after each failure, up to a bound, so many times.

    Attributes
    ----------
    first, longest : float
        Seconds.
    attempts : int
        Of an output at each destination, and of upscaling after trouble with memory or
        disk; by default more than four days of them, so that a long weekend's failure of
        an archive loses nothing.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    initial_delay: float = 10.0
    max_delay: float = 3600.0
    max_attempts: int = 110

    def __post_init__(self) -> None:
        """Refuse what would never wait, or never try."""
        if not (0 < self.initial_delay <= self.max_delay < math.inf and self.max_attempts >= 1):
            raise ValueError("needs 0 < first <= longest, both finite, and attempts of at least 1")

    def delay_after(self, attempts: int) -> float | None:
        """Return seconds to wait after so many attempts; None to give up."""
        if attempts >= self.max_attempts:
            return None
        doublings = min(attempts - 1, 64)
        return min(self.max_delay, self.initial_delay * 2.0**doublings)
