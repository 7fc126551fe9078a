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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
from cxrsr_cli.metrics.psnr_ssim import SSIM
from cxrsr_cli.networks.model_files import find_model, read_metadata
from cxrsr_cli.training.trainer import CHECKPOINT_NAME

METRICS = (SSIM, MS_SSIM, HAARPSI_MED)
"""The metrics in addition to the first figure."""

FEW = 6
"""With fewer images, the difference of each image is shown instead of an interval. Wilcoxon's p
cannot be below 0.05 either."""


class Case(NamedTuple):
    """An image with a kind of input."""

    input_kind: str
    group: str
    image: str


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
        Scores by case and metric.
    parameters : int
        Number of parameters of its network.
    macs : float
        Multiply-accumulate operations of its network per pixel of the input.
    """

    images: dict[Case, dict[str, float]]
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
        what = "+".join(names) + ("" if names is methods else table.suffix)
        path = RUNS / "scores" / f"{what}_{table.digest}_x{scale}.json"
        labels = {name: str(Method.parse(method)) for name, method in asked.items()}
        outcome = _scores(path, scale, set(labels.values()))
        if outcome is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            command = ["evaluate", "--scale", str(scale), "--protocol", table.protocol]
            for folder in table.data:
                command += ["--data", folder]
            command += ["--input", table.inputs] if table.inputs else []
            command += ["--methods", ",".join(asked.values()), "--reference", asked[names[0]]]
            command += ["--json", str(path), "--device", device]
            run_cxrsr(command)
            outcome = _scores(path, scale, set(labels.values())) or {}
        for name, label in labels.items():
            images = {
                Case(image["input"], image["group"], image["name"]): image["scores"][label]
                for image in outcome["images"]
            }
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
    cases = scores[table.reference].images
    layout = _by_kind if table.by_kind else _by_entry
    count = len({(case.group, case.image) for case in cases})
    folders = ", ".join(f"`{folder}`" for folder in table.data)
    kinds = ", ".join(_kinds(cases))
    note = f"{count} images of {folders}; input {kinds}. {where}"
    return f"{layout(study, table, scores).as_markdown(left_columns=2)}\n\n{note}"


def _by_entry(study: Study, table: Table, scores: dict[str, EntryScores]) -> Layout:
    """Make a line for each entry."""
    reference, first = scores[table.reference], table.first_figure
    titles = ["", "", "parameters", "MACs", first.title, f"dB to `{table.reference}`"]
    titles += ["95 % interval" if _count(reference) >= FEW else "each"]
    titles += ["worst", "worse", "p", *(metric.title for metric in METRICS)]
    rows = []
    for name in table.entries:
        entry_scores = scores[name]
        cells = [f"`{name}`", study.entries[name].about]
        cells += [f"{entry_scores.parameters:,}", f"{entry_scores.macs:,.0f}"]
        cells += [f"{mean(entry_scores, first):.3f}"]
        cells += [""] * 5 if name == table.reference else _gain(entry_scores, reference, first)
        cells += [f"{mean(entry_scores, metric):.{metric.decimals}f}" for metric in METRICS]
        rows.append(cells)
    return Layout([(title, 0) for title in titles], rows)


def _by_kind(study: Study, table: Table, scores: dict[str, EntryScores]) -> Layout:
    """Make a line for each entry but the reference with each group, a column for each kind."""
    reference, first = scores[table.reference], table.first_figure
    kinds = _kinds(reference.images)
    titles = ["", "images of", *kinds, f"all, dB to `{table.reference}`"]
    titles += ["95 % interval", "worst", "worse", f"{HAARPSI_MED.title} to `{table.reference}`"]
    rows = []
    for name in table.entries:
        if name == table.reference:
            continue
        for group in dict.fromkeys(case.group for case in reference.images):
            cases = [case for case in reference.images if case.group == group]
            found = compare(scores[name], reference, first, cases)
            other = compare(scores[name], reference, HAARPSI_MED, cases)
            of_kinds = []
            for kind in kinds:
                own = [case for case in cases if case.input_kind == kind]
                of_kinds.append(compare(scores[name], reference, first, own).mean)
            rows.append([
                f"`{name}`: {study.entries[name].about}",
                group,
                *(f"{gain:+.2f}" for gain in of_kinds),
                f"{found.mean:+.2f}",
                _interval(found, 2),
                f"{found.worst:+.2f}",
                f"{found.losses}/{found.count}",
                f"{other.mean:+.4f}",
            ])  # fmt: skip
    return Layout([(title, 0) for title in titles], rows)


def _kinds(cases: Iterable[Case]) -> list[str]:
    return list(dict.fromkeys(case.input_kind for case in cases))


def _count(entry_scores: EntryScores) -> int:
    return len({(case.group, case.image) for case in entry_scores.images})


def mean(entry_scores: EntryScores, metric: Metric) -> float:
    """Return the mean of a metric over the cases for which it is defined."""
    values = [scores[metric.key] for scores in entry_scores.images.values()]
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def compare(
    entry_scores: EntryScores, reference: EntryScores, metric: Metric, cases: Sequence[Case]
) -> PairedDifference:
    """Compare an entry with the reference, case by case."""
    return PairedDifference.of(
        [
            entry_scores.images[case][metric.key] - reference.images[case][metric.key]
            for case in cases
        ],
        larger_is_better=metric.larger_is_better,
        tolerance=metric.tolerance,
        images=[(case.group, case.image) for case in cases],
    )


def _gain(entry_scores: EntryScores, reference: EntryScores, metric: Metric) -> list[str]:
    cases = list(reference.images)
    found = compare(entry_scores, reference, metric, cases)
    interval = _interval(found, 3)
    if _count(reference) < FEW:
        gains = [compare(entry_scores, reference, metric, [case]).mean for case in cases]
        interval = ", ".join(f"{gain:+.3f}" for gain in gains)
    few = _count(reference) < FEW or math.isnan(found.p_value)
    return [
        f"{found.mean:+.3f}",
        interval,
        f"{found.worst:+.3f}",
        f"{found.losses}/{found.count}",
        "" if few else f"{found.p_value:.1g}",
    ]


def _interval(found: PairedDifference, decimals: int) -> str:
    return f"{found.low:+.{decimals}f} to {found.high:+.{decimals}f}"


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
