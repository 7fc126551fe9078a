"""Degradations of a training patch: their order, strength, and effect on the target."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cxrsr_cli.images.image_files import GrayscaleImage
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.networks.resampling import downsample
from cxrsr_cli.training.degradation import DegradationConfig, degrade_patch
from cxrsr_cli.training.distributed import ProcessGroup
from cxrsr_cli.training.patch_sampler import PatchSampler
from cxrsr_cli.training.training_data import make_degraded_pair, make_pair

STEP = 1 / 255
SCALE = 2


def original(side: int = 128) -> torch.Tensor:
    """Make a smooth image of 8 bits with a few edges, as shares of the range."""
    x = torch.linspace(0, 6, side)
    smooth = (x.sin()[:, None] * x.cos() + 1) * 100 + 25
    smooth[side // 4 : side // 2, side // 4 : side // 2] += 30
    return (smooth.round() / 255)[None]


def degraded(seed: int = 0, **what: object) -> tuple[torch.Tensor, torch.Tensor]:
    degradation = replace(DegradationConfig(), **what)  # type: ignore[arg-type]
    patch = degrade_patch(original(), SCALE, degradation, step=STEP, seed=seed)
    return patch.low, patch.high


def clean() -> torch.Tensor:
    return (downsample(original()[None], SCALE)[0] * 255).round() / 255


EACH: dict[str, Any] = {
    "depth": (8, 16),
    "blur": (1.0, 1.0),
    "poisson": (0.05, 0.05),
    "gaussian": (0.03, 0.03),
    "salt_pepper": (0.02, 0.02),
    "jpeg": (30, 30),
}


def test_all_degradations_are_off_by_default() -> None:
    low, high = degraded()
    assert torch.equal(low, clean())
    assert torch.equal(high, original())


@pytest.mark.parametrize("name", EACH)
def test_each_changes_the_input_by_its_seed_and_only_depth_changes_the_target(name: str) -> None:
    first, again, other = (degraded(seed, **{name: EACH[name]}) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], clean())
    assert torch.equal(first[1], original()) == (name != "depth")
    assert torch.equal(first[0], other[0]) == (name in ("blur", "jpeg"))
    assert first[0].min() >= 0
    assert first[0].max() <= 1


@pytest.mark.parametrize("name", EACH)
def test_the_probability_leaves_patches_unchanged(name: str) -> None:
    what = {name: EACH[name], "probability": 0.5}
    spared = sum(torch.equal(degraded(seed, **what)[0], clean()) for seed in range(40))
    assert spared == 0 if name == "depth" else 8 < spared < 32


def test_salt_and_pepper_are_half_smallest_and_half_largest_values() -> None:
    low, _ = degraded(salt_pepper=(0.1, 0.1))
    changed = low != clean()
    assert changed.float().mean() == pytest.approx(0.1, abs=0.02)
    assert set(low[changed].tolist()) == {0.0, 1.0}
    assert low[changed].mean() == pytest.approx(0.5, abs=0.1)


def test_noise_has_the_configured_strength() -> None:
    gaussian, _ = degraded(gaussian=(0.03, 0.03))
    assert (gaussian - clean()).std() == pytest.approx(0.03, rel=0.1)
    poisson, _ = degraded(poisson=(0.1, 0.1))
    excess = (poisson - clean()) / clean().sqrt()
    assert excess.std() == pytest.approx(0.1, rel=0.1)


def test_blur_is_applied_before_the_downsampling() -> None:
    sharp, soft = clean(), degraded(blur=(2.0, 2.0))[0]
    steepest = [image[0].diff(dim=0).abs().max() for image in (sharp, soft)]
    assert steepest[1] < 0.7 * steepest[0]


def test_depth_removes_the_steps_of_8_bits_from_the_target() -> None:
    """Targets have values between those of 8 bits, at most half a step away."""
    _, high = degraded(depth=(8, 16))
    offset = (high - original()) / STEP
    assert offset.abs().max() <= 0.5 + 1e-3
    assert offset.std() == pytest.approx(1 / np.sqrt(12), rel=0.05)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_depth_rounds_the_input_to_its_bits(bits: int) -> None:
    low, _ = degraded(depth=(bits, bits))
    levels = low.double() * (2**bits - 1)
    assert (levels - levels.round()).abs().max() < 0.01
    if bits > 8:
        eighth = low.double() * 255
        assert (eighth - eighth.round()).abs().max() > 0.4


def test_every_depth_in_the_range_is_drawn() -> None:
    found = set()
    for seed in range(200):
        low, _ = degraded(seed, depth=(8, 16))
        fits = [
            b for b in range(8, 17) if ((low.double() * (2**b - 1)) % 1 - 0.5).abs().min() > 0.4
        ]
        found.add(min(fits, default=0))
    assert found >= set(range(8, 15))


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ({"depth": (7, 12)}, "depth"),
        ({"jpeg": (0, 50)}, "jpeg"),
        ({"gaussian": (0.2, 0.1)}, "gaussian must be ascending"),
        ({"probability": 0}, "probability"),
    ],
)
def test_illegal_strengths_are_refused_by_name(what: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DegradationConfig(**what)


def image(inverted: bool = False) -> GrayscaleImage:
    values = original()[None] * 255
    return GrayscaleImage("a", 255 - values if inverted else values, 255, inverted=inverted)


def sampler(
    degradation: DegradationConfig,
    *,
    inverted: bool = False,
    noise: float = 0,
    process_group: ProcessGroup | None = None,
) -> PatchSampler:
    return PatchSampler(
        [make_pair(image(inverted), SCALE, ImageSkip.NONE)],
        SCALE,
        torch.Generator().manual_seed(0),
        degradation=degradation,
        skip_kind=ImageSkip.CONSISTENT,
        noise=noise,
        process_group=process_group,
    )


@pytest.mark.parametrize("inverted", [False, True])
def test_a_degraded_patch_and_its_skip_have_the_same_position(inverted: bool) -> None:
    batch = sampler(DegradationConfig(depth=(16, 16)), inverted=inverted).sample(16, 20)
    assert batch.skip is not None
    inner = (..., slice(3, -3), slice(3, -3))
    for large in (batch.high, batch.skip):
        assert (downsample(large, SCALE) - batch.low)[inner].abs().max() < 0.02


def test_much_salt_and_pepper_changes_the_range_of_network_values() -> None:
    """The percentiles of a whole image with as much noise are the ends of its range."""
    batch = sampler(DegradationConfig(salt_pepper=(0.02, 0.02))).sample(8, 24)
    assert set(batch.minimum.flatten().tolist()) == {0}
    assert set(batch.maximum.flatten().tolist()) == {1}
    whole = make_degraded_pair(
        image(), SCALE, ImageSkip.NONE, DegradationConfig(salt_pepper=(0.02, 0.02)), seed=3
    )
    assert (whole.minimum, whole.maximum) == (0, 1)
    little = sampler(DegradationConfig(gaussian=(0.001, 0.001))).sample(8, 24)
    assert little.maximum.min() > 1


def test_an_image_and_its_negative_are_degraded_alike() -> None:
    what = DegradationConfig(salt_pepper=(0.05, 0.05))
    one, other = (
        make_degraded_pair(image(inverted), SCALE, ImageSkip.NONE, what, seed=1)
        for inverted in (False, True)
    )
    assert torch.allclose(one.low, other.low, atol=0.01)
    assert torch.allclose(one.high, other.high, atol=1e-5)


@pytest.mark.parametrize(
    "what", [DegradationConfig(), DegradationConfig(**EACH)], ids=["plain", "all"]
)
def test_the_shares_of_two_processes_are_the_batch_of_one(what: DegradationConfig) -> None:
    whole = sampler(what, noise=0.1).sample(4, 16)
    parts = [
        sampler(what, noise=0.1, process_group=ProcessGroup(rank, 2)).sample(4, 16)
        for rank in (0, 1)
    ]
    assert torch.equal(whole.low, torch.cat([part.low for part in parts]))
    assert torch.equal(whole.high, torch.cat([part.high for part in parts]))


def test_a_patch_can_be_as_large_as_the_image() -> None:
    batch = sampler(DegradationConfig(blur=(1, 1))).sample(2, 64)
    assert batch.low.shape == (2, 1, 64, 64)
