"""How time and memory grow with the image: a plot into docs/studies/growth.png.

    python -m benchmarks.scaling_plot [--scale 4]

Every size is one job in a process of its own, from decoding to the renamed file.
"""

import argparse
import tempfile
from pathlib import Path

import matplotlib as mpl

from benchmarks.machine_info import machine
from benchmarks.run_study import fill
from benchmarks.speed import CPU, MIB, PAGE, probe, table
from benchmarks.study_config import PAGES

mpl.use("Agg")

import matplotlib.pyplot as plt

MEGAPIXELS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16)


def main() -> None:
    """Measure, plot, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=int, default=4)
    scale = parser.parse_args().scale
    seconds, peaks, predicted = [], [], []
    for megapixels in MEGAPIXELS:
        side = round((megapixels * 1e6) ** 0.5)
        with tempfile.TemporaryDirectory() as folder:
            found = probe(Path(folder), side, side, scale)
        seconds.append(found["read"] + found["restore"] + found["write"])
        peaks.append(found["peak_bytes"] / MIB)
        predicted.append(found["predicted_bytes"] / MIB)
        print(f"{megapixels} MP: {seconds[-1]:.1f} s, {peaks[-1]:.0f} MiB", flush=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.plot(MEGAPIXELS, seconds, "o-")
    left.set(xlabel="input, megapixels", ylabel="seconds", title=f"rir-s x{scale}, time")
    right.plot(MEGAPIXELS, peaks, "o-", label="measured")
    right.plot(MEGAPIXELS, predicted, "--", label="predicted")
    right.set(xlabel="input, megapixels", ylabel="MiB", title="peak memory beyond imports")
    right.legend()
    for axes in (left, right):
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.savefig(PAGES / "growth.png", dpi=110)
    rows = [
        [f"{size:g}", f"{time:.1f}", f"{time / size:.2f}", f"{peak:.0f}", f"{said:.0f}"]
        for size, time, peak, said in zip(MEGAPIXELS, seconds, peaks, predicted, strict=True)
    ]
    titles = ["input MP", "s", "s/MP", "peak MiB", "predicted MiB"]
    fill(PAGE, "growth", f"{table(titles, rows, words=0)}\n\n{machine(CPU)}")


if __name__ == "__main__":
    main()
