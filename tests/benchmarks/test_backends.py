"""The benchmark of backends compares the shipped network, whatever is installed."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch

from benchmarks import backends
from benchmarks.cpu_backends import Compute, Engine, Lean, Material, torch_engine
from benchmarks.study_config import PAGES
from cxrsr_cli.evaluation.resource_usage import ResourceUsage
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.networks.rir import ResidualInResidual


def shipped(scale: int) -> Predictor:
    return Predictor.load(find_model("rir-s", scale).path, device="cpu")


@pytest.mark.parametrize("scale", [2, 4, 8])
@torch.inference_mode()
def test_without_concatenation_it_is_the_same_network(scale: int) -> None:
    network = cast("ResidualInResidual", shipped(scale).network)
    values = torch.randn(1, 9, 12, 14, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Lean(network)(values), network.residual(values))


def test_the_engine_makes_the_residual_of_the_pipeline(tmp_path: Path) -> None:
    restorer = shipped(4)
    material = Material(cast("ResidualInResidual", restorer.network), (), tmp_path)
    compute = torch_engine(torch.float32)(material)()
    swapped = backends.Swapped(restorer.network, compute)
    low = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(swapped(low), restorer.network(low))
    assert swapped.seconds > 0


def absent(material: Material) -> Callable[[], Compute]:
    raise ImportError(material.folder)


def test_what_is_not_installed_says_so(tmp_path: Path) -> None:
    network = cast("ResidualInResidual", shipped(4).network)
    missing = backends.prepare(Engine("Other", "INT8", absent), network, (), tmp_path / "other")
    assert missing.compute is None
    reference, faster = (
        backends.Line(Engine(name, "", torch_engine(torch.float32)), torch.relu,
                      ResourceUsage(1.0, 2**20), seconds=seconds, gains=[0.0, gain],
                      largest=[0.0, 1.0], squares=[0.0, 0.5])
        for name, seconds, gain in (("One", [4.0, 6.0], 0.0), ("Two", [2.0, 2.0], -0.02))
    )  # fmt: skip
    *_, one, two, other = backends.tabulate([reference, faster, missing], 1.0).splitlines()
    assert one.startswith("| One |  | 32 | 4.00 | 1.00 | 1.00 | 1.00 | never | +0.0000 |")
    assert two.startswith("| Two |  | 32 | 2.00 | 2.50 | 2.00 | 1.67 | 2.0 | -0.0100 | -0.0200 |")
    assert other.startswith("| Other | INT8 | not installed |")
    assert one.count("|") == two.count("|") == other.count("|")


def test_the_table_has_its_place() -> None:
    page = (PAGES / "backends.md").read_text(encoding="utf-8")
    assert page.count("<!-- table backends x4 -->") == page.count("<!-- end -->") == 1
