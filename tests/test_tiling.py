"""Tiles make what the whole image makes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cxrsr_cli.restore.architecture import ImageSkip, RirArchitecture, Tail
from cxrsr_cli.restore.network import ResidualInResidual
from cxrsr_cli.restore.tiling import apply_tiled, count, plan, reflect


def network(scale: int, tail: Tail = Tail.CONV_SHUFFLE) -> ResidualInResidual:
    torch.manual_seed(0)
    return ResidualInResidual(
        RirArchitecture(
            scale=scale, channels=6, groups=2, blocks=2, tail=tail, image_skip=ImageSkip.NONE
        )
    ).eval()


@pytest.mark.parametrize("tail", list(Tail))
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize(
    ("height", "width", "tile"),
    [(64, 64, 32), (61, 47, 16), (33, 100, 32), (5, 3, 16), (1, 40, 16), (40, 40, 512)],
)
@torch.inference_mode()
def test_equals_the_whole_image(height: int, width: int, tile: int, scale: int, tail: Tail) -> None:
    rir = network(scale, tail)
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(1))
    halo = rir.architecture.receptive_radius
    padded = reflect(image, halo)
    inner = slice(halo * scale, -halo * scale)
    whole = rir(padded)[..., inner, inner]
    tiled = apply_tiled(rir, image, scale=scale, halo=halo, tile=tile)
    span = whole.max() - whole.min()
    assert (tiled - whole).abs().max() <= 1e-5 * span


@torch.inference_mode()
def test_a_halo_half_as_wide_is_seen() -> None:
    """The test above can fail; the radius itself is tested by gradients."""
    rir = network(2)
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    radius = rir.architecture.receptive_radius
    exact = apply_tiled(rir, image, scale=2, halo=radius, tile=32)
    short = apply_tiled(rir, image, scale=2, halo=radius // 2, tile=32)
    assert not torch.equal(exact, short)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(16, 128))
def test_the_plan_covers_every_pixel_once(height: int, width: int, tile: int) -> None:
    covered = torch.zeros(height, width, dtype=torch.int32)
    tiles = list(plan(height, width, tile))
    for part in tiles:
        assert 0 < part.height <= tile
        assert 0 < part.width <= tile
        covered[part.top : part.top + part.height, part.left : part.left + part.width] += 1
    assert (covered == 1).all()
    assert len(tiles) == count(height, width, tile)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 40))
def test_reflection_keeps_the_image_in_the_middle(height: int, width: int, margin: int) -> None:
    image = torch.rand(1, 1, height, width)
    padded = reflect(image, margin)
    assert padded.shape[-2:] == (height + 2 * margin, width + 2 * margin)
    inner = padded[..., margin : margin + height, margin : margin + width]
    assert torch.equal(inner, image)
    assert padded.min() == image.min()
    assert padded.max() == image.max()
