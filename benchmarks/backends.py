"""Compare other backends with PyTorch, and other arithmetic with float32, on a CPU.

    python -m benchmarks.backends [--images 30] [--rounds 15]

Measures the backends of benchmarks/cpu_backends.py with rir-s at x4: the speed
of the network on strips of full width, in alternation, and the change of the
output if the predictor uses the backend. Prints a table and writes it into
docs/studies/backends.md. The table marks backends that are not installed:

    pip install openvino nncf onnx onnxruntime

Needs a checkout with its package installed, and the images below data/.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch

from benchmarks.cpu_backends import BACKENDS, Backend, BackendInputs, Compute
from benchmarks.machine_info import machine
from benchmarks.run_study import fill
from benchmarks.study_config import PAGES, ROOT
from cxrsr_cli.evaluation.evaluator import read_ground_truth
from cxrsr_cli.evaluation.paired_statistics import PairedDifference
from cxrsr_cli.evaluation.resource_usage import ResourceUsage, measure_usage
from cxrsr_cli.evaluation.tables import Table
from cxrsr_cli.images.image_files import list_image_files
from cxrsr_cli.inference.normalisation import Normalisation
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.metrics.psnr_ssim import psnr
from cxrsr_cli.networks.layers import SuperResolutionNetwork
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.networks.rir import ResidualInResidual
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler

SCALE = 4
CALIBRATION = Path("data/cxr/nih/val")
TEST = Path("data/cxr/nih/test")
SOURCE = ROOT / "examples" / "chest-1024.dcm"

WIDTH = 1024
HEIGHTS = (32, 64)
"""Heights of strips in input pixels. A feature map of 32 channels has 4 or 8 MiB in float32."""

TARGET_SPEEDUP = 1.5
"""Speed-up of the whole work that a backend must reach."""

PACKAGES = ("openvino", "nncf", "onnxruntime")
CPU = torch.device("cpu")


class BackendNetwork(SuperResolutionNetwork):
    """A network whose residual is computed by a backend.

    Attributes
    ----------
    seconds : float
        Time of the backend.
    """

    def __init__(self, network: SuperResolutionNetwork, compute: Compute) -> None:
        super().__init__(network.architecture, network.stem)
        self.network, self.compute, self.seconds = network, compute, 0.0

    def residual(
        self,
        x: torch.Tensor,
        noise_share: torch.Tensor | float = 1.0,  # noqa: ARG002 - the backend has been made for one
    ) -> torch.Tensor:
        """Compute with the backend."""
        start = time.perf_counter()
        output = self.compute(x)
        self.seconds += time.perf_counter() - start
        return output


@dataclass(slots=True)
class BackendResult:
    """Measurements of a backend.

    Attributes
    ----------
    backend : Backend
        The backend.
    compute : callable or None
        Its function; None if it is not installed.
    loading : ResourceUsage
        Of loading it and of a first strip.
    height : int
        Height of the strips on which it is fastest.
    seconds : list of float
        For each round, for a million input pixels. Other work on the machine can
        only add to them, so the smallest is that of the backend.
    gains, largest, squares : list of float
        For each image: difference of PSNR to the reference in dB; the largest
        and the mean square difference to its output, in stored units.
    """

    backend: Backend
    compute: Compute | None = None
    loading: ResourceUsage = field(default_factory=ResourceUsage)
    height: int = HEIGHTS[0]
    seconds: list[float] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    largest: list[float] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)


@torch.inference_mode()
def main() -> None:
    """Measure, print the table and write it into its page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=30, help="of the test set, the first ones")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    predictor = Predictor.load(find_model("rir-s", SCALE).path, device="cpu")
    network = cast("ResidualInResidual", predictor.network)
    examples = [
        predictor.network.stem(image).contiguous() for image in calibration(CALIBRATION, SCALE)
    ]
    with TemporaryDirectory() as folder:
        lines = [
            prepare(backend, network, examples, Path(folder) / str(index))
            for index, backend in enumerate(BACKENDS)
        ]
        paths = list_image_files(TEST)[: arguments.images]
        measure_quality([line for line in lines if line.compute], predictor, paths)
        time_backends([line for line in lines if line.compute], arguments.rounds)
        print_progress("everything else")
        rest = min(time_without_network(predictor, lines[1], SCALE) for _ in range(3))
    table = f"{tabulate(lines, rest)}\n\n{note(len(paths), rest, arguments.rounds)}"
    print(table)
    fill(PAGES / "backends.md", f"backends x{SCALE}", table)


def calibration(folder: Path, scale: int) -> Iterator[torch.Tensor]:
    """Yield every image of a folder, downsampled, in network values."""
    for path in list_image_files(folder):
        original = read_ground_truth(path, scale)
        low = original.downsample(scale)
        yield Normalisation.from_image(low, inverted=original.inverted).to_network(low)


def prepare(
    backend: Backend, network: ResidualInResidual, examples: Sequence[torch.Tensor], folder: Path
) -> BackendResult:
    """Prepare a backend, if it is installed."""
    print_progress(f"{backend.name} {backend.about}")
    folder.mkdir()
    try:
        load = backend.prepare(BackendInputs(network, examples, folder))
    except ImportError:
        return BackendResult(backend)
    with measure_usage(CPU) as loading:
        compute = load()
        compute(strip(HEIGHTS[0]))
    return BackendResult(backend, compute, loading)


