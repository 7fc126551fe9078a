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
from cxrsr_cli.inference.data_consistency import (
    MARGIN,
    OUTPUT_STEPS,
    consistent_bicubic,
    enforce_consistency,
    project_iteratively,
)
from cxrsr_cli.inference.normalisation import Normalisation
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.inference.streaming import stream
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


def load_predictor(scale: int) -> Predictor:
    """Load the default model."""
    return Predictor.load(find_model(DEFAULT_MODEL, scale).path, device="cpu")


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
    titles += ["read s", "network s", "consistency s", "rest s", "write s"]
    return table(titles, rows)


def against_reference(_: Path) -> str:
    """Compare with the same restoration, plainly written."""
    rows = []
    for scale in (2, 4, 8):
        of = load_predictor(scale)
        low = mosaic(1024, 1024).astype(np.int32)
        made, plainly, ratios = [], [], []
        for _round in range(ROUNDS):
            first, quick = clock(of.upscale, low, PixelRange(0, RANGE))
            # Its network, in the memory format that PyTorch has by default.
            network = of.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            second, slow = clock(reference_tiled.upscale, network, low, PixelRange(0, RANGE))
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


def projection(_: Path) -> str:
    """Compare both projections, iterated over the image and in closed form where possible."""
    rows = []
    for scale in (2, 4, 8):
        of = load_predictor(scale)
        low = torch.from_numpy(mosaic(1024, 1024).astype(np.float32))[None, None]
        estimate = of.predict(low, PixelRange(0, RANGE), consistency=False)
        finish = OutputAssembler(
            of.architecture, identity_normalisation(), low, low, PixelRange(0, RANGE)
        )
        noise = estimate - consistent_bicubic(low, scale, PixelRange(0, RANGE))
        network, iterated, closed = [], [], []
        for _round in range(ROUNDS):
            network.append(clock(run_network, of, low)[1])
            iterated.append(clock(iterate, estimate, low, scale)[1])
            closed.append(clock(in_strips, finish, noise)[1])
        reference = project_iteratively(estimate, low, scale, minimum=0, maximum=RANGE, steps=60)
        found = enforce_consistency(estimate, low, scale, PixelRange(0, RANGE), steps=60)
        fifteen = project_iteratively(estimate, low, scale, minimum=0, maximum=RANGE)
        pairs = list(zip(iterated, closed, network, strict=True))
        rows.append(
            [
                f"x{scale}",
                *(f"{median(each):.2f}" for each in (network, iterated, closed)),
                f"{100 * median(one / net for one, _, net in pairs):.0f} %",
                f"{100 * median(one / net for _, one, net in pairs):.0f} %",
                f"{(found - reference).abs().max():.3f}",
                f"{(fifteen - reference).abs().max():.3f}",
            ]
        )
    titles = ["scale", "network s", "iterated s", "closed form s", "iterated / network"]
    titles += ["closed form / network", "difference to 60 iterations", "of 15 iterations to 60"]
    return table(titles, rows)


def identity_normalisation() -> Normalisation:
    """Return the map that leaves values as they are."""
    return Normalisation(0.0, 1.0)


@torch.inference_mode()
def run_network(of: Predictor, low: torch.Tensor) -> None:
    """Run the network and drop what it makes."""
    if of.program:
        for _ in stream(of.program, low / RANGE, rows=of.plan(*low.shape[-2:]).rows):
            pass


@torch.inference_mode()
def iterate(estimate: torch.Tensor, low: torch.Tensor, scale: int) -> None:
    """Iterate for the image skip, and for the output."""
    consistent_bicubic(low, scale, PixelRange(0, RANGE))
    project_iteratively(estimate, low, scale, minimum=0, maximum=RANGE, steps=OUTPUT_STEPS)


@torch.inference_mode()
def in_strips(finish: OutputAssembler, residual: torch.Tensor) -> None:
    """Do both as `upscale` does."""
    height, scale = finish.network_input.shape[-2], finish.architecture.scale
    for top in range(0, height, 64):
        first, bottom = max(top - MARGIN, 0), min(top + 64, height)
        rows = residual[..., first * scale : min(bottom + MARGIN, height) * scale, :]
        finish.strip(rows, first, top, bottom, 512)


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
    "projection": projection,
    "memory": memory,
    "folder": folder_of_files,
    "start-up": start_up,
}


if __name__ == "__main__":
    main()
