"""Degradations of a training patch: their order, strength, and effect on the target."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cxrsr_cli.images.image_files import GrayscaleImage
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.networks.resampling import block_mean, downsample
from cxrsr_cli.training.degradation import (
    DegradationConfig,
    Kernel,
    NoiseKind,
    degrade_patch,
)
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


EACH: dict[str, dict[str, Any]] = {
    "depth": {"depth": (8, 16)},
    "inverted": {"inverted": 1.0, "noise": (0.03, 0.03), "noise_kinds": {NoiseKind.QUANTUM: 1.0}},
    **{kernel.value: {"kernels": {kernel: 1.0}} for kernel in Kernel if kernel != Kernel.BICUBIC},
    **{kind.value: {"noise": (0.03, 0.03), "noise_kinds": {kind: 1.0}} for kind in NoiseKind},
    "salt_pepper": {"salt_pepper": (0.02, 0.02)},
    "jpeg": {"jpeg": (30, 30)},
}
FIXED = {"block_mean", "bilinear", "lanczos", "jpeg"}
"""Degradations without random numbers at a fixed strength."""
ALL = DegradationConfig(
    depth=(8, 16),
    inverted=0.5,
    kernels=dict.fromkeys(Kernel, 1.0),
    noise=(0.001, 0.05),
    noise_probability=0.5,
    noise_kinds=dict.fromkeys(NoiseKind, 1.0),
    salt_pepper=(0.01, 0.02),
    jpeg=(30, 95),
    jpeg_probability=0.5,
)


def test_all_degradations_are_off_by_default() -> None:
    low, high = degraded()
    assert torch.equal(low, clean())
    assert torch.equal(high, original())
    assert not DegradationConfig().is_active
    assert ALL.is_active


@pytest.mark.parametrize("name", EACH)
def test_each_changes_the_input_by_its_seed_and_only_depth_changes_the_target(name: str) -> None:
    first, again, other = (degraded(seed, **EACH[name]) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], clean())
    assert torch.equal(first[1], original()) == (name != "depth")
    assert torch.equal(first[0], other[0]) == (name in FIXED)
    assert first[0].min() >= 0
    assert first[0].max() <= 1


@pytest.mark.parametrize("name", ["white", "jpeg"])
def test_the_probability_leaves_patches_unchanged(name: str) -> None:
    what = EACH[name] | {"noise_probability": 0.5, "jpeg_probability": 0.5}
    spared = sum(torch.equal(degraded(seed, **what)[0], clean()) for seed in range(40))
    assert 8 < spared < 32


def test_kernels_and_kinds_of_noise_are_drawn_by_their_weights() -> None:
    what = {"kernels": {Kernel.BICUBIC: 3.0, Kernel.BLOCK_MEAN: 1.0}}
    bicubic = sum(torch.equal(degraded(seed, **what)[0], clean()) for seed in range(200))
    assert 130 < bicubic < 170


def test_the_block_mean_is_the_mean_of_each_block() -> None:
    low, _ = degraded(kernels={Kernel.BLOCK_MEAN: 1.0})
    expected = block_mean(original()[None], SCALE)[0]
    assert (low - expected).abs().max() <= STEP / 2 + 1e-6


@pytest.mark.parametrize("kind", NoiseKind)
def test_the_stated_sigma_is_the_standard_deviation_of_the_noise(kind: NoiseKind) -> None:
    config = DegradationConfig(noise=(0.03, 0.03), noise_kinds={kind: 1.0})
    flat = torch.full((1, 256, 256), 0.5)
    patch = degrade_patch(flat, SCALE, config, step=1 / 65535, seed=1)
    depends = kind in (NoiseKind.QUANTUM, NoiseKind.QUANTUM_GRAIN)
    expected = 0.03 * (0.5**0.5 if depends else 1)
    assert patch.sigma.mean().item() == pytest.approx(expected, rel=1e-3)
    assert patch.noise.std().item() == pytest.approx(expected, rel=0.05)
    assert (patch.low - patch.clean - patch.noise).abs().max() < 1e-4
    neighbours = (patch.noise[0, :, 1:] * patch.noise[0, :, :-1]).mean() / patch.noise.var()
    assert (neighbours > 0.05) == (kind in (NoiseKind.GRAIN, NoiseKind.QUANTUM_GRAIN))


def test_the_sigma_includes_the_error_of_jpeg() -> None:
    config = DegradationConfig(jpeg=(30, 30))
    patch = degrade_patch(original(), SCALE, config, step=STEP, seed=1)
    assert patch.noise.abs().max() == 0
    assert patch.sigma.mean() == pytest.approx((patch.low - patch.clean).std().item(), rel=0.2)


def test_salt_and_pepper_are_half_smallest_and_half_largest_values() -> None:
    low, _ = degraded(salt_pepper=(0.1, 0.1))
    changed = low != clean()
    assert changed.float().mean() == pytest.approx(0.1, abs=0.02)
    assert set(low[changed].tolist()) == {0.0, 1.0}
    assert low[changed].mean() == pytest.approx(0.5, abs=0.1)


def test_noise_of_an_inverted_patch_depends_on_dark_values() -> None:
    quantum: dict[str, Any] = {"noise": (0.1, 0.1), "noise_kinds": {NoiseKind.QUANTUM: 1.0}}
    for inverted in (0.0, 1.0):
        low, _ = degraded(**quantum, inverted=inverted)
        value = 1 - clean() if inverted else clean()
        assert ((low - clean()) / value.sqrt()).std() == pytest.approx(0.1, rel=0.1)


def test_blur_is_applied_before_the_downsampling() -> None:
    sharp, soft = clean(), degraded(kernels={Kernel.BLUR: 1.0}, blur=(1.0, 1.0))[0]
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
        ({"noise": (0.2, 0.1)}, "noise must be ascending"),
        ({"jpeg_probability": 2}, "jpeg_probability"),
        ({"kernels": {Kernel.BLUR: -1.0}}, "kernels needs weights"),
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
    noise_share: bool = False,
    process_group: ProcessGroup | None = None,
) -> PatchSampler:
    return PatchSampler(
        [make_pair(image(inverted), SCALE, ImageSkip.NONE)],
        SCALE,
        torch.Generator().manual_seed(0),
        degradation=degradation,
        skip_kind=ImageSkip.BICUBIC,
        noise_share=noise_share,
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
    little = sampler(DegradationConfig(noise=(0.001, 0.001))).sample(8, 24)
    assert little.maximum.min() > 1


def test_an_image_and_its_negative_are_degraded_alike() -> None:
    what = DegradationConfig(salt_pepper=(0.05, 0.05))
    one, other = (
        make_degraded_pair(image(inverted), SCALE, ImageSkip.NONE, what, seed=1)
        for inverted in (False, True)
    )
    assert torch.allclose(one.low, other.low, atol=0.01)
    assert torch.allclose(one.high, other.high, atol=1e-5)


@pytest.mark.parametrize("what", [DegradationConfig(), ALL], ids=["plain", "all"])
def test_the_shares_of_two_processes_are_the_batch_of_one(what: DegradationConfig) -> None:
    whole = sampler(what, noise_share=True).sample(4, 16)
    parts = [
        sampler(what, noise_share=True, process_group=ProcessGroup(rank, 2)).sample(4, 16)
        for rank in (0, 1)
    ]
    assert torch.equal(whole.low, torch.cat([part.low for part in parts]))
    assert torch.equal(whole.high, torch.cat([part.high for part in parts]))


@pytest.mark.parametrize("is_drawn", [False, True])
def test_the_target_keeps_the_share_of_noise_as_bicubic_shows_it(is_drawn: bool) -> None:
    what = DegradationConfig(noise=(0.05, 0.05))
    batch = sampler(what, noise_share=is_drawn).sample(64, 16)
    shares = batch.noise_share.flatten()
    assert (shares == 1).float().mean() == (1 if not is_drawn else pytest.approx(0.5, abs=0.2))
    assert (shares == 0).any() == is_drawn
    assert batch.skip is not None
    inner = (..., slice(4, -4), slice(4, -4))
    differences = (batch.high - batch.skip)[inner].flatten(1).std(1)
    kept, removed = differences[shares == 1], differences[shares == 0]
    assert kept.mean() < 0.03, "the noise of the skip is in the target"
    assert not is_drawn or removed.mean() > 0.03


def test_patches_are_mostly_off_the_marks() -> None:
    pair = make_pair(image(), SCALE, ImageSkip.NONE)
    marks = torch.zeros(64, 64)
    marks[:, 32:] = 1
    drawn = PatchSampler([replace(pair, marks=marks)], SCALE, torch.Generator().manual_seed(0))
    specs = drawn.plan(200, 16).specs
    assert sum(spec.left + 16 > 33 for spec in specs) < 80


def test_patches_come_from_the_pairs_by_their_weights() -> None:
    pairs = [make_pair(image(), SCALE, ImageSkip.NONE) for _ in range(2)]
    drawn = PatchSampler(pairs, SCALE, torch.Generator().manual_seed(0), weights=[1, 3])
    specs = drawn.plan(400, 16).specs
    assert sum(spec.index == 1 for spec in specs) == pytest.approx(300, abs=40)


def test_a_patch_can_be_as_large_as_the_image() -> None:
    batch = sampler(DegradationConfig(kernels={Kernel.BLUR: 1.0})).sample(2, 64)
    assert batch.low.shape == (2, 1, 64, 64)
