"""Padding is kept exactly where it was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from cxrsr_cli.dicom.pixel_format import Padding, PixelRange, fill_padding, reapply_padding


@pytest.mark.parametrize(
    ("value", "limit", "expected"),
    [(None, None, None), (0, None, Padding(0, 0)), (0, 10, Padding(0, 10)), (9, 4, Padding(4, 9))],
)
def test_padding_is_read_from_value_and_range_limit(
    value: int | None, limit: int | None, expected: Padding | None
) -> None:
    dataset = Dataset()
    if value is not None:
        dataset.add_new("PixelPaddingValue", "US", value)
    if limit is not None:
        dataset.add_new("PixelPaddingRangeLimit", "US", limit)
    assert Padding.from_dataset(dataset) == expected


def test_padding_is_filled_with_the_nearest_image_pixel() -> None:
    stored = np.array([[0, 0, 5, 6], [0, 0, 7, 8]], np.int32)
    assert fill_padding(stored, stored == 0).tolist() == [[5, 5, 5, 6], [7, 7, 7, 8]]


def test_an_image_that_is_all_padding_is_not_filled() -> None:
    stored = np.zeros((2, 2), np.int32)
    assert np.array_equal(fill_padding(stored, stored == 0), stored)


@given(seed=st.integers(0, 999), first=st.integers(0, 15), length=st.integers(0, 3))
def test_padding_is_exactly_where_the_source_has_it(seed: int, first: int, length: int) -> None:
    random = np.random.default_rng(seed)
    stored = random.integers(0, 16, (5, 4), dtype=np.int32)
    upscaled = random.integers(0, 16, (10, 8), dtype=np.int32)
    padding = Padding(first, min(first + length, 15))
    output = reapply_padding(upscaled, stored, padding, PixelRange(0, 15))
    expected = padding.mask(stored).repeat(2, 0).repeat(2, 1)
    assert np.array_equal(padding.mask(output), expected)
    assert np.array_equal(output[expected], stored.repeat(2, 0).repeat(2, 1)[expected])
    untouched = ~expected & ~padding.mask(upscaled)
    assert np.array_equal(output[untouched], upscaled[untouched])


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32])
@pytest.mark.parametrize("padding", [Padding(0, 0), Padding(14, 15), Padding(3, 6), Padding(0, 15)])
def test_strips_get_the_same_padding_as_the_whole_image(
    kind: type[np.integer], padding: Padding
) -> None:
    random = np.random.default_rng(0)
    stored = random.integers(0, 16, (5, 4), dtype=np.int32)
    upscaled = random.integers(0, 16, (10, 8)).astype(kind)
    whole = reapply_padding(upscaled, stored, padding, PixelRange(0, 15))
    assert whole.dtype == kind
    strips = [
        reapply_padding(
            upscaled[2 * top : 2 * top + 4], stored[top : top + 2], padding, PixelRange(0, 15)
        )
        for top in (0, 2, 4)
    ]
    assert np.array_equal(np.concatenate(strips), whole)


@pytest.mark.parametrize(
    ("padding", "moved"), [(Padding(0, 2), 3), (Padding(13, 15), 12), (Padding(4, 6), 3)]
)
def test_image_values_that_read_as_padding_change_to_the_nearest_legal_value(
    padding: Padding, moved: int
) -> None:
    stored = np.array([[padding.last + 1 if padding.first == 0 else 0]], np.int32)
    upscaled = np.full((2, 2), padding.first, np.uint8)
    assert (reapply_padding(upscaled, stored, padding, PixelRange(0, 15)) == moved).all()


@pytest.mark.parametrize(
    ("padding", "expected"),
    [(Padding(0, 2), (3, 15)), (Padding(13, 15), (0, 12)), (Padding(4, 6), (0, 15)),
     (Padding(0, 15), (0, 15)), (Padding(-5, 0), (1, 15))],
)  # fmt: skip
@pytest.mark.parametrize("inverted", [False, True])
def test_padding_at_an_end_of_the_range_is_no_value_of_the_image(
    padding: Padding, expected: tuple[int, int], *, inverted: bool
) -> None:
    found = padding.exclude_from(PixelRange(0, 15, inverted))
    assert found == PixelRange(*expected, inverted)


def test_unsigned_padding_values_of_signed_pixels_are_corrected() -> None:
    """Vendors write -2048 as US 63488."""
    dataset = Dataset()
    dataset.PixelRepresentation = 1
    dataset.add_new("PixelPaddingValue", "US", 63488)
    assert Padding.from_dataset(dataset) == Padding(-2048, -2048)
