"""What varies inside of blocks is compared with what the source's neighbours show."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.inference.noise_curve import NO_NOISE
from cxrsr_cli.verify.pixels import MeasuredFrame

SIDE = 64
FLAT = np.full((SIDE, SIDE), 100, np.int32)
INDEX = np.arange(SIDE, dtype=np.int32)[:, None]


@pytest.mark.parametrize(
    ("source", "holds"),
    [
        (FLAT, True),
        (np.where(INDEX == 0, 30, FLAT), True),  # a step at the border of the image
        (np.where(INDEX < SIDE // 2, 30, FLAT), True),  # a step between two blocks
        (FLAT + 20 * INDEX, False),  # a slope that was flattened
    ],
)
def test_blocks_without_variation_hold_where_the_source_has_steps_alone(
    source: NDArray[np.int32], holds: bool
) -> None:
    output = source.repeat(2, 0).repeat(2, 1)
    frame = MeasuredFrame.of(output, source.astype(np.int32), NO_NOISE, PixelRange(0, 4095), None)
    assert all(bool((ratio <= 1).all()) for _, ratio in frame.variations()) == holds
