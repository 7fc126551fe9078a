"""Time and memory of this network and its baselines, beside what they reach.

    python -m benchmarks.baselines_speed

Every network on the example of 256x256 at x4, on the CPU in turns: speed and
memory need no training, so that those too large to train here are timed with
random weights. PSNR is that of the study "rivals", where it was trained
(`python -m benchmarks.run_study rivals`). Puts its table into docs/studies/speed.md.
"""

import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import torch

from benchmarks.machine_info import machine
from benchmarks.run_study import evaluate_all, fill, mean
from benchmarks.speed import CPU, MIB, PAGE, RANGE, ROUNDS, table
from benchmarks.study_config import Training, load_study
from benchmarks.synthetic_radiographs import mosaic, write
from benchmarks.timing import clock
from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.evaluation.resource_usage import measure_usage
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.metrics.psnr_ssim import PSNR_OUTSIDE_MARKS
from cxrsr_cli.networks.config import NetworkConfig
from cxrsr_cli.networks.layers import build_network
from cxrsr_cli.networks.resampling import upsample

SCALE, SIDE = 4, 256
NETWORKS = ("rir-16", "edsr-16", "rcan-16", "srcnn-16", "srcnn", "rir-64", "edsr", "rcan")
TABLE = "mixed"
"""Table of the study that has their PSNR."""


@dataclass(slots=True)
class Baseline:
    """What is timed.

    Attributes
    ----------
    about : str
        What it is.
    work : callable
        Enlarges the example.
    macs : int
        For each pixel of the input.
    psnr : float or None
        In the study, in dB.
    seconds : list of float
        By round.
    peak_bytes : int
        Of this process beyond what stood before; 0 for what runs in another.
    here : bool
        Whether it runs in this process.
    """

    about: str
    work: Callable[[], object]
    macs: int = 0
    psnr: float | None = None
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    here: bool = True


def main() -> None:
    """Time them and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        baselines = [*interpolations(Path(folder)), *networks()]
        for baseline in baselines:
            with measure_usage(CPU) as usage:
                baseline.work()
            baseline.peak_bytes = (usage.peak_bytes or 0) if baseline.here else 0
        for _ in range(ROUNDS):
            for baseline in baselines:
                baseline.seconds.append(clock(baseline.work)[1])
    megapixels = SIDE**2 / 1e6
    rows = [
        [
            baseline.about,
            f"{baseline.macs:,}" if baseline.macs else "",
            f"{median(baseline.seconds) / megapixels:.2f}",
            f"{baseline.peak_bytes / MIB / megapixels:.0f}" if baseline.peak_bytes else "",
            f"{baseline.psnr:.2f}" if baseline.psnr else "",
        ]
        for baseline in baselines
    ]
    titles = ["", "MACs", "s/MP", "MiB/MP", PSNR_OUTSIDE_MARKS.title]
    text = table(titles, rows, words=1)
    fill(PAGE, "rivals", f"{text}\n\n{machine(CPU)}")
    print(text)


def interpolations(folder: Path) -> list[Baseline]:
    """Return what needs no network; dcmscale is a process, from a file to a file."""
    low = torch.from_numpy(mosaic(SIDE, SIDE).astype("float32"))[None, None]
    source = write(folder / "in.dcm", SIDE, SIDE)
    command = ["dcmscale", "+Sxf", str(SCALE), "+Syf", str(SCALE), str(source)]
    return [
        Baseline(
            "DCMTK's dcmscale, a process",
            partial(subprocess.run, [*command, str(folder / "out.dcm")], check=True),
            here=False,
        ),
        Baseline("bicubic", partial(upsample, low, SCALE)),
    ]


def networks() -> list[Baseline]:
    """Return the networks, in agreement with their input."""
    study, found = load_study("rivals"), study_psnrs()
    low = mosaic(SIDE, SIDE).astype("int32")
    baselines = []
    for name in NETWORKS:
        entry, architecture = study.entries[name], rival_architecture(name)
        predictor = Predictor.from_network(build_network(architecture).eval(), CPU)
        work = partial(predictor.upscale, low, PixelRange(0, RANGE))
        macs = architecture.complexity.macs
        baselines.append(Baseline(f"`{name}`, {entry.about}", work, macs, found.get(name)))
    return baselines


def rival_architecture(name: str) -> NetworkConfig:
    """Return the configuration of one of the networks."""
    return Training(name, load_study("rivals").entries[name], SCALE).config().architecture


def study_psnrs() -> dict[str, float]:
    """Return the PSNR of the networks that the study has evaluated."""
    study = load_study("rivals")
    (table_of_study,) = (each for each in study.tables if each.name == TABLE)
    scores = evaluate_all(study, table_of_study, SCALE, "cpu")
    return {name: mean(each, table_of_study.first_figure) for name, each in scores.items()}


if __name__ == "__main__":
    main()
