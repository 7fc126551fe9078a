"""Tiles keep every value."""

import base64
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from cxrsr_cli.comparison.tiles import encode_tile, levels, means, tiles


def decode_tile(data: str, rows: int, columns: int) -> NDArray[np.uint16]:
    """Do what page.js does, one value after the other."""
    low, high = np.frombuffer(zlib.decompress(base64.b64decode(data)), np.uint8).reshape(2, -1)
    bits = low.astype(int) | high.astype(int) << 8
    values = np.zeros((rows + 1, columns + 1), int)
    for index, code in enumerate(bits):
        row, column = divmod(index, columns)
        left, above, corner = values[row + 1, column], values[row, column + 1], values[row, column]
        guess = min(max(left + above - corner, min(left, above)), max(left, above))
        values[row + 1, column + 1] = (guess + (int(code >> 1) ^ -int(code & 1))) % 65536
    return values[1:, 1:].astype(np.uint16)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 65535, 0], [65535, 0, 65535], [1, 2, 3]]),
        np.random.default_rng(1).integers(0, 65536, (9, 7)),
        np.full((1, 5), 40000),
        np.arange(6).reshape(6, 1) * 13000,
    ],
)
def test_a_tile_decodes_to_its_values(values: NDArray[np.int64]) -> None:
    found = decode_tile(encode_tile(values.astype(np.int32)), *values.shape)
    assert np.array_equal(found, values)


def test_the_coarsest_level_fits_the_first_view() -> None:
    assert levels(2048, 900) == [0]
    assert levels(2049, 900) == [1, 0]
    assert levels(10000, 12000) == [3, 2, 0]
    assert levels(10000, 20000) == [4, 2, 0]


def test_levels_hold_means_in_parts_of_a_stored_unit() -> None:
    values = np.arange(36, dtype=np.uint16).reshape(6, 6)
    (tile,) = tiles(values, 2, 0, 4095)
    assert np.allclose(means(values, 4), [[10.5, 13.75], [30, 33.25]])
    assert np.array_equal(decode_tile(tile.data, 2, 2), np.floor(means(values, 4) * 16 + 0.5))


def test_large_images_are_cut_into_tiles() -> None:
    values = np.zeros((513, 1030), np.uint8)
    places = [(tile.row, tile.column) for tile in tiles(values, 0, 0, 255)]
    assert places == [(row, column) for row in range(2) for column in range(3)]
