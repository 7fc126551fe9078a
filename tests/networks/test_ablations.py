"""Each ablation of RIR removes or adds exactly what its field names."""

from dataclasses import replace

import pytest
import torch

from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.networks.layers import ChannelAttention
from cxrsr_cli.networks.rir import (
    Attention,
    ResidualBlock,
    ResidualGroup,
    ResidualInResidual,
    RirConfig,
)

WHOLE = RirConfig(scale=2, channels=4, groups=2, blocks=2, reduction=2)


def network(changed: RirConfig) -> ResidualInResidual:
    torch.manual_seed(0)
    return ResidualInResidual(replace(changed, image_skip=ImageSkip.NONE))


@pytest.mark.parametrize("kernels", [(1, 3), (1, 5), (3, 5), (5,)])
@pytest.mark.parametrize("width", [None, 7])
def test_a_block_has_the_kernels_and_widths_of_its_configuration(
    kernels: tuple[int, ...], width: int | None
) -> None:
    block = ResidualBlock(replace(WHOLE, kernels=kernels, branch_channels=width))
    sizes = [branch.kernel_size for branch in block.branches]
    assert sizes == [(size, size) for size in kernels]
    x = torch.rand(1, 4, 7, 7)
    act = torch.nn.LeakyReLU(0.1)
    expected = x + block.fuse(torch.cat([act(branch(x)) for branch in block.branches], 1))
    assert torch.allclose(block(x), expected)
    assert block.fuse.weight.shape == (4, len(kernels) * (width or 4), 1, 1)


def test_sparse_fusion_uses_the_input_and_the_sum_of_all_block_residuals() -> None:
    group = ResidualGroup(replace(WHOLE, dense=False))
    x = torch.rand(1, 4, 7, 7)
    first = group.blocks[0](x)
    second = group.blocks[1](first)
    total = x + (first - x) + (second - first)
    assert torch.allclose(group(x), group.fuse(total), atol=1e-6)


def test_sparse_fusion_equals_dense_fusion_with_the_other_weights_at_zero() -> None:
    sparse, dense = ResidualGroup(replace(WHOLE, dense=False)), ResidualGroup(WHOLE)
    weights = sparse.state_dict()
    fuse = torch.zeros_like(dense.fuse.weight)
    fuse[:, 4:8] = weights["fuse.weight"]
    dense.load_state_dict(weights | {"fuse.weight": fuse})
    x = torch.rand(1, 4, 7, 7)
    assert torch.allclose(dense(x), sparse(x), atol=1e-6)


def test_without_the_long_skip_the_upsampler_gets_only_the_deep_features() -> None:
    whole, without = network(WHOLE), network(replace(WHOLE, long_skip=False))
    without.load_state_dict(whole.state_dict())
    image = torch.rand(1, 1, 9, 9)
    seen = whole.shallow(whole.stem(image))
    deep = seen
    for group in whole.groups:
        deep = group(deep)
    deep = whole.deep(deep)
    scale = whole.architecture.residual_scale
    assert torch.allclose(without(image), scale * whole.tail(deep), atol=1e-6)
    assert torch.allclose(whole(image), scale * whole.tail(deep + seen), atol=1e-6)


@pytest.mark.parametrize(
    ("attention", "count"), [(Attention.NONE, 0), (Attention.BLOCK, 4), (Attention.GROUP, 2)]
)
def test_there_is_one_attention_per_named_module(attention: Attention, count: int) -> None:
    modules = list(network(replace(WHOLE, attention=attention)).modules())
    assert sum(isinstance(module, ChannelAttention) for module in modules) == count


def test_block_attention_gates_the_residual_of_a_block() -> None:
    block = ResidualBlock(replace(WHOLE, attention=Attention.BLOCK))
    plain = ResidualBlock(WHOLE)
    kept = {key: value for key, value in block.state_dict().items() if "attend" not in key}
    plain.load_state_dict(kept)
    x = torch.rand(1, 4, 7, 7)
    assert torch.allclose(block(x), x + block.attend(plain(x) - x), atol=1e-6)


def test_group_attention_gates_the_output_of_a_group() -> None:
    group = ResidualGroup(replace(WHOLE, attention=Attention.GROUP))
    plain = ResidualGroup(WHOLE)
    kept = {key: value for key, value in group.state_dict().items() if "attend" not in key}
    plain.load_state_dict(kept)
    x = torch.rand(1, 4, 7, 7)
    assert torch.allclose(group(x), group.attend(plain(x)), atol=1e-6)


@pytest.mark.parametrize("channels", [32, 64])
@pytest.mark.parametrize("attention", [Attention.BLOCK, Attention.GROUP])
def test_attention_adds_few_parameters_and_no_macs(attention: Attention, channels: int) -> None:
    plain = RirConfig(scale=4, channels=channels).complexity
    attended = RirConfig(scale=4, channels=channels, attention=attention).complexity
    assert attended.macs == plain.macs
    assert plain.parameters < attended.parameters < 1.005 * plain.parameters
