"""The shipped models are not worse than bicubic interpolation on the middle of an image a hospital.

The cards of the models have the figures of all images, whole, and all kinds of input.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cxrsr_cli.evaluation.evaluator import Evaluator, read_ground_truth
from cxrsr_cli.evaluation.input_kinds import parse_inputs
from cxrsr_cli.evaluation.methods import MODEL, Method
from cxrsr_cli.evaluation.protocol import PROTOCOLS, ProtocolName
from cxrsr_cli.images.image_files import GrayscaleImage, list_image_files
from cxrsr_cli.images.marks import mark_mask
from cxrsr_cli.metrics.metric import ImageComparison
from cxrsr_cli.metrics.psnr_ssim import PSNR_OUTSIDE_MARKS, psnr_outside_marks
from cxrsr_cli.networks.config import SCALES
from cxrsr_cli.networks.model_files import ModelFile, bundled_models
from tests.conftest import ROOT

PIXELS = 640
HOSPITALS = ("nih", "hannover10", "guangzhou10")


def test_weights_are_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "models").iterdir()) < 64 << 20


def middle(image: GrayscaleImage) -> GrayscaleImage:
    """Cut out lungs and mediastinum."""
    sides = [min(side // SCALES[-1] * SCALES[-1], PIXELS) for side in image.values.shape[-2:]]
    top, left = (
        (length - side) // 2 for length, side in zip(image.values.shape[-2:], sides, strict=True)
    )
    return replace(image, values=image.values[..., top : top + sides[0], left : left + sides[1]])


@pytest.mark.slow
@pytest.mark.parametrize("hospital", HOSPITALS)
@pytest.mark.parametrize("model", bundled_models(), ids=lambda model: model.name)
def test_no_kind_of_input_is_worse_than_bicubic_interpolation(
    shared: Path, model: ModelFile, hospital: str
) -> None:
    """By more than the tolerance, outside of marks; impulses for the models that expect them."""
    scale = model.metadata.scale
    is_filtered = model.metadata.config().impulse_filter
    names = "salt-pepper-1" if is_filtered else PROTOCOLS[ProtocolName.MIXED].inputs
    methods = (Method("bicubic", impulse_filter=is_filtered), Method(MODEL))
    evaluator = Evaluator.load(scale, methods, {MODEL: model.path}, (), device="cpu")
    gains = {}
    for path in list_image_files(shared / "cxr" / hospital / "test")[:1]:
        original = middle(read_ground_truth(path, scale))
        marks = mark_mask(original.values, original.data_range)
        for kind in parse_inputs(names):
            low = kind.reduce(original, scale)
            bicubic, upscaled = (
                psnr_outside_marks(
                    ImageComparison(
                        output.values, original.values, low, marks, original.minimum,
                        original.maximum, scale,
                    )
                )
                for _, output in evaluator.outputs(original, low)
            )  # fmt: skip
            gains[f"{path.name} {kind}"] = upscaled - bicubic
    tolerance = PSNR_OUTSIDE_MARKS.tolerance
    assert {name: gain for name, gain in gains.items() if gain < -tolerance} == {}
    assert torch.tensor(list(gains.values())).mean() > 0
