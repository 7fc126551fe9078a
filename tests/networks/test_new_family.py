"""A new family of networks needs one file and one line in the registry."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.errors import ConfigError
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.model_files import find_model, load_network, read_metadata, save_network
from cxrsr_cli.networks.registry import FAMILIES
from cxrsr_cli.training.config import load_train_config
from cxrsr_cli.training.train import train
from tests.conftest import describe
from tests.networks.toy_family import Toy, ToyConfig

STORED = np.random.default_rng(0).integers(0, 4096, (40, 30)).astype(np.int32)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "toy", "tests.networks.toy_family:ToyConfig")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a training configuration of the new family, and its images."""
    values = np.random.default_rng(1).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    for split, image in zip(("train", "val"), values, strict=True):
        (tmp_path / split).mkdir()
        Image.fromarray(image).save(tmp_path / split / f"{split}.png")
    plain = {
        "name": "toy",
        "architecture": {"network": "toy", "scale": 2, "kernel": 5},
        "data": {
            "train": str(tmp_path / "train"),
            "val": str(tmp_path / "val"),
            "description": "noise",
        },
        "stages": [{"steps": 2, "batch_size": 2, "patch_size": 16}],
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


def test_a_new_family_is_saved_and_loaded(tmp_path: Path) -> None:
    architecture = ToyConfig(scale=2, kernel=5)
    path = tmp_path / "toy-x2.safetensors"
    network = architecture.build().eval()
    save_network(network, describe(architecture), path)
    assert read_metadata(path).config() == architecture
    loaded = load_network(path)
    assert isinstance(loaded, Toy)
    image = torch.rand(1, 1, 9, 9)
    assert torch.equal(loaded(image), network(image))


def test_a_new_family_upscales_in_strips_as_the_whole_image() -> None:
    network = ToyConfig(scale=2, residual_scale=1.0).build().eval()
    compiled = Predictor.from_network(network, torch.device("cpu"))
    assert compiled.program is not None
    whole = Predictor(network, None, compiled.device, compiled.precision)
    outputs = [each.upscale(STORED, PixelRange(0, 4095)) for each in (compiled, whole)]
    assert outputs[0].shape == (80, 60)
    assert np.abs(outputs[0] - outputs[1]).max() <= 1, "rounding of a value half-way"


def test_a_new_family_trains_from_a_yaml_configuration(config: Path, tmp_path: Path) -> None:
    path = train(load_train_config(config), tmp_path / "run", command="none")
    model = find_model(str(path), scale=2)
    assert model.metadata.architecture["network"] == "toy"
    assert model.metadata.steps == 2
    output = Predictor.load(path).upscale(STORED, PixelRange(0, 4095))
    assert output.shape == (80, 60)


def test_an_unknown_key_of_a_new_family_is_named(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"architecture\.depth"):
        load_train_config(config, ["architecture.depth=3"])


@pytest.mark.process
def test_finding_a_model_does_not_import_torch() -> None:
    code = (
        "import sys; from cxrsr_cli.networks.model_files import bundled_models, find_model; "
        "assert bundled_models(); find_model('rir-s', 4); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
