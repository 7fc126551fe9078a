"""Train and evaluate the networks of a study, and write its tables into its page.

    python -m benchmarks.run_study NAME [--table NAME] [--set KEY=VALUE] [--device auto]

models/studies/NAME.yaml defines the study, docs/studies/NAME.md gets the
results. `cxrsr train` and `cxrsr evaluate` do the work, and their commands are
printed. Finished work in runs/studies is not repeated, and an interrupted
training is resumed. Needs a checkout with its package installed, and the images
below data/.
"""

import argparse
import json
import math
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine_info import machine
from benchmarks.study_config import (
    PAGES,
    RECIPE,
    RUNS,
    Study,
    Table,
    Training,
    load_study,
    study_names,
)
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.paired_statistics import PairedDifference
from cxrsr_cli.evaluation.tables import Table as Layout
from cxrsr_cli.inference.device import choose_device
from cxrsr_cli.metrics.haarpsi import HAARPSI_MED
from cxrsr_cli.metrics.metric import Metric
from cxrsr_cli.metrics.ms_ssim import MS_SSIM
from cxrsr_cli.metrics.psnr_ssim import PSNR, SSIM
from cxrsr_cli.networks.model_files import find_model, read_metadata
from cxrsr_cli.training.trainer import CHECKPOINT_NAME

METRICS = (SSIM, MS_SSIM, HAARPSI_MED)
"""The metrics in addition to PSNR."""

FEW = 6
"""With fewer images, the difference of each image is shown instead of an interval. Wilcoxon's p
cannot be below 0.05 either."""


