"""Measure speed and memory, and put the tables into docs/studies/speed.md.

    python -m benchmarks.speed [TABLE ...]

Without names all tables are made, in some forty minutes of two cores with
nothing else running. Times that are compared were taken in turns in one run,
and are medians; so are ratios, of the pairs.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks import reference_tiled
from benchmarks.conv_ceiling import ceiling_seconds
from benchmarks.machine_info import machine
from benchmarks.run_study import fill
from benchmarks.study_config import PAGES
from benchmarks.synthetic_radiographs import mosaic, write
from benchmarks.timing import Budget, clock
from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.evaluation.tables import Table as Layout
from cxrsr_cli.inference.assemble import OutputAssembler
from cxrsr_cli.inference.noise_curve import NoiseCurve
from cxrsr_cli.inference.normalisation import Normalisation
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.inference.streaming import stream
from cxrsr_cli.networks.config import Agreement
from cxrsr_cli.networks.model_files import DEFAULT_MODEL, find_model
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler

PAGE = PAGES / "speed.md"
RANGE = 4095
MIB = 1 << 20
ROUNDS = 3

CPU = torch.device("cpu")


def main() -> None:
    """Make the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("table", nargs="*", metavar="TABLE")
    for name in parser.parse_args().table or TABLES:
        with tempfile.TemporaryDirectory() as folder:
            text = TABLES[name](Path(folder))
        fill(PAGE, name, f"{text}\n\n{machine(CPU)}")
        print(f"\n{name}\n\n{text}", flush=True)


def load_predictor(scale: int, agreement: Agreement = Agreement.NOISE) -> Predictor:
    """Load the default model."""
    return Predictor.load(find_model(DEFAULT_MODEL, scale).path, device="cpu", agreement=agreement)


