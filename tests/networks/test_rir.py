"""RIR is the network of the paper and follows its configuration."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from cxrsr_cli.networks.config import ImageSkip, Stem, Upsampler
from cxrsr_cli.networks.layers import WhiteningStem
from cxrsr_cli.networks.rir import (
    ResidualBlock,
    ResidualGroup,
    ResidualInResidual,
    RirConfig,
)

PAPER = RirConfig(
    scale=2,
    channels=64,
    image_skip=ImageSkip.NONE,
    upsampler=Upsampler.SHUFFLE_CONV,
    residual_scale=1.0,
    stem=Stem.PLAIN,
)


@pytest.mark.parametrize(("scale", "millions"), [(2, 2.76), (4, 2.91), (8, 3.06)])
def test_the_papers_form_has_the_known_parameters(scale: int, millions: float) -> None:
    network = ResidualInResidual(replace(PAPER, scale=scale))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 2) == millions


def test_the_default_has_neither_attention_nor_normalisation() -> None:
    kinds = {type(module).__name__ for module in ResidualInResidual(RirConfig(scale=4)).modules()}
    assert kinds == {
        "ResidualInResidual", "ResidualGroup", "ResidualBlock",
        "WhiteningStem", "ModuleList", "Sequential", "Conv2d", "PixelShuffle", "Identity",
    }  # fmt: skip


def test_a_block_equals_its_formula() -> None:
    block = ResidualBlock(RirConfig(scale=2, channels=3, negative_slope=0.1))
    x = torch.rand(1, 3, 7, 7)
    act = torch.nn.LeakyReLU(0.1)
    expected = x + block.fuse(torch.cat([act(branch(x)) for branch in block.branches], 1))
    assert torch.allclose(block(x), expected)
    assert [branch.kernel_size for branch in block.branches] == [(1, 1), (3, 3), (5, 5)]


def test_a_group_equals_its_formula() -> None:
    group = ResidualGroup(RirConfig(scale=2, channels=3, blocks=2))
    x = torch.rand(1, 3, 7, 7)
    first = group.blocks[0](x)
    second = group.blocks[1](first)
    assert torch.allclose(group(x), group.fuse(torch.cat([first, second, x], 1)))


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("tail", list(Upsampler))
@pytest.mark.parametrize("skip", list(ImageSkip))
def test_the_output_has_the_scale_and_is_zero_before_training_with_an_image_skip(
    scale: int, tail: Upsampler, skip: ImageSkip
) -> None:
    architecture = RirConfig(
        scale=scale, channels=4, groups=1, blocks=1, upsampler=tail, image_skip=skip
    )
    output = ResidualInResidual(architecture)(torch.rand(2, 1, 9, 7))
    assert output.shape == (2, 1, 9 * scale, 7 * scale)
    assert (output == 0).all() == (skip is not ImageSkip.NONE)


@pytest.mark.parametrize("stem", list(Stem))
@pytest.mark.parametrize("tail", list(Upsampler))
def test_the_receptive_radius_is_how_far_gradients_reach(tail: Upsampler, stem: Stem) -> None:
    torch.manual_seed(0)
    architecture = RirConfig(
        scale=2, channels=4, groups=2, blocks=1, upsampler=tail,
        image_skip=ImageSkip.NONE, stem=stem,
    )  # fmt: skip
    radius = architecture.receptive_radius
    side = 2 * radius + 9
    image = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    network = ResidualInResidual(architecture).double()
    middle = side // 2
    network(image)[..., 2 * middle : 2 * middle + 2, 2 * middle].sum().backward()
    assert image.grad is not None
    reached = image.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert middle - reached.min() <= radius
    assert reached.max() - middle <= radius
    if tail is Upsampler.CONV_SHUFFLE:
        assert middle - reached.min() == radius


def test_the_stem_is_orthonormal_before_it_is_fitted() -> None:
    rows = WhiteningStem().filters.flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(9), atol=1e-6)


def test_a_fitted_stem_has_unit_power() -> None:
    stem = WhiteningStem()
    images = [torch.rand(1, 1, 40, 40).cumsum(-1) / 40 for _ in range(3)]
    stem.fit(images)
    power = torch.stack([stem(image).square().mean((0, 2, 3)) for image in images]).mean(0)
    assert torch.allclose(power, torch.ones(9), rtol=1e-3)


@pytest.mark.parametrize("field", ["channels", "groups", "blocks"])
def test_counts_below_one_are_refused(field: str) -> None:
    changes: dict[str, Any] = {field: 0}
    with pytest.raises(ValueError, match=field):
        replace(PAPER, **changes)


def test_other_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="scale is 3"):
        RirConfig(scale=3)
