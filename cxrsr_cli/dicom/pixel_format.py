"""How stored values sit in the cells of uncompressed pixel data."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cxrsr_cli.errors import UnsupportedImageError

_DEPTHS = range(8, 17)


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How stored values sit in their cells (PS3.5 8.1.1).

    Attributes
    ----------
    bits_allocated, bits_stored, high_bit : int
        As in the object.
    signed : bool
        Pixel Representation 1.
    """

    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Read and check the Image Pixel module.

        Raises
        ------
        UnsupportedImageError
            If the format is illegal or outside 8 to 16 bits.
        """
        fields = ("BitsAllocated", "BitsStored", "PixelRepresentation")
        allocated, stored, representation = (dataset.get(field) for field in fields)
        high = dataset.get("HighBit", (stored or 0) - 1)
        if allocated not in (8, 16) or stored not in _DEPTHS or representation not in (0, 1):
            raise UnsupportedImageError("pixels are not whole numbers of 8 to 16 bits stored")
        if not stored - 1 <= high < allocated:
            raise UnsupportedImageError("High Bit does not fit Bits Stored and Bits Allocated")
        return cls(allocated, stored, high, bool(representation))

    @property
    def minimum(self) -> int:
        """Smallest legal stored value."""
        return -(1 << self.bits_stored - 1) if self.signed else 0

    @property
    def maximum(self) -> int:
        """Largest legal stored value."""
        return (1 << self.bits_stored - self.signed) - 1

    @property
    def cell_dtype(self) -> np.dtype[np.unsignedinteger]:
        """Little-endian cell of one pixel in uncompressed pixel data."""
        return np.dtype("<u2" if self.bits_allocated == 16 else "u1")

    @property
    def dtype(self) -> np.dtype[np.integer]:
        """Smallest type that holds every stored value."""
        return np.dtype(f"{'i' if self.signed else 'u'}{1 if self.bits_stored == 8 else 2}")

    def unpack(self, cells: NDArray[np.integer]) -> NDArray[np.int32]:
        """Take stored values out of cells, whatever the other bits hold."""
        values = cells.astype(np.int32)
        values >>= self.high_bit + 1 - self.bits_stored
        values &= (1 << self.bits_stored) - 1
        if self.signed:
            sign = 1 << self.bits_stored - 1
            values ^= sign
            values -= sign
        return values

    def pack(self, values: NDArray[np.integer]) -> NDArray[np.unsignedinteger]:
        """Put stored values into cells; not copied if they lie in memory as they would there.

        The other bits are zero, but the sign's above values at the bottom of their cells.
        """
        width = self.cell_dtype.itemsize
        extended = values.astype(f"<{'i' if self.signed else 'u'}{width}", copy=False)
        cells: NDArray[np.unsignedinteger] = extended.view(self.cell_dtype)
        shift = self.high_bit + 1 - self.bits_stored
        if shift:
            cells = cells.copy()
            cells &= (1 << self.bits_stored) - 1
            cells <<= shift
        return cells
