"""Speed and error by precision, size and scale, on a GPU or the CPU.

    python -m benchmarks.precision [--device auto] [--side 1024 ...] [--scale 2 4 8]

Restores the example, from stored values on the CPU to stored values on the CPU,
in every precision that the device has, in turns. Errors are against float32 on
the same device. The share is that of the peak of matrix products in the same
precision, measured here too. Puts its table into docs/studies/speed.md.
"""

import argparse
from statistics import median

import numpy as np
import torch

from benchmarks.machine_info import machine
from benchmarks.run_study import fill
from benchmarks.speed import PAGE, RANGE, ROUNDS, table
from benchmarks.synthetic_radiographs import mosaic
from benchmarks.timing import clock, synchronize
from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.inference.device import choose_device, dtype_of
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.config import Precision
from cxrsr_cli.networks.model_files import DEFAULT_MODEL, find_model

_SQUARE = 4096
_SUM = 2


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--side", type=int, nargs="+", default=[1024])
    parser.add_argument("--scale", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    precisions = [Precision.FP32, Precision.BF16]
    precisions += [Precision.FP16] if device.type != "cpu" else []
    peaks = {each: matrix_peak(device, dtype_of(each)) for each in precisions}
    rows = []
    for scale in arguments.scale:
        path = find_model(arguments.model, scale).path
        predictors = {
            each: Predictor.load(path, device=str(device), precision=each) for each in precisions
        }
        for side in arguments.side:
            rows += compare(predictors, peaks, side)
    titles = ["scale", "input", "precision", "s", "input MP/s", "share of matrix products"]
    titles += ["times float32", "RMS error", "largest", "pixels that differ"]
    text = table(titles, rows)
    place = "precision" if device.type == "cpu" else "gpu"
    fill(PAGE, place, f"{text}\n\n`{arguments.model}`, {RANGE + 1} grey values. {machine(device)}")
    print(text)


def compare(
    predictors: dict[Precision, Predictor], peaks: dict[Precision, float], side: int
) -> list[list[str]]:
    """Restore an image in every precision, in turns."""
    low = mosaic(side, side).astype(np.int32)
    seconds: dict[Precision, list[float]] = {each: [] for each in predictors}
    made: dict[Precision, np.ndarray] = {}
    for _ in range(ROUNDS + 1):
        for precision, predictor in predictors.items():
            made[precision], taken = clock(predictor.upscale, low, PixelRange(0, RANGE))
            seconds[precision].append(taken)
    rows = []
    exact = made[Precision.FP32].astype(float)
    for precision, predictor in predictors.items():
        # The first round warms up.
        taken = median(seconds[precision][1:])
        pairs = zip(seconds[Precision.FP32][1:], seconds[precision][1:], strict=True)
        work = _SUM * predictor.architecture.complexity.macs * side**2
        error = np.abs(made[precision] - exact)
        rows.append(
            [
                f"x{predictor.architecture.scale}",
                f"{side}x{side}",
                str(precision),
                f"{taken:.2f}",
                f"{side**2 / 1e6 / taken:.2f}",
                f"{100 * work / taken / peaks[precision]:.0f} %",
                f"{median(one / other for one, other in pairs):.2f}",
                f"{np.sqrt(np.mean(error**2)):.3f}",
                f"{error.max():.0f}",
                f"{100 * np.mean(error > 0):.2f} %",
            ]
        )
    return rows


def matrix_peak(
    device: torch.device, dtype: torch.dtype, side: int = _SQUARE, runs: int = ROUNDS
) -> float:
    """Measure operations a second of a large matrix product."""
    values = torch.rand(side, side).to(device, dtype)

    def multiply() -> None:
        torch.matmul(values, values)
        synchronize(device)

    multiply()
    return _SUM * side**3 / min(clock(multiply)[1] for _ in range(runs))


if __name__ == "__main__":
    main()
