"""Time and memory of this network and its rivals, beside what they reach.

    python -m benchmarks.baselines_speed

Every network on the example of 256x256 at x4, on the CPU in turns: speed and
memory need no training, so that those too large to train here are timed with
random weights. PSNR is that of the study of rivals, where it was trained
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
from benchmarks.run_study import fill, judge, mean
from benchmarks.speed import CPU, MIB, PAGE, RANGE, ROUNDS, table
from benchmarks.study_config import Training, load_study
from benchmarks.synthetic_radiographs import mosaic, write
from benchmarks.timing import clock
from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.evaluation.resource_usage import measure_usage
from cxrsr_cli.inference.data_consistency import consistent_bicubic
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.metrics.psnr_ssim import PSNR
from cxrsr_cli.networks.resampling import upsample

SCALE, SIDE = 4, 256
NETWORKS = ("rir-32", "edsr-32", "rcan-32", "srcnn", "rir-64", "edsr", "rcan")
SHOWN = ("clean", "early")
"""Tables of the study that have their PSNR."""


@dataclass(slots=True)
class Rival:
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
        On nih/test, in dB.
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
        rivals = [*interpolations(Path(folder)), *networks()]
        for rival in rivals:
            with measure_usage(CPU) as usage:
                rival.work()
            rival.peak_bytes = (usage.peak_bytes or 0) if rival.here else 0
        for _ in range(ROUNDS):
            for rival in rivals:
                rival.seconds.append(clock(rival.work)[1])
    megapixels = SIDE**2 / 1e6
    rows = [
        [
            rival.about,
            f"{rival.macs:,}" if rival.macs else "",
            f"{median(rival.seconds) / megapixels:.2f}",
            f"{rival.peak_bytes / MIB / megapixels:.0f}" if rival.peak_bytes else "",
            f"{rival.psnr:.2f}" if rival.psnr else "",
        ]
        for rival in rivals
    ]
    titles = ["", "MACs", "s/MP", "MiB/MP", "PSNR dB"]
    text = table(titles, rows, words=1)
    fill(PAGE, "rivals", f"{text}\n\n{machine(CPU)}")
    print(text)


def interpolations(folder: Path) -> list[Rival]:
    """Return what needs no network; dcmscale is a process, from a file to a file."""
    low = torch.from_numpy(mosaic(SIDE, SIDE).astype("float32"))[None, None]
    source = write(folder / "in.dcm", SIDE, SIDE)
    command = ["dcmscale", "+Sxf", str(SCALE), "+Syf", str(SCALE), str(source)]
    floor = partial(consistent_bicubic, low, SCALE, PixelRange(0, RANGE))
    return [
        Rival(
            "DCMTK's dcmscale, a process",
            partial(subprocess.run, [*command, str(folder / "out.dcm")], check=True),
            here=False,
        ),
        Rival("bicubic", partial(upsample, low, SCALE)),
        Rival("range-aware consistent bicubic, iterated", floor, psnr=reached().get("floor")),
    ]


def networks() -> list[Rival]:
    """Return the networks, made consistent."""
    study, found = load_study("rivals"), reached()
    low = mosaic(SIDE, SIDE).astype("int32")
    rivals = []
    for name in NETWORKS:
        entry = study.entries[name]
        architecture = Training(name, entry, SCALE).config().architecture
        restorer = Predictor.from_network(architecture.build().eval(), CPU)
        work = partial(restorer.upscale, low, PixelRange(0, RANGE))
        macs = architecture.complexity.macs
        rivals.append(Rival(f"`{name}`, {entry.about}", work, macs, found.get(name)))
    return rivals


def reached() -> dict[str, float]:
    """Return the PSNR of those that the study has trained and judged."""
    study, found = load_study("rivals"), dict[str, float]()
    for each in study.tables:
        if each.name in SHOWN:
            for name, judged in judge(study, each, SCALE, "cpu").items():
                found[name] = mean(judged, PSNR)
    return found


if __name__ == "__main__":
    main()
