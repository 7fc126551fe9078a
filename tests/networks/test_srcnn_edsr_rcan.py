"""SRCNN, EDSR and RCAN have the formulas and parameter counts of their papers."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom

from cxrsr_cli.networks.config import ImageSkip, NetworkConfig
from cxrsr_cli.networks.edsr import EdsrBlock, EdsrConfig
from cxrsr_cli.networks.layers import ChannelAttention
from cxrsr_cli.networks.rcan import RcanBlock, RcanConfig, RcanGroup
from cxrsr_cli.networks.resampling import upsample
from cxrsr_cli.networks.srcnn import SrcnnConfig

RGB = 2 * 9 * 64 + 2 * (9 * 64 + 1)
"""Parameters that two more channels add to a first and a last 3x3 convolution of 64."""


@pytest.mark.parametrize(
    ("architecture", "published"),
    [
        # the public code of EDSR lists 1.37 M and 1.52 M
        (EdsrConfig(scale=2), 1.370),
        (EdsrConfig(scale=4), 1.518),
        # RCAN as counted by later papers
        (RcanConfig(scale=2), 15.445),
        (RcanConfig(scale=4), 15.592),
    ],
)
def test_parameters_with_colour_equal_the_published_ones(
    architecture: NetworkConfig, published: float
) -> None:
    assert round((architecture.complexity.parameters + RGB) / 1e6, 3) == published


@pytest.mark.parametrize(
    ("kernels", "weights"), [((9, 1, 5), 8_032), ((9, 3, 5), 24_416), ((9, 5, 5), 57_184)]
)
def test_the_weights_of_srcnn_equal_the_published_ones(
    kernels: tuple[int, int, int], weights: int
) -> None:
    """TPAMI 2016, Section 4.3.2; biases are not counted there."""
    cost = SrcnnConfig(scale=4, kernels=kernels).complexity
    assert cost.parameters - (64 + 32 + 1) == weights
    assert cost.macs == weights * 16


def test_complexity_equals_counts_by_hand() -> None:
    edsr = EdsrConfig(scale=2, channels=2, blocks=1).complexity
    assert edsr.macs == 18 + (36 + 36) + 36 + 144 + 4 * 18
    assert edsr.parameters == 20 + (38 + 38) + 38 + 152 + 19
    rcan = RcanConfig(scale=2, channels=2, groups=1, blocks=1, reduction=2).complexity
    assert rcan.macs == edsr.macs + 36
    assert rcan.parameters == edsr.parameters + 38 + (2 + 1) + (2 + 2)


@pytest.mark.parametrize(
    ("given", "blocks"), [(EdsrConfig(scale=4), 16), (RcanConfig(scale=4), 200)]
)
def test_the_defaults_have_the_published_depths(given: NetworkConfig, blocks: int) -> None:
    kinds = [type(module) for module in given.build().modules()]
    assert kinds.count(EdsrBlock) + kinds.count(RcanBlock) == blocks


@torch.inference_mode()
def test_srcnn_equals_its_formula() -> None:
    srcnn = SrcnnConfig(scale=2, image_skip=ImageSkip.NONE, residual_scale=1).build()
    x = torch.rand(1, 1, 7, 9)
    weights = srcnn.state_dict()
    y = upsample(x, 2)
    for layer, kernel in (("extract", 9), ("map", 5), ("reconstruct", 5)):
        y = F.conv2d(y, weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=kernel // 2)
        y = y if layer == "reconstruct" else y.relu()
    assert torch.allclose(srcnn(x), y, atol=1e-6)


@torch.inference_mode()
def test_blocks_equal_their_formulas() -> None:
    x = torch.rand(2, 4, 7, 7)
    edsr = EdsrBlock(EdsrConfig(scale=2, channels=4))
    assert torch.allclose(edsr(x), x + edsr.second(edsr.first(x).relu()))
    scaled = EdsrBlock(EdsrConfig(scale=2, channels=4, block_scale=0.1))
    assert torch.allclose(scaled(x), x + 0.1 * scaled.second(scaled.first(x).relu()))
    attention = ChannelAttention(4, 2)
    mean = x.mean((2, 3), keepdim=True)
    gate = attention.excite(attention.squeeze(mean).relu()).sigmoid()
    assert torch.allclose(attention(x), gate * x)
    architecture = RcanConfig(scale=2, channels=4, blocks=2, reduction=2)
    rcab = RcanBlock(architecture)
    assert torch.allclose(rcab(x), x + rcab.attend(rcab.second(rcab.first(x).relu())))
    group = RcanGroup(architecture)
    first, second = group.blocks
    assert torch.allclose(group(x), x + group.last(second(first(x))))
