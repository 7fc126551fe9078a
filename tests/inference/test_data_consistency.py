"""An output downsamples to its input and stays in the legal range."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.images.image_files import list_image_files, read_images
from cxrsr_cli.inference.data_consistency import (
    MARGIN,
    consistent_bicubic,
    enforce_consistency,
    project_closed_form,
    project_iteratively,
)
from cxrsr_cli.metrics.psnr_ssim import psnr
from cxrsr_cli.networks.resampling import downsample, upsample
from tests.conftest import EXAMPLE


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.sampled_from([2, 4, 8]))
def test_projection_makes_any_estimate_consistent(seed: int, scale: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    original = torch.rand(1, 1, 8 * scale, 8 * scale, generator=generator)
    low = downsample(original, scale)
    estimate = torch.rand(original.shape, generator=generator)
    result = project_iteratively(estimate, low, scale, minimum=0, maximum=1, steps=200)
    assert result.min() >= 0
    assert result.max() <= 1
    before = (downsample(estimate, scale) - low).square().mean().sqrt()
    after = (downsample(result, scale) - low).square().mean().sqrt()
    assert after < 0.05 * before


def test_projection_keeps_an_image_that_is_consistent_and_legal() -> None:
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    projected = project_iteratively(image, downsample(image, 4), 4, minimum=0, maximum=1)
    assert torch.allclose(projected, image, atol=1e-6)


def test_the_output_uses_the_whole_given_range() -> None:
    low = torch.tensor([-100.0, 100.0]).repeat(8, 4)[None, None]
    output = consistent_bicubic(low, 2, PixelRange(-100, 100))
    assert output.min() == -100
    assert output.max() == 100


def example(scale: int) -> tuple[torch.Tensor, torch.Tensor, float, float]:
    """Return a real radiograph of 12 bits, an estimate of the upscaled image, and its range."""
    low = torch.from_numpy(pydicom.dcmread(EXAMPLE).pixel_array.astype(np.float32))[None, None]
    noise = torch.randn(1, 1, *(side * scale for side in low.shape[-2:]),
                        generator=torch.Generator().manual_seed(0))  # fmt: skip
    # Such a narrow range has collimated borders and letters at its ends.
    minimum, maximum = low.quantile(0.02).item(), low.quantile(0.98).item()
    low = low.clamp(minimum, maximum)
    return low, upsample(low, scale) + 10 * noise, minimum, maximum


STEPS = 60
"""After these, the iteration has converged to less than a tenth of a stored unit."""


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("interpolating", [True, False])
def test_iterating_only_where_the_range_binds_equals_iterating_everywhere(
    scale: int, interpolating: bool
) -> None:
    low, estimate, minimum, maximum = example(scale)
    start = upsample(low, scale) if interpolating else estimate
    iterated = project_iteratively(start, low, scale, minimum=minimum, maximum=maximum, steps=STEPS)
    given = None if interpolating else estimate
    found = enforce_consistency(given, low, scale, PixelRange(minimum, maximum), steps=STEPS)
    assert found.min() >= minimum
    assert found.max() <= maximum
    assert (found - iterated).abs().max() <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("interpolating", [True, False])
def test_tiles_with_a_margin_equal_the_whole_image(scale: int, interpolating: bool) -> None:
    low, estimate, minimum, maximum = example(scale)
    given = None if interpolating else estimate

    def made(rows: slice, columns: slice) -> torch.Tensor:
        high = tuple(slice(part.start * scale, part.stop * scale) for part in (rows, columns))
        return enforce_consistency(
            None if given is None else given[..., high[0], high[1]],
            low[..., rows, columns],
            scale,
            PixelRange(minimum, maximum),
            steps=STEPS,
        )

    whole = made(slice(0, 256), slice(0, 256))
    part = made(slice(64 - MARGIN, 128 + MARGIN), slice(0, 100 + MARGIN))
    inner = part[..., MARGIN * scale : (MARGIN + 64) * scale, : 100 * scale]
    error = (inner - whole[..., 64 * scale : 128 * scale, : 100 * scale]).abs().max()
    assert error <= 0.1


def test_a_faint_square_on_black_in_16_bits_is_kept() -> None:
    """The tolerance at the range's end is in stored units, not a share of the range."""
    low = torch.zeros(1, 1, 40, 40)
    low[..., 15:25, 15:25] = torch.randint(26, 52, (10, 10)).float()
    found = enforce_consistency(None, low, 4, PixelRange(0, 65535), steps=STEPS)
    iterated = project_iteratively(upsample(low, 4), low, 4, minimum=0, maximum=65535, steps=STEPS)
    assert (found - iterated).abs().max() <= 0.1


def test_nan_stays_nan() -> None:
    low = torch.zeros(1, 1, 9, 9)
    estimate = torch.full((1, 1, 18, 18), torch.nan)
    assert enforce_consistency(estimate, low, 2, PixelRange(0, 255)).isnan().any()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 4, 8]))
def test_the_closed_form_is_exact(height: int, width: int, scale: int) -> None:
    generator = torch.Generator().manual_seed(height)
    low = 4095 * torch.rand(1, 1, height, width, generator=generator)
    estimate = 4095 * torch.rand(1, 1, height * scale, width * scale, generator=generator)
    found = project_closed_form(estimate, low, scale)
    assert (downsample(found, scale) - low).abs().max() <= 0.01
    # A second projection changes nothing.
    assert torch.allclose(project_closed_form(found, low, scale), found, atol=0.02)


# Mean PSNR in dB on nih/test without any network, found independently
# before this project began: bicubic, and range-aware consistent bicubic.
@pytest.mark.parametrize(
    ("scale", "bicubic_db", "consistent_db"),
    [(2, 42.64, 43.92), (4, 38.09, 39.13), (8, 34.80, 35.51)],
)
def test_bicubic_has_the_known_psnr_on_real_radiographs(
    shared: Path, scale: int, bicubic_db: float, consistent_db: float
) -> None:
    bicubic, consistent = [], []
    for path in list_image_files(shared / "cxr" / "nih" / "test"):
        image = read_images(path, scale)[0]
        low = image.downsample(scale)
        enlarged = upsample(low, scale).round_().clamp_(0, 255)
        floor = consistent_bicubic(low, scale, PixelRange(0, 255)).round_()
        bicubic.append(psnr(enlarged, image.values, peak=255, border=scale))
        consistent.append(psnr(floor, image.values, peak=255, border=scale))
        assert (downsample(floor, scale) - low).square().mean().sqrt() < 1
    assert sum(bicubic) / len(bicubic) == pytest.approx(bicubic_db, abs=0.01)
    assert sum(consistent) / len(consistent) == pytest.approx(consistent_db, abs=0.01)
