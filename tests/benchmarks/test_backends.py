"""The benchmark of backends computes the shipped network and marks missing packages."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch

from benchmarks import backends
from benchmarks.cpu_backends import (
    Backend,
    BackendInputs,
    Compute,
    SplitFusionNetwork,
    torch_backend,
)
from benchmarks.study_config import PAGES
from cxrsr_cli.evaluation.resource_usage import ResourceUsage
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.networks.rir import ResidualInResidual


def shipped(scale: int) -> Predictor:
    return Predictor.load(find_model("rir-s", scale).path, device="cpu")


@pytest.mark.parametrize("scale", [2, 4, 8])
@torch.inference_mode()
def test_the_network_with_split_fusions_computes_the_same(scale: int) -> None:
    network = cast("ResidualInResidual", shipped(scale).network)
    values = torch.randn(1, 9, 12, 14, generator=torch.Generator().manual_seed(0))
    for share in (0.0, 1.0):
        split = SplitFusionNetwork(network, share)
        torch.testing.assert_close(split(values), network.residual(values, share))


def test_a_backend_computes_the_residual_of_the_network(tmp_path: Path) -> None:
    predictor = shipped(4)
    inputs = BackendInputs(cast("ResidualInResidual", predictor.network), (), tmp_path)
    compute = torch_backend(torch.float32)(inputs)()
    network_with_backend = backends.BackendNetwork(predictor.network, compute)
    low = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        made = predictor.network(low, 1 - predictor.noise_reduction)
        torch.testing.assert_close(network_with_backend(low), made)
    assert network_with_backend.seconds > 0


def absent(inputs: BackendInputs) -> Callable[[], Compute]:
    raise ImportError(inputs.folder)


def test_the_table_marks_backends_that_are_not_installed(tmp_path: Path) -> None:
    network = cast("ResidualInResidual", shipped(4).network)
    missing = backends.prepare(Backend("Other", "INT8", absent), network, (), tmp_path / "other")
    assert missing.compute is None
    reference, faster = (
        backends.BackendResult(Backend(name, "", torch_backend(torch.float32)), torch.relu,
                      ResourceUsage(1.0, 2**20), seconds=seconds, gains=[0.0, gain],
                      largest=[0.0, 1.0], squares=[0.0, 0.5])
        for name, seconds, gain in (("One", [4.0, 6.0], 0.0), ("Two", [2.0, 2.0], -0.02))
    )  # fmt: skip
    *_, one, two, other = backends.tabulate([reference, faster, missing], 1.0).splitlines()
    assert one.startswith("| One |  | 32 | 4.00 | 1.00 | 1.00 | 1.00 | never | +0.0000 |")
    assert two.startswith("| Two |  | 32 | 2.00 | 2.50 | 2.00 | 1.67 | 2.0 | -0.0100 | -0.0200 |")
    assert other.startswith("| Other | INT8 | not installed |")
    assert one.count("|") == two.count("|") == other.count("|")


def test_the_page_has_the_marks_of_the_table() -> None:
    page = (PAGES / "backends.md").read_text(encoding="utf-8")
    assert page.count("<!-- table backends x4 -->") == page.count("<!-- end -->") == 1
