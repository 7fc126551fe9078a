"""Pixel Data that pydicom writes piece by piece, over an image that is in memory once."""

import io
import os
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from cxrsr_cli.dicom.pixel_format import PixelFormat

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PIECE = 1 << 20


class PixelDataStream(io.BufferedReader):
    """The cells of stored values, as the value of an element (PS3.5 8.1.1 and 8.2).

    Parameters
    ----------
    values : numpy.ndarray
        Contiguous stored values of any shape and integer type, inside the legal
        range. They are not copied, and must not be changed while this is in use.
    pixel_format : PixelFormat
        Where in a cell a value lies.

    Notes
    -----
    pydicom takes a buffer for a value, asks for a few kilobytes at a time and
    states the length that it finds, so a byte that makes the length even is
    part of it. A deep copy is one, of the values too.
    """

    def __init__(self, values: NDArray[np.integer], pixel_format: PixelFormat) -> None:
        super().__init__(_RawPixelDataStream(values, pixel_format), _PIECE)
        self._values, self._pixel_format = values, pixel_format

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Copy the values and the position; pydicom copies objects this way."""
        copied = type(self)(self._values.copy(), self._pixel_format)
        copied.seek(self.tell())
        return copied


class _RawPixelDataStream(io.RawIOBase):
    """What `PixelDataStream` buffers: cells are made as they are read."""

    def __init__(self, values: NDArray[np.integer], pixel_format: PixelFormat) -> None:
        super().__init__()
        self._values, self._pixel_format = np.ravel(values), pixel_format
        length = self._values.size * pixel_format.cell_dtype.itemsize
        self._length, self._position = length + length % 2, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        if origin + offset < 0:
            raise ValueError("before the beginning")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        place = memoryview(buffer).cast("B")
        width = self._pixel_format.cell_dtype.itemsize
        start = self._position
        stop = min(start + min(len(place), _PIECE), self._length)
        if stop <= start:
            return 0
        values = self._values[start // width : -(-stop // width)]
        cells = self._pixel_format.pack(values).view(np.uint8)[start % width :][: stop - start]
        place[: len(cells)] = cells.data
        place[len(cells) : stop - start] = bytes(stop - start - len(cells))
        self._position = stop
        return stop - start