def ceiling(folder: Path) -> str:
    """Compare end to end with the convolutions alone, and show where the time goes."""
    rows = []
    for scale, side in ((4, 512), (4, 1024), (4, 2048), (2, 1024), (8, 1024)):
        of = load_predictor(scale)
        source = write(folder / "in.dcm", side, side)
        strip = of.plan(side, side).rows
        options = UpscaleOptions(device="cpu", overwrite=True)
        upscaler = Upscaler.load(find_model(DEFAULT_MODEL, scale), options)
        ceilings, budgets = [], []
        for _ in range(ROUNDS):
            ceilings.append(ceiling_seconds(of.program, side, side, strip) if of.program else 0.0)
            budgets.append(Budget.of(upscaler, Job(source, folder / "out.dcm")))
        pairs = zip(ceilings, budgets, strict=True)
        share = median(best / budget.total for best, budget in pairs)
        middle = sorted(budgets, key=lambda budget: budget.total)[ROUNDS // 2]
        rows.append(
            [
                f"x{scale}",
                f"{side}²",
                *(f"{each:.2f}" for each in (median(ceilings), middle.total)),
                f"{100 * share:.0f} %",
                f"{100 * of.plan(side, side).overlap:.1f} %",
                *(f"{each:.2f}" for each in middle.parts),
            ]
        )
    titles = ["scale", "input", "convolutions s", "end to end s", "share", "border"]
    titles += ["read s", "network s", "assembly s", "rest s", "write s"]
    return table(titles, rows)


def against_reference(_: Path) -> str:
    """Compare with the same restoration, plainly written."""
    rows = []
    for scale in (2, 4, 8):
        of = load_predictor(scale, Agreement.EXACT)
        low = mosaic(1024, 1024).astype(np.int32)
        share = 1 - of.noise_reduction
        made, plainly, ratios = [], [], []
        for _round in range(ROUNDS):
            first, quick = clock(of.upscale, low, PixelRange(0, RANGE))
            # Its network, in the memory format that PyTorch has by default.
            network = of.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            second, slow = clock(reference_tiled.upscale, network, low, PixelRange(0, RANGE), share)
            made.append(quick)
            plainly.append(slow)
            ratios.append(slow / quick)
        error = np.abs(first - second)
        rows.append(
            [
                f"x{scale}",
                *(f"{each:.2f}" for each in (median(plainly), median(made), median(ratios))),
                str(error.max()),
                f"{(error > 0).mean():.1e}",
            ]
        )
    titles = ["scale", "plain s", "this s", "ratio", "largest difference", "pixels that differ"]
    return table(titles, rows)


def agreement(_: Path) -> str:
    """Compare the network with the estimate of the noise, and with image skip and agreement."""
    rows = []
    noise = NoiseCurve((0,), (1.0,))
    for scale in (2, 4, 8):
        of = load_predictor(scale)
        stored = mosaic(1024, 1024).astype(np.int32)
        low = torch.from_numpy(stored.astype(np.float32))[None, None]
        assembler = OutputAssembler(
            of.architecture, Normalisation(0.0, 1.0), low, low, noise, PixelRange(0, RANGE)
        )
        residual = torch.zeros(1, 1, 1024 * scale, 1024 * scale)
        network, estimated, assembled = [], [], []
        for _round in range(ROUNDS):
            network.append(clock(run_network, of, low)[1])
            estimated.append(clock(NoiseCurve.estimate, stored, PixelRange(0, RANGE))[1])
            assembled.append(clock(assemble, assembler, residual)[1])
        shares = [
            median(one / net for one, net in zip(taken, network, strict=True))
            for taken in (estimated, assembled)
        ]
        rows.append(
            [
                f"x{scale}",
                *(f"{median(each):.2f}" for each in (network, estimated, assembled)),
                *(f"{100 * share:.0f} %" for share in shares),
            ]
        )
    titles = ["scale", "network s", "noise s", "assembly s", "noise / network"]
    return table([*titles, "assembly / network"], rows)


@torch.inference_mode()
def run_network(of: Predictor, low: torch.Tensor) -> None:
    """Run the network and drop what it makes."""
    if of.program:
        for _ in stream(of.program, low / RANGE, rows=of.plan(*low.shape[-2:]).rows):
            pass


@torch.inference_mode()
def assemble(assembler: OutputAssembler, residual: torch.Tensor) -> None:
    """Add the image skip and enforce agreement, as `upscale` does."""
    for _ in assembler.strips(iter([residual])):
        pass


def memory(folder: Path) -> str:
    """Compare the peaks that the planner predicts with those measured."""
    cases: list[tuple[int, int, int, int | None]]
    cases = [(1024, 1024, scale, None) for scale in (2, 4, 8)]
    cases += [(3000, 2500, scale, None) for scale in (2, 4, 8)]
    cases += [(3000, 2500, 4, 512), (4096, 4096, 4, None)]
    rows = []
    for height, width, scale, limit in cases:
        found = probe(folder, height, width, scale, limit)
        predicted, peak = found["predicted_bytes"], found["peak_bytes"]
        rows.append(
            [
                f"x{scale}",
                f"{height}x{width}",
                f"{limit} MiB" if limit else "",
                f"{found['rows']:.0f}",
                *(f"{each / MIB:.0f}" for each in (predicted, peak)),
                f"{100 * (predicted / peak - 1):+.0f} %",
                f"{found['read'] + found['restore'] + found['write']:.1f}",
            ]
        )
    titles = ["scale", "input", "`--memory`", "rows", "predicted MiB", "measured MiB", "error", "s"]
    return table(titles, rows)


def probe(
    folder: Path, height: int, width: int, scale: int, limit: int | None = None
) -> dict[str, float]:
    """Do one job in a process of its own (`benchmarks.measure_job`)."""
    source = write(folder / "in.dcm", height, width)
    command = ["-m", "benchmarks.measure_job", str(source), str(folder / "out.dcm")]
    command += ["--scale", str(scale), *(["--memory", str(limit * MIB)] if limit else [])]
    return dict(json.loads(python(command)))


def folder_of_files(folder: Path) -> str:
    """Do a folder, with more or fewer files read and written beside the network."""
    write(folder / "0.dcm", 512, 512)
    sources = folder / "in"
    sources.mkdir()
    for number in range(8):
        shutil.copy(folder / "0.dcm", sources / f"{number}.dcm")
    choices = (0, 1, 2, 4)
    taken: dict[int, list[float]] = {workers: [] for workers in choices}
    for number in range(ROUNDS):
        for workers in choices:
            options = ["--io-workers", str(workers), "--no-ledger"]
            target = folder / f"out{number}-{workers}"
            command = ["upscale", *options, "--scale", "4", str(sources), str(target)]
            taken[workers].append(clock(cxrsr, command)[1])
    rows = [
        [
            str(workers),
            f"{median(taken[workers]):.1f}",
            f"{median(a / b for a, b in zip(taken[workers], taken[0], strict=True)):.2f}",
        ]
        for workers in choices
    ]
    return table(["`--io-workers`", "8 files s", "to 0"], rows)


def start_up(folder: Path) -> str:
    """Show what a command costs before it does anything."""
    small = write(folder / "small.dcm", 256, 256)
    imports = "import numpy, pydicom, scipy.linalg, torch"
    line = ["upscale", "--overwrite", "--scale", "4", str(small), str(folder / "out.dcm")]
    tasks = {
        "a bare interpreter": ["-c", "pass"],
        "`import torch` and the other libraries": ["-c", imports],
        "`cxrsr --help`": ["-m", "cxrsr_cli", "--help"],
        "`cxrsr info`": ["-m", "cxrsr_cli", "info"],
        "`cxrsr upscale --scale 4` of 256x256": ["-m", "cxrsr_cli", *line],
    }
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(2 * ROUNDS):
        for name, task in tasks.items():
            taken[name].append(clock(python, task)[1])
    return table(["", "s"], [[name, f"{median(each):.2f}"] for name, each in taken.items()], 1)


def cxrsr(arguments: list[str]) -> None:
    """Run the command quietly."""
    python(["-m", "cxrsr_cli", *arguments])


def python(arguments: list[str]) -> str:
    """Run Python, and return what it printed."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def table(titles: Sequence[str], rows: list[list[str]], words: int = 2) -> str:
    """Lay out a table in Markdown."""
    return Layout([(title, 0) for title in titles], rows).as_markdown(left_columns=words)


TABLES: dict[str, Callable[[Path], str]] = {
    "ceiling": ceiling,
    "plain": against_reference,
    "agreement": agreement,
    "memory": memory,
    "folder": folder_of_files,
    "start-up": start_up,
}


if __name__ == "__main__":
    main()
