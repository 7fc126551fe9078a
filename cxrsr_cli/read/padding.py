"""Pixel padding: stored values that mean "no image here" (PS3.3 C.7.5.1.1.2)."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Padding:
    """An inclusive range of stored values.

    Attributes
    ----------
    first, last : int
        From Pixel Padding Value and Pixel Padding Range Limit, in order.
    """

    first: int
    last: int

    @classmethod
    def of(cls, dataset: Dataset) -> Self | None:
        """Read the attributes; None if the object states no padding."""
        value = dataset.get("PixelPaddingValue")
        if not isinstance(value, int):
            return None
        limit = dataset.get("PixelPaddingRangeLimit")
        ends = [value, limit] if isinstance(limit, int) else [value]
        stored = [_as_stored(dataset, end) for end in ends]
        return cls(min(stored), max(stored))

    def mask(self, stored: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return where `stored` is padding."""
        return (stored >= self.first) & (stored <= self.last)


def _as_stored(dataset: Dataset, value: int) -> int:
    """Read a value that vendors write as US though the pixels are signed."""
    signed = dataset.get("PixelRepresentation") == 1
    return value - (1 << 16) if signed and value >= 1 << 15 else value
