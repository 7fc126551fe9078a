"""A model file describes itself; a damaged or foreign file is refused with a sentence."""

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cxrsr_cli.errors import ExitCode, ModelError
from cxrsr_cli.networks.model_files import find_model, load_network, read_metadata, save_network
from cxrsr_cli.networks.rir import ResidualInResidual, RirConfig
from tests.conftest import describe


def test_a_saved_network_is_loaded_unchanged(tmp_path: Path) -> None:
    architecture = RirConfig(scale=8, channels=4, groups=1, blocks=2, negative_slope=0.2)
    network = ResidualInResidual(architecture)
    path = tmp_path / "model.safetensors"
    save_network(network, describe(architecture), path)
    assert read_metadata(path) == describe(architecture)
    loaded = load_network(path)
    assert not loaded.training
    for mine, theirs in zip(network.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def rewritten(source: Path, target: Path, **changes: str) -> Path:
    """Write the tensors of `source` with other metadata."""
    save_file(load_file(source), target, read_metadata(source).to_header() | changes)
    return target


def true_channels() -> str:
    """Describe a network with True channels, which Python takes for a number."""
    plain = RirConfig(scale=2, channels=4, groups=1, blocks=1).to_dict()
    return json.dumps(plain | {"channels": True})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda raw: raw[: len(raw) // 2], "damaged"),
        (lambda raw: raw[:4], "damaged"),
        (lambda _: b"", "damaged"),
        (lambda _: b"\x80\x04pickle", "damaged"),
        (lambda raw: struct.pack("<Q", 1 << 60) + raw[8:], "damaged"),
    ],
    ids=["half", "stump", "empty", "pickle", "header length"],
)
def test_a_damaged_file_is_refused(
    tiny_model: Path, tmp_path: Path, damage: object, says: str
) -> None:
    path = tmp_path / "damaged.safetensors"
    assert callable(damage)
    path.write_bytes(damage(tiny_model.read_bytes()))
    with pytest.raises(ModelError, match=says) as caught:
        find_model(str(path), 2)
    assert caught.value.exit_code is ExitCode.MODEL


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "other-1"}, "no cxrsr model"),
        ({"architecture": "{}"}, "no cxrsr model"),
        ({"architecture": json.dumps({"scale": 3})}, "no cxrsr model"),
        ({"architecture": json.dumps({"scale": 2, "channels": 8.5})}, "no cxrsr model"),
        ({"architecture": json.dumps({"scale": 2, "channels": 10**6})}, "no cxrsr model"),
        ({"architecture": json.dumps({"scale": 2, "negative_slope": "x"})}, "no cxrsr model"),
        ({"architecture": '{"scale": 2, "channels": ' + "[" * 100_000}, "no cxrsr model"),
        ({"architecture": true_channels()}, "no cxrsr model"),
        ({"steps": "many"}, "no cxrsr model"),
    ],
)
def test_a_header_of_another_program_is_refused(
    tiny_model: Path, tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    path = rewritten(tiny_model, tmp_path / "other.safetensors", **changes)
    with pytest.raises(ModelError, match=says):
        load_network(path)


def test_tensors_that_do_not_fit_the_header_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    fields = json.loads(read_metadata(tiny_model).to_header()["architecture"])
    wider = json.dumps(fields | {"channels": 8})
    path = rewritten(tiny_model, tmp_path / "wider.safetensors", architecture=wider)
    with pytest.raises(ModelError, match="does not hold the tensors"):
        load_network(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 1024, "groups": 16, "blocks": 16},
        {"channels": 4, "groups": 1024, "blocks": 1024},
    ],
    ids=["wide", "deep"],
)
def test_a_small_file_that_describes_a_huge_network_is_refused_before_it_is_built(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int]
) -> None:
    """The first takes 8 GB, the second minutes."""
    fields = json.loads(read_metadata(tiny_model).to_header()["architecture"])
    huge = json.dumps(fields | changes)
    path = rewritten(tiny_model, tmp_path / "huge.safetensors", architecture=huge)
    monkeypatch.setattr("cxrsr_cli.networks.layers.build_network", lambda _: pytest.fail("built"))
    with pytest.raises(ModelError, match="does not hold the tensors"):
        load_network(path)


def test_weights_that_are_no_real_numbers_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_model)
    tensors["deep.bias"] = torch.complex(tensors["deep.bias"], tensors["deep.bias"])
    path = tmp_path / "complex.safetensors"
    save_file(tensors, path, read_metadata(tiny_model).to_header())
    with pytest.raises(ModelError, match="does not hold the tensors"):
        load_network(path)


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    """Reading it would wait for ever."""
    for name in ("m.safetensors", "m"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ModelError, match=r"no weights file|no model"):
            find_model(str(tmp_path / name), 2)


def test_weights_with_nan_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_model)
    tensors["deep.bias"][0] = float("nan")
    path = tmp_path / "nan.safetensors"
    save_file(tensors, path, read_metadata(tiny_model).to_header())
    with pytest.raises(ModelError, match="not finite"):
        load_network(path)


@pytest.mark.parametrize(
    ("name", "scale", "says"),
    [
        ("no-such", 4, "no model 'no-such' for scale 4"),
        ("/no/such.safetensors", 4, "no weights file"),
    ],
)
def test_an_unknown_model_is_refused(name: str, scale: int, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        find_model(name, scale)


def test_a_model_of_another_scale_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="upscales by 2, not by 4"):
        find_model(str(tiny_model), 4)