def strip(height: int) -> torch.Tensor:
    """Make random output of a stem for a strip."""
    return torch.randn(1, 9, height, WIDTH)


def time_backends(lines: Sequence[BackendResult], rounds: int) -> None:
    """Time the backends in alternation, each on strips of its fastest height."""
    print_progress(f"{rounds} rounds")
    for line in lines:
        fastest = {height: min(timed(line, height) for _ in range(2)) for height in HEIGHTS}
        line.height = min(fastest, key=lambda height: fastest[height])
    for _ in range(rounds):
        for line in lines:
            line.seconds.append(timed(line, line.height))


def timed(line: BackendResult, height: int) -> float:
    """Time one strip, after one that brings its backend's weights and threads back."""
    if line.compute is None:
        raise ValueError("not installed")
    values = strip(height)
    line.compute(values)
    start = time.perf_counter()
    line.compute(values)
    return (time.perf_counter() - start) / (height * WIDTH) * 1e6


def measure_quality(
    lines: Sequence[BackendResult], predictor: Predictor, paths: Sequence[Path]
) -> None:
    """Compare outputs with the original and with those of the first backend."""
    scale = predictor.architecture.scale
    print_progress(f"{len(paths)} images")
    for path in paths:
        original = read_ground_truth(path, scale)
        low = original.downsample(scale)
        reference, best = torch.empty(0), 0.0
        for line in lines:
            output = _with_backend(predictor, line).predict(low, original.pixel_range)
            found = psnr(output.round(), original.values, peak=original.data_range, border=scale)
            if line is lines[0]:
                reference, best = output, found
            line.gains.append(found - best)
            difference = output - reference
            line.largest.append(difference.abs().max().item())
            line.squares.append(difference.square().mean().item())


def time_without_network(predictor: Predictor, line: BackendResult, scale: int) -> float:
    """Time all of an upscaling but the network, in seconds for a million input pixels."""
    network_with_backend = _with_backend(predictor, line)
    loaded = Upscaler.load(find_model("rir-s", scale), UpscaleOptions(device="cpu"))
    upscaler = replace(loaded, predictor=network_with_backend)
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        opened = upscaler.read(Job(SOURCE, Path(folder) / "output.dcm"))
        upscaler.write(upscaler.upscale(opened))
        everything = time.perf_counter() - start
    spent = cast("BackendNetwork", network_with_backend.network).seconds
    return (everything - spent) / opened.frames.size * 1e6


def _with_backend(predictor: Predictor, line: BackendResult) -> Predictor:
    if line.compute is None:
        raise ValueError("not installed")
    return replace(predictor, network=BackendNetwork(predictor.network, line.compute), program=None)


def tabulate(lines: Sequence[BackendResult], rest: float) -> str:
    """Lay out what was found; the first line is the reference.

    "rest for 1.5" is what all but the network may take for the whole to be that much faster.
    """
    titles = [
        "", "", "rows", "network s/MP", "in turns", "times as fast", "end to end", "rest for 1.5",
        "PSNR dB", "worst", "RMS", "largest", "load s", "MB",
    ]  # fmt: skip
    base, rows = min(lines[0].seconds), []
    for line in lines:
        cells = [line.backend.name, line.backend.about]
        if line.compute is None:
            rows.append([*cells, "not installed", *[""] * (len(titles) - 3)])
            continue
        seconds = min(line.seconds)
        turns = [one / other for one, other in zip(lines[0].seconds, line.seconds, strict=True)]
        enough = (base - TARGET_SPEEDUP * seconds) / (TARGET_SPEEDUP - 1)
        gain = PairedDifference.of(line.gains, larger_is_better=True)
        peak = line.loading.peak_bytes
        cells += [
            str(line.height),
            f"{seconds:.2f}",
            f"{statistics.median(turns):.2f}",
            f"{base / seconds:.2f}",
            f"{(base + rest) / (seconds + rest):.2f}",
            f"{enough:.1f}" if enough > 0 else "never",
            f"{gain.mean:+.4f}",
            f"{gain.worst:+.4f}",
            f"{statistics.mean(line.squares) ** 0.5:.3f}",
            f"{max(line.largest):.2f}",
            f"{line.loading.seconds:.2f}",
            "" if peak is None else f"{peak / 1e6:.0f}",
        ]
        rows.append(cells)
    return Table([(title, 0) for title in titles], rows).as_markdown(left_columns=2)


def note(images: int, rest: float, rounds: int) -> str:
    """Say what was measured where."""
    return (
        f"{images} images of `{TEST}`, calibrated on `{CALIBRATION}`; {rounds} rounds in "
        f"turns; everything but the network takes {rest:.2f} s/MP. "
        f"{machine(CPU)[:-1]}, {', '.join(_versions())}."
    )


def print_progress(what: str) -> None:
    """Show what is being done."""
    print(f"{datetime.now().astimezone():%H:%M:%S} {what}", file=sys.stderr)


def _versions() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"no {name}"


if __name__ == "__main__":
    main()