def main() -> None:
    """Complete a study and write its tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", choices=study_names())
    parser.add_argument("--table", action="append", help="only this one; can be repeated")
    parser.add_argument("--set", dest="extra", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    study, extra = load_study(arguments.study), tuple(arguments.extra)
    tables = [
        table for table in study.tables if not arguments.table or table.name in arguments.table
    ]
    for table in tables:
        for scale in table.scales:
            train_all(study, table, scale, extra, arguments.device)
            scores = evaluate_all(study, table, scale, arguments.device)
            where = machine(choose_device(arguments.device))
            page = PAGES / f"{arguments.study}.md"
            fill(page, f"{table.name} x{scale}", tabulate(study, table, scores, where))
            print(f"{page.name}: {table.name} x{scale}")


def train_all(study: Study, table: Table, scale: int, extra: tuple[str, ...], device: str) -> None:
    """Train the networks of a table that are not trained yet.

    Raises
    ------
    SystemExit
        If a folder has the weights of another training.
    """
    for name in table.entries:
        entry = study.entries[name]
        training = Training(name, entry, scale)
        if entry.method:
            continue
        if training.weights.exists():
            if read_metadata(training.weights).config_sha256 != training.config(extra).sha256():
                raise SystemExit(f"{training.folder} has another training; move it away")
            continue
        command = ["train", str(RECIPE), "--run-dir", str(training.folder), "--device", device]
        command += ["--resume"] * (training.folder / CHECKPOINT_NAME).exists()
        for override in (*training.overrides, *extra):
            command += ["--set", override]
        run_cxrsr(command)


@dataclass(frozen=True, slots=True)
class EntryScores:
    """Results of `evaluate` for one entry.

    Attributes
    ----------
    images : dict
        Scores by image and metric.
    parameters : int
        Number of parameters of its network.
    macs : float
        Multiply-accumulate operations of its network per pixel of the input.
    """

    images: dict[str, dict[str, float]]
    parameters: int
    macs: float


def evaluate_all(study: Study, table: Table, scale: int, device: str) -> dict[str, EntryScores]:
    """Evaluate the entries of a table that have no results for the same weights.

    Methods are evaluated together, because they can share the output of a
    network. Trained networks are evaluated one by one, as they are trained.
    """
    methods = [name for name in table.entries if study.entries[name].method]
    trained = [[name] for name in table.entries if name not in methods]
    entry_scores = dict[str, EntryScores]()
    for names in [methods, *trained] if methods else trained:
        asked = {name: _method(study, table, name, scale) for name in names}
        what = table.name if names is methods else names[0] + table.suffix
        parts = (what, table.data, table.noise or "clean", f"x{scale}")
        path = RUNS / "scores" / f"{'_'.join(parts).replace('/', '-').replace(':', '-')}.json"
        labels = {name: str(Method.parse(method)) for name, method in asked.items()}
        outcome = _scores(path, scale, set(labels.values()))
        if outcome is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            command = ["evaluate", "--data", table.data, "--scale", str(scale)]
            command += ["--methods", ",".join(asked.values()), "--reference", asked[names[0]]]
            command += ["--json", str(path), "--device", device]
            run_cxrsr([*command, *(["--noise", table.noise] if table.noise else [])])
            outcome = _scores(path, scale, set(labels.values())) or {}
        for name, label in labels.items():
            images = {image["name"]: image["scores"][label] for image in outcome["images"]}
            cost = outcome["methods"][label]["cost"]
            macs = cost["macs_per_input_pixel"]
            entry_scores[name] = EntryScores(images, cost["parameters"], macs)
    return entry_scores


def _method(study: Study, table: Table, name: str, scale: int) -> str:
    entry = study.entries[name]
    return entry.method or f"{Training(name, entry, scale).weights}{table.suffix}"


def _scores(path: Path, scale: int, labels: set[str]) -> dict[str, Any] | None:
    """Read the results of `evaluate`, if they are for these methods and the current weights."""
    if not path.exists():
        return None
    (outcome,) = json.loads(path.read_text(encoding="utf-8"))["outcomes"]
    if set(outcome["methods"]) != labels:
        return None
    for base, model in outcome["models"].items():
        if find_model(base, scale).sha256 != model["sha256"]:
            return None
    return dict(outcome)


def tabulate(study: Study, table: Table, scores: dict[str, EntryScores], where: str) -> str:
    """Format a table in Markdown, with a note about images and machine."""
    reference = scores[table.reference]
    count = len(reference.images)
    titles = ["", "", "parameters", "MACs", "PSNR dB", f"to `{table.reference}`"]
    titles += ["95 % interval" if count >= FEW else "each image"]
    titles += ["better", "p", *(metric.title for metric in METRICS)]
    rows = []
    for name in table.entries:
        entry_scores = scores[name]
        cells = [f"`{name}`", study.entries[name].about]
        cells += [f"{entry_scores.parameters:,}", f"{entry_scores.macs:,.0f}"]
        cells += [f"{mean(entry_scores, PSNR):.3f}"]
        cells += _gain(entry_scores, reference) if entry_scores is not reference else [""] * 4
        cells += [f"{mean(entry_scores, metric):.{metric.decimals}f}" for metric in METRICS]
        rows.append(cells)
    noise = f", noise `{table.noise}` on the input" if table.noise else ""
    note = f"{count} images of `{table.data}`{noise}. {where}"
    layout = Layout([(title, 0) for title in titles], rows)
    return f"{layout.as_markdown(left_columns=2)}\n\n{note}"


def mean(entry_scores: EntryScores, metric: Metric) -> float:
    """Return the mean of a metric over the images."""
    values = [scores[metric.key] for scores in entry_scores.images.values()]
    return sum(values) / len(values)


def _gain(entry_scores: EntryScores, reference: EntryScores) -> list[str]:
    pairs = [(entry_scores.images[name], other) for name, other in reference.images.items()]
    gains = [one[PSNR.key] - other[PSNR.key] for one, other in pairs]
    found = PairedDifference.of(gains, larger_is_better=True)
    better = f"{found.wins}/{found.count}"
    if len(gains) < FEW:
        return [f"{found.mean:+.3f}", ", ".join(f"{gain:+.3f}" for gain in gains), better, ""]
    p_value = "" if math.isnan(found.p_value) else f"{found.p_value:.1g}"
    return [f"{found.mean:+.3f}", f"{found.low:+.3f} to {found.high:+.3f}", better, p_value]


def fill(page: Path, place: str, text: str) -> None:
    """Replace the text between the marks of a table in a page.

    Raises
    ------
    SystemExit
        If the page has no marks of this table.
    """
    marks = re.compile(rf"(<!-- table {re.escape(place)} -->\n).*?(<!-- end -->)", re.DOTALL)
    old = page.read_text(encoding="utf-8")
    if not marks.search(old):
        raise SystemExit(f"{page} has no table '{place}'")
    new = marks.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", old)
    page.write_text(new, encoding="utf-8")


def run_cxrsr(arguments: list[str]) -> None:
    """Print a command and run it.

    Raises
    ------
    SystemExit
        If it fails.
    """
    print(shlex.join(["cxrsr", *arguments]), flush=True)
    done = subprocess.run([sys.executable, "-m", "cxrsr_cli", *arguments], check=False)
    if done.returncode:
        raise SystemExit(f"failed with exit code {done.returncode}")


if __name__ == "__main__":
    main()
