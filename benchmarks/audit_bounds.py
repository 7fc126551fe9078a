"""Which share of the bounds of ``cxrsr verify`` the outputs of real chests reach.

    python benchmarks/audit_bounds.py --side 256 data/cxr/hannover10/test data/dicom/chest

Upscales a crop of each image with the default model, and prints for each scale and noise reduction
the largest ratio to each bound over all images. Above 1 is a false alarm.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.images.image_files import list_image_files, read_images
from cxrsr_cli.inference.noise_curve import NoiseCurve
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.config import SCALES
from cxrsr_cli.networks.model_files import DEFAULT_MODEL, find_model
from cxrsr_cli.verify.pixels import MeasuredFrame


def largest_ratios(
    predictor: Predictor, stored: NDArray[np.int32], pixel_range: PixelRange
) -> dict[str, float]:
    """Return the largest ratio to each bound in the output of one image."""
    noise = NoiseCurve.estimate(stored, pixel_range)
    output = predictor.upscale(stored, pixel_range)
    frame = MeasuredFrame.of(output, stored, noise, pixel_range, None)
    return {
        "block": float(frame.blocks(noise).max()),
        **{f"region {side}": float(ratio.max()) for side, ratio in frame.regions(noise)},
        **{f"variation {side}": float(ratio.max()) for side, ratio in frame.variations()},
    }


def main() -> None:
    """Print a line for each scale and noise reduction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--side", type=int, default=256)
    arguments = parser.parse_args()
    images = [
        image
        for folder in arguments.folders
        for path in list_image_files(folder)
        for image in read_images(path, 1)
    ]
    for scale in SCALES:
        for reduction in (0.0, 0.3, 1.0):
            model = find_model(DEFAULT_MODEL, scale)
            predictor = Predictor.load(model.path, device="cpu", noise_reduction=reduction)
            largest = dict[str, float]()
            for image in images:
                values = image.values[0, 0].numpy().astype(np.int32)
                top, left = (max(side - arguments.side, 0) // 3 for side in values.shape)
                crop = values[top : top + arguments.side, left : left + arguments.side]
                found = largest_ratios(predictor, np.ascontiguousarray(crop), image.pixel_range)
                largest = {name: max(largest.get(name, 0), found[name]) for name in found}
            line = ", ".join(f"{name} {ratio:.2f}" for name, ratio in largest.items())
            print(f"x{scale}, noise reduction {reduction:g}: {line}", flush=True)


if __name__ == "__main__":
    main()
