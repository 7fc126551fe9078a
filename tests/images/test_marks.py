"""Burnt-in marks are found by their edges, and anatomy is not."""

import pytest
import torch

from cxrsr_cli.images.marks import mark_mask


def test_a_mark_and_twelve_pixels_around_its_edge_are_in_the_mask() -> None:
    image = torch.full((1, 1, 64, 64), 100.0)
    image[..., 30:34, 30:34] = 4000
    mask = mark_mask(image, 4095)
    rows = mask[0, 0].any(1).nonzero().flatten()
    assert (rows.min().item(), rows.max().item()) == (30 - 1 - 12, 33 + 1 + 12)
    assert mask[0, 0, 30, 30]


def test_a_slope_is_not_a_mark() -> None:
    """A fifth of the range within three pixels is the limit."""
    slope = torch.linspace(0, 4095, 64).expand(1, 1, 64, 64)
    assert not mark_mask(slope, 4095).any()
    assert mark_mask(slope[..., ::8], 4095).all()


@pytest.mark.parametrize("inverted", [False, True])
def test_polarity_does_not_matter(inverted: bool) -> None:
    image = torch.zeros(1, 1, 40, 40)
    image[..., :5] = 255
    mask = mark_mask(255 - image if inverted else image, 255)
    assert mask.float().mean() == pytest.approx(18 / 40)
