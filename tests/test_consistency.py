"""An output downsamples to its input and stays in the legal range."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrsr_cli.judge.metrics import psnr
from cxrsr_cli.learn.images import list_images, read_image
from cxrsr_cli.learn.pairs import degrade
from cxrsr_cli.restore.consistency import consistent_bicubic, project
from cxrsr_cli.restore.resample import downsample, upsample


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.sampled_from([2, 4, 8]))
def test_any_estimate_becomes_consistent(seed: int, scale: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    original = torch.rand(1, 1, 8 * scale, 8 * scale, generator=generator)
    low = downsample(original, scale)
    estimate = torch.rand(original.shape, generator=generator)
    result = project(estimate, low, scale, minimum=0, maximum=1, steps=200)
    assert result.min() >= 0
    assert result.max() <= 1
    before = (downsample(estimate, scale) - low).square().mean().sqrt()
    after = (downsample(result, scale) - low).square().mean().sqrt()
    assert after < 0.05 * before


def test_a_consistent_legal_image_is_left_alone() -> None:
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    projected = project(image, downsample(image, 4), 4, minimum=0, maximum=1)
    assert torch.allclose(projected, image, atol=1e-6)


def test_the_range_is_the_one_given() -> None:
    low = torch.tensor([-100.0, 100.0]).repeat(8, 4)[None, None]
    output = consistent_bicubic(low, 2, minimum=-100, maximum=100)
    assert output.min() == -100
    assert output.max() == 100


# Mean PSNR in dB on nih/test without any network, found independently
# before this project began: bicubic, and range-aware consistent bicubic.
@pytest.mark.parametrize(
    ("scale", "bicubic_db", "consistent_db"),
    [(2, 42.64, 43.92), (4, 38.09, 39.13), (8, 34.80, 35.51)],
)
def test_known_quality_on_real_radiographs(
    shared: Path, scale: int, bicubic_db: float, consistent_db: float
) -> None:
    bicubic, consistent = [], []
    for path in list_images(shared / "cxr" / "nih" / "test"):
        image = read_image(path, scale)
        low = degrade(image, scale)
        enlarged = upsample(low, scale).round_().clamp_(0, 255)
        floor = consistent_bicubic(low, scale, minimum=0, maximum=255).round_()
        bicubic.append(psnr(enlarged, image.values, peak=255, border=scale))
        consistent.append(psnr(floor, image.values, peak=255, border=scale))
        assert (downsample(floor, scale) - low).square().mean().sqrt() < 1
    assert sum(bicubic) / len(bicubic) == pytest.approx(bicubic_db, abs=0.01)
    assert sum(consistent) / len(consistent) == pytest.approx(consistent_db, abs=0.01)
