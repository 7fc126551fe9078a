"""Images as compressed tiles at several resolutions, which a browser decodes without loss."""

import base64
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TILE_PIXELS = 512
"""Side of a tile."""
LEVEL_STEP = 2
"""Every such level is kept, and the coarsest: the finer ones between would take most of a page."""
FIRST_VIEW_PIXELS = 2048
"""Longer side of the coarsest level at most, which a browser shows first; few screens have more."""
_COMPRESSION = 4
_LARGEST = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of an image at one level.

    Attributes
    ----------
    level, row, column : int
        Level 0 has the image's own pixels; the others have means of blocks of ``2**level`` of
        them. Row and column count tiles.
    data : str
        Base64 of a zlib stream, as `encode_tile` makes it.
    """

    level: int
    row: int
    column: int
    data: str


def levels(rows: int, columns: int) -> list[int]:
    """Return the levels of an image, coarsest first."""
    level = 0
    while max(rows, columns) > FIRST_VIEW_PIXELS << level:
        level += 1
    return [level, *(finer for finer in range(level - 1, -1, -1) if finer % LEVEL_STEP == 0)]


def means(values: NDArray[np.generic], side: int) -> NDArray[np.float32]:
    """Return means of blocks; the last row and column are repeated to fill the last blocks."""
    (rows, columns) = values.shape
    height, width = -(-rows // side), -(-columns // side)
    result = np.empty((height, width), np.float32)
    for row in range(height):
        strip = values[row * side : (row + 1) * side].astype(np.float32)
        margin = ((0, side - len(strip)), (0, width * side - columns))
        filled = np.pad(strip, margin, "edge")
        result[row] = filled.reshape(side, width, side).mean((0, 2), dtype=np.float64)
    return result


def tiles(values: NDArray[np.generic], level: int, minimum: int, maximum: int) -> Iterator[Tile]:
    """Yield the tiles of one level of an image.

    Parameters
    ----------
    values : numpy.ndarray
        ``(H, W)`` stored values.
    level : int
        One of `levels`.
    minimum, maximum : int
        Legal stored values. Means are kept in whole parts of a stored unit, as many as fit.
    """
    if level:
        values = means(values, 1 << level)
    steps = steps_of_unit(level, minimum, maximum)
    for row in range(0, values.shape[0], TILE_PIXELS):
        for column in range(0, values.shape[1], TILE_PIXELS):
            part = values[row : row + TILE_PIXELS, column : column + TILE_PIXELS]
            stepped = np.floor((part.astype(np.float64) - minimum) * steps + 0.5)
            data = encode_tile(stepped.astype(np.int32))
            yield Tile(level, row // TILE_PIXELS, column // TILE_PIXELS, data)


def steps_of_unit(level: int, minimum: int, maximum: int) -> int:
    """Return how many steps of a tile's values make a stored unit."""
    return _LARGEST // (maximum - minimum) if level else 1


def encode_tile(values: NDArray[np.int32]) -> str:
    """Compress values from 0 to 65535: predict, interleave signs, split bytes, deflate.

    The predictor is the median of JPEG-LS (ISO/IEC 14495-1 A.4.1), with zeros outside of the tile.
    """
    left, above, corner = (
        np.pad(values, margin)[: values.shape[0], : values.shape[1]]
        for margin in (((0, 0), (1, 0)), ((1, 0), (0, 0)), ((1, 0), (1, 0)))
    )
    smaller, larger = np.minimum(left, above), np.maximum(left, above)
    error = values - np.clip(left + above - corner, smaller, larger)
    error = (error + (1 << 15)) % (1 << 16) - (1 << 15)
    bits = ((error << 1) ^ (error >> 31)).astype("<u2").view(np.uint8).reshape(-1, 2)
    compressed = zlib.compress(bits.T.tobytes(), _COMPRESSION)
    return base64.b64encode(compressed).decode("ascii")
