"""The noise of an image is estimated from the image, by stored value."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxrsr_cli.dicom.pixel_format import PixelRange, fill_padding
from cxrsr_cli.images.image_files import list_image_files, read_images
from cxrsr_cli.inference import noise_curve
from cxrsr_cli.inference.noise_curve import NoiseCurve
from cxrsr_cli.networks.resampling import downsample

PEAK = 4095
Values = NDArray[np.float64]


def smooth(side: int = 256) -> Values:
    x = np.linspace(0, 6, side)
    made: Values = (np.sin(x)[:, None] * np.cos(x) + 1) * 1500 + 400
    return made


def estimate(values: Values, peak: int = PEAK, *, inverted: bool = False) -> NoiseCurve:
    stored = np.clip(np.rint(values), 0, peak).astype(np.int32)
    return NoiseCurve.estimate(stored, PixelRange(0, peak, inverted))


def test_a_curve_is_straight_between_its_values_and_constant_beyond() -> None:
    curve = NoiseCurve((100, 200), (1.0, 3.0))
    assert curve.at(np.array([0, 100, 150, 200, 900])).tolist() == [1, 1, 2, 3, 3]
    assert str(curve) == "100: 1, 200: 3"
    assert NoiseCurve().at(np.array([7])).tolist() == [0]


@pytest.mark.parametrize("sigma", [5, 20, 80])
def test_white_noise_on_a_smooth_image_is_found(sigma: float) -> None:
    noise = np.random.default_rng(0).normal(0, sigma, (256, 256))
    curve = estimate(smooth() + noise)
    assert list(curve.values) == sorted(curve.values)
    assert np.mean(curve.sigmas) == pytest.approx(sigma, rel=0.25)


def test_an_image_and_its_negative_have_mirrored_curves() -> None:
    values = smooth() + np.random.default_rng(0).normal(0, 20, (256, 256))
    one, other = estimate(values), estimate(PEAK - np.rint(values), inverted=True)
    assert other.sigmas[::-1] == pytest.approx(one.sigmas, rel=0.02)


@pytest.mark.parametrize("shape", [(15, 400), (400, 15), (1, 1)])
def test_an_image_that_is_too_small_has_no_noise(shape: tuple[int, int]) -> None:
    assert NoiseCurve.estimate(np.zeros(shape, np.int32), PixelRange(0, PEAK)) == NoiseCurve()


@pytest.mark.parametrize("axis", [0, 1])
def test_lines_of_one_value_have_no_more_noise_than_they_differ(axis: int) -> None:
    """A cell of such lines has nothing but its own few differences."""
    lines = np.random.default_rng(0).normal(1500, 20, 256)
    stored = np.repeat(np.expand_dims(lines, axis), 256, axis)
    assert max(estimate(stored).sigmas) <= 80


def test_a_flat_image_has_no_noise() -> None:
    assert max(estimate(np.full((64, 64), 1000.0)).sigmas) == 0


def test_parts_of_one_value_share_a_standard_deviation() -> None:
    """Most of this image is one value; its parts must not replace each other."""
    values = np.full((256, 256), 1000.0)
    values[:64] = 3000 + np.random.default_rng(0).normal(0, 20, (64, 256))
    curve = estimate(values)
    assert len(set(curve.values)) == len(curve.values) == len(curve.sigmas)
    assert curve.sigmas[0] == 0


def test_padding_is_no_part_of_the_noise() -> None:
    """Padding that was filled has lines of one value, which would look like no noise."""
    noisy = smooth() + np.random.default_rng(0).normal(0, 20, (256, 256))
    stored = np.clip(np.rint(noisy), 1, PEAK).astype(np.int32)
    mask = np.zeros(stored.shape, bool)
    mask[:, 128:] = True
    filled = fill_padding(stored, mask)
    found = NoiseCurve.estimate(filled, PixelRange(1, PEAK), mask)
    assert np.mean(found.sigmas) == pytest.approx(20, rel=0.25)
    assert NoiseCurve.estimate(stored, PixelRange(1, PEAK), np.ones_like(mask)) == NoiseCurve()


@pytest.mark.parametrize("cells", [1, 7, 1000])
def test_the_height_of_strips_makes_no_difference(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = smooth(301) + np.random.default_rng(0).normal(0, 20, (301, 301))
    expected = estimate(values)
    monkeypatch.setattr(noise_curve, "_STRIP_CELLS", cells)
    found = estimate(values)
    assert found.values == expected.values
    assert found.sigmas == pytest.approx(expected.sigmas, rel=0.01)


def _jpeg(quality: int) -> Callable[[Values, np.random.Generator], Values]:
    def add(clean: Values, _: np.random.Generator) -> Values:
        encoded = io.BytesIO()
        picture = np.clip(np.rint(clean * 255 / PEAK), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(encoded, "JPEG", quality=quality)
        decoded: Values = np.asarray(Image.open(encoded)) * (PEAK / 255)
        return decoded

    return add


def _grain(clean: Values, generator: np.random.Generator) -> Values:
    noise = gaussian_filter(generator.normal(0, 1, clean.shape), 0.6)
    made: Values = clean + noise / noise.std() * 0.01 * PEAK
    return made


KINDS: dict[str, Callable[[Values, np.random.Generator], Values]] = {
    "white 0.5 %": lambda clean, random: clean + random.normal(0, 0.005 * PEAK, clean.shape),
    "white 2 %": lambda clean, random: clean + random.normal(0, 0.02 * PEAK, clean.shape),
    "quantum 1 %": lambda clean, random: (
        clean + random.normal(0, 1, clean.shape) * 0.01 * np.sqrt(clean.clip(0) * PEAK)
    ),
    "grain 1 %": _grain,
    "JPEG 90": _jpeg(90),
    "JPEG 75": _jpeg(75),
}


LEAST_SHARES = {"grain 1 %": 0.8}
"""Grain looks like the noise that the originals have themselves, which is none here. Its standard
deviation is found too small, so that the bound is tighter than it might be."""


@pytest.mark.data
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hospital", ["nih", "hannover10", "guangzhou10"])
def test_noise_lies_within_two_sigma_on_radiographs_kept_aside(
    shared: Path, hospital: str, kind: str
) -> None:
    """A Gaussian has 95 % there."""
    generator, shares = np.random.default_rng(0), []
    for path in list_image_files(shared / "cxr" / hospital / "test")[:4]:
        image = read_images(path, 4)[0]
        share = (image.values - image.minimum) / image.data_range
        clean = downsample(share, 4)[0, 0].double().numpy() * PEAK
        noisy = np.clip(np.rint(KINDS[kind](clean, generator)), 0, PEAK)
        sigma = estimate(noisy).at(noisy)
        shares.append((np.abs(noisy - clean) <= 2 * sigma + 0.5).mean())
    assert np.mean(shares) > LEAST_SHARES.get(kind, 0.9)


@pytest.mark.data
def test_a_radiograph_without_noise_has_little(shared: Path) -> None:
    """NIH's images are reductions, so that little noise is left in them after another."""
    found = []
    for path in list_image_files(shared / "cxr" / "nih" / "test")[:6]:
        image = read_images(path, 4)[0]
        clean = torch.round(downsample(image.values, 4) * PEAK / 255)[0, 0].double().numpy()
        found.append(np.mean(estimate(clean).sigmas))
    assert np.mean(found) < 0.002 * PEAK
