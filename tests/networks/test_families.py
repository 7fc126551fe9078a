"""Rules for every network: shapes, gradients, receptive radius, strips, complexity, files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.errors import ConfigError, MemoryLimitError
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.networks.layers import SuperResolutionNetwork, WhiteningStem, build_network
from cxrsr_cli.networks.model_files import load_network, read_metadata, save_network
from cxrsr_cli.networks.registry import FAMILIES, config_class, config_from_dict
from cxrsr_cli.networks.rir import RirConfig
from cxrsr_cli.training.config import TrainConfig, load_train_config
from tests.conftest import ROOT, describe
from tests.helpers.architectures import GLOBAL, LOCAL, SMALL, small

SCALES = (2, 4, 8)
BASE = ROOT / "models" / "rir-s-x4.yaml"


def built(name: str, scale: int = 2, skip: ImageSkip = ImageSkip.NONE) -> SuperResolutionNetwork:
    torch.manual_seed(0)
    return build_network(small(name, scale, skip))


def test_these_tests_cover_every_family() -> None:
    assert {small(name).network for name in SMALL} == set(FAMILIES)
    assert all(config_class(name).network == name for name in FAMILIES)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("skip", [ImageSkip.NONE, ImageSkip.BICUBIC])
def test_the_output_has_the_scale_and_is_zero_before_training_with_an_image_skip(
    name: str, scale: int, skip: ImageSkip
) -> None:
    output = built(name, scale, skip)(torch.rand(2, 1, 9, 7))
    assert output.shape == (2, 1, 9 * scale, 7 * scale)
    assert (output == 0).all() == (skip is not ImageSkip.NONE)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = built(name)
    network(torch.rand(2, 1, 24, 24)).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", LOCAL)
def test_the_receptive_radius_is_how_far_gradients_reach(name: str, scale: int) -> None:
    """Never further, and at most 1 less, for an upsampler in stages."""
    network = built(name, scale).double()
    radius = network.architecture.receptive_radius
    middle = radius + 3
    image = torch.rand(1, 1, 2 * middle + 1, 2 * middle + 1, dtype=torch.float64)
    image.requires_grad_()
    cell = slice(middle * scale, (middle + 1) * scale)
    network(image)[..., cell, cell].sum().backward()
    assert image.grad is not None
    reached = image.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert middle - reached.min() <= radius
    assert reached.max() - middle <= radius
    assert reached.max() - middle >= radius - 1


def predictor(name: str, memory: int | None = None) -> Predictor:
    return Predictor.from_network(built(name), torch.device("cpu"), memory=memory)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_that_averages_the_image_is_not_run_in_strips(name: str) -> None:
    stored = np.random.default_rng(0).integers(0, 255, (24, 40)).astype(np.int32)
    assert small(name).needs_whole_image == (name in GLOBAL)
    whole = predictor(name).upscale(stored, PixelRange(0, 255))
    if name in GLOBAL:
        assert predictor(name).program is None
        with pytest.raises(MemoryLimitError, match="see --memory"):
            predictor(name, 60 << 20).upscale(stored, PixelRange(0, 255))
    else:
        plan = predictor(name).plan(24, 40)
        narrow = predictor(name, plan.peak_bytes - 1)
        assert narrow.plan(24, 40).rows < plan.rows
        strips = narrow.upscale(stored, PixelRange(0, 255))
        assert np.abs(strips - whole).max() <= 1, "rounding of a value half-way"


@pytest.mark.parametrize("name", sorted(GLOBAL))
@torch.inference_mode()
def test_averages_of_a_part_differ_from_those_of_the_whole_image(name: str) -> None:
    """So a network that averages the image cannot run in strips, whatever the halo."""
    network = built(name).double()
    radius = network.architecture.receptive_radius
    ramp = torch.linspace(0, 4, 80, dtype=torch.float64).expand(1, 1, 80, 80).contiguous()
    whole = network(ramp)[..., : 2 * 40]
    part = network(ramp[..., : 40 + radius])[..., : 2 * 40]
    assert (part - whole).abs().max() > 1e-7 * (whole.max() - whole.min())


def macs_by_hooks(network: SuperResolutionNetwork, side: int) -> int:
    """Count the work of convolutions for each pixel, without channel attention."""
    done = []

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        if output.shape[-1] > 1:
            done.append(output.numel() * module.weight[0].numel())

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    network(torch.rand(1, 1, side, side))
    if isinstance(network.stem, WhiteningStem):
        done.append(network.stem.filters.numel() * side**2)
    return sum(done) // side**2


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SMALL)
def test_the_complexity_of_a_configuration_is_that_of_its_network(name: str, scale: int) -> None:
    network = built(name, scale)
    cost = network.architecture.complexity
    assert cost.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert cost.macs == macs_by_hooks(network, 8)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("skip", list(ImageSkip))
def test_a_saved_network_is_loaded_unchanged(name: str, skip: ImageSkip, tmp_path: Path) -> None:
    network = built(name, 4, skip)
    path = tmp_path / "model.safetensors"
    save_network(network, describe(network.architecture), path)
    assert read_metadata(path) == describe(network.architecture)
    loaded = load_network(path)
    assert type(loaded) is type(network)
    image = torch.rand(1, 1, 9, 9)
    assert torch.equal(loaded(image), network.eval()(image))


@pytest.mark.parametrize("name", SMALL)
def test_a_configuration_survives_json_and_yaml(name: str) -> None:
    architecture = small(name, 4, ImageSkip.BICUBIC)
    text = json.dumps(architecture.to_dict())
    assert config_from_dict(json.loads(text)) == architecture
    assert configured(text).architecture == architecture


def configured(architecture: str) -> TrainConfig:
    return load_train_config(BASE, [f"architecture={architecture}"])


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        ("{scale: 4, depth: 3}", r"architecture\.depth"),
        ("{network: rir, scale: 4, mapped: 3}", r"architecture\.mapped"),
        ("{network: srcnn, scale: 4, groups: 3}", r"architecture\.groups"),
        ("{network: srcnn, scale: 4, upsampler: conv_shuffle}", r"architecture\.upsampler"),
        ("{network: edsr, scale: 4, reduction: 8}", r"architecture\.reduction"),
        ("{network: rcan, scale: 4, kernels: [1]}", r"architecture\.kernels"),
        ("{network: vdsr, scale: 4}", "network is 'vdsr'; it must be one of rir, srcnn"),
        ("{network: [rir], scale: 4}", "network is"),
        ("rcan", "mapping"),
        ("{network: rcan}", r"architecture\.scale"),
        ("{network: rcan, scale: 4, channels: 8}", "reduction is 16, more than the 8 channels"),
        ("{network: rcan, scale: 4, blocks: 0}", "blocks must be"),
        ("{network: edsr, scale: 3}", "scale is 3"),
        ("{network: edsr, scale: 4, stem: blurred}", r"architecture\.stem"),
        ("{network: srcnn, scale: 4, kernels: [9, 5]}", r"architecture\.kernels"),
        ("{network: srcnn, scale: 4, kernels: [9, 4, 5]}", "kernels: sides of kernels are odd"),
        ("{scale: 4, kernels: []}", "kernels must be at least one"),
        ("{scale: 4, kernels: [5, 3]}", "kernels must be at least one, rising"),
        ("{scale: 4, kernels: [3, 17]}", "from 1 to 15"),
        ("{scale: 4, branch_channels: 0}", "branch_channels must be"),
        ("{scale: 4, attention: spatial}", r"architecture\.attention"),
        ("{scale: 4, channels: 8, attention: block}", "reduction is 16"),
    ],
)
def test_configuration_errors_name_the_key(architecture: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        configured(architecture)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "vdsr"},
        {"network": "edsr"},
        {"depth": 3},
        {"image_skip": None},
        {"dense": "no"},
        {"kernels": 3},
        {"kernels": [[3]]},
    ],
    ids=str,
)
def test_an_illegal_architecture_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        config_from_dict(RirConfig(scale=2).to_dict() | changes)


def test_an_architecture_without_a_field_is_refused() -> None:
    plain = RirConfig(scale=2).to_dict()
    for field in plain:
        with pytest.raises(ValueError, match=field):
            config_from_dict({key: value for key, value in plain.items() if key != field})


def test_an_architecture_names_the_family_and_every_field() -> None:
    assert RirConfig(scale=4, channels=32).to_dict() == {
        "network": "rir", "scale": 4, "channels": 32, "groups": 4, "blocks": 4,
        "negative_slope": 0.1, "image_skip": "bicubic", "upsampler": "conv_shuffle",
        "residual_scale": 0.1, "stem": "whitened", "impulse_filter": False,
        "noise_share": False,
        "kernels": [1, 3, 5], "branch_channels": None, "dense": True, "long_skip": True,
        "attention": "none", "reduction": 16,
    }  # fmt: skip


def test_every_ablation_has_its_own_hash() -> None:
    hashes = {
        load_train_config(BASE, overrides).sha256()
        for overrides in (
            [],
            ["architecture.dense=true"],
            ["architecture.long_skip=true"],
            ["architecture.kernels=[1, 3]"],
            ["architecture.attention=block"],
            ["architecture={network: edsr, scale: 4}"],
            ["architecture={network: rcan, scale: 4}"],
        )
    }
    assert len(hashes) == 7
    defaults = ["architecture.network=rir", "architecture.kernels=[1, 3, 5]"]
    assert load_train_config(BASE, defaults).sha256() == load_train_config(BASE).sha256()
