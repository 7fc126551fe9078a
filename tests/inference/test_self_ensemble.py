"""The self-ensemble commutes with flips and rotations."""

from collections.abc import Callable

import pytest
import torch

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.inference.self_ensemble import average_over_transforms
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.networks.rir import ResidualInResidual, RirConfig


@pytest.fixture(scope="module")
def network() -> ResidualInResidual:
    torch.manual_seed(0)
    architecture = RirConfig(
        scale=2, channels=6, groups=1, blocks=1, image_skip=ImageSkip.NONE, residual_scale=1
    )
    return ResidualInResidual(architecture).eval()


def image(height: int = 20, width: int = 14) -> torch.Tensor:
    return torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(1))


def test_the_self_ensemble_is_the_mean_over_eight_transforms(network: ResidualInResidual) -> None:
    """All flips of rows and columns, with and without transposition."""
    total = torch.zeros(1, 1, 40, 28)
    for diagonal in (False, True):
        for flips in ([], [-1], [-2], [-1, -2]):
            turned = image().flip(flips)
            turned = turned.mT if diagonal else turned
            output = network(turned)
            total += (output.mT if diagonal else output).flip(flips)
    with torch.no_grad():
        assert torch.allclose(average_over_transforms(network)(image()), total / 8, atol=1e-6)


def quarter(x: torch.Tensor) -> torch.Tensor:
    return torch.rot90(x, 1, (-2, -1))


def mirrored(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1)


@pytest.mark.parametrize("turn", [quarter, mirrored])
@torch.inference_mode()
def test_the_self_ensemble_commutes_with_flips_and_rotations(
    network: ResidualInResidual, turn: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    ensemble = average_over_transforms(network)
    assert torch.allclose(turn(ensemble(image())), ensemble(turn(image())), atol=1e-6)
    assert not torch.allclose(turn(network(image())), network(turn(image())), atol=1e-4)


def test_a_self_ensemble_in_strips_equals_that_of_the_whole_image(
    network: ResidualInResidual,
) -> None:
    stored = (255 * image(40, 50)).round()

    def estimate(*, ensemble: bool, memory: int) -> torch.Tensor:
        predictor = Predictor.from_network(
            network, torch.device("cpu"), memory=memory, self_ensemble=ensemble
        )
        return predictor.predict(stored, PixelRange(0, 255))

    whole = estimate(ensemble=True, memory=1 << 30)
    assert torch.allclose(estimate(ensemble=True, memory=65 << 20), whole, atol=0.01)
    assert not torch.allclose(estimate(ensemble=False, memory=1 << 30), whole, atol=0.5)
