"""The studies compare what they say they compare, and their pages have a place for it."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import run_study as command
from benchmarks.study_config import (
    PAGES,
    RECIPE,
    SHORT,
    Study,
    Table,
    Training,
    load_study,
    study_names,
)
from cxrsr_cli.commands.app import app
from cxrsr_cli.networks.config import ImageSkip, NetworkConfig, Stem, Upsampler
from cxrsr_cli.networks.registry import FAMILIES
from cxrsr_cli.networks.rir import Attention, RirConfig
from cxrsr_cli.training.config import TrainConfig, load_train_config
from cxrsr_cli.training.trainer import learning_rate
from tests.conftest import ROOT, small_chest

RECIPE_CONFIG = load_train_config(RECIPE, SHORT)
SCALES = (2, 4, 8)
STUDIES = {name: load_study(name) for name in study_names()}
TRAININGS = {
    f"{study} {name}": Training(name, entry, 4)
    for study, plan in STUDIES.items()
    for name, entry in plan.entries.items()
    if entry.method is None
}
MORE_WORK = {"dense", "paper-form"}
"""Entries of the ablations whose lines show more work."""
AT_EQUAL_WORK = [
    (study, table, name)
    for study, names in (("rivals", ("mixed", "kinds", "paper")), ("ablations", ("parts",)))
    for table in STUDIES[study].tables
    if table.name in names
    for name in table.entries
    if STUDIES[study].entries[name].method is None and name not in MORE_WORK
]


def architecture(study: str, name: str, scale: int = 4) -> NetworkConfig:
    return Training(name, STUDIES[study].entries[name], scale).config().architecture


def test_there_are_five_studies() -> None:
    assert study_names() == ["ablations", "agreement", "kinds", "out-of-domain", "rivals"]


def test_the_recipe_is_that_of_the_shipped_network_in_fewer_steps() -> None:
    assert changed_keys(RECIPE_CONFIG, load_train_config(RECIPE)) == {"stages"}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_differs_from_the_recipe_only_by_what_it_is_about(name: str) -> None:
    """By its network, or by one key that is not part of the network."""
    beside = {
        "rir-16": set[str](),
        "rir-16-seed1": {"seed"},
        "agreement-none": {"agreement"},
        "agreement-exact": {"agreement"},
        "loss-l1": {"loss"},
        "nih-only": {"data"},
        "bicubic-only": {"degradation", "architecture"},  # without noise it has no share
    } | {f"width-{width}": {"stages", "architecture"} for width in (8, 12, 24, 32)}
    entry, config = name.partition(" ")[2], TRAININGS[name].config()
    assert changed_keys(config, RECIPE_CONFIG) - {"name"} == beside.get(entry, {"architecture"})
    assert config.name == entry


def changed_keys(config: TrainConfig, other: TrainConfig) -> set[str]:
    names = [field.name for field in fields(config)]
    return {name for name in names if getattr(config, name) != getattr(other, name)}


def test_all_trainings_of_a_study_differ() -> None:
    for study in STUDIES:
        own = [
            replace(training.config(), name="one")
            for name, training in TRAININGS.items()
            if name.startswith(f"{study} ")
        ]
        assert len({config.sha256() for config in own}) == len(own)


def test_a_name_has_the_same_training_in_all_studies() -> None:
    """Studies share a folder of runs."""
    by_name: dict[str, str] = {}
    for name, training in TRAININGS.items():
        digest = training.config().sha256()
        assert by_name.setdefault(name.partition(" ")[2], digest) == digest


@pytest.mark.parametrize(("study", "table", "name"), AT_EQUAL_WORK)
def test_entries_at_equal_work_have_equal_macs(study: str, table: Table, name: str) -> None:
    for scale in table.scales:
        reference = architecture(study, table.reference, scale).complexity.macs
        assert architecture(study, name, scale).complexity.macs == pytest.approx(
            reference, rel=0.01
        )


@pytest.mark.parametrize("name", ["edsr-16", "rcan-16", "srcnn-16"])
def test_matched_rivals_share_all_but_the_body(name: str) -> None:
    shared = ["scale", "image_skip", "residual_scale", "noise_share"]
    shared += [] if name == "srcnn-16" else ["channels", "upsampler", "stem"]
    ours, theirs = architecture("rivals", "rir-16"), architecture("rivals", name)
    assert [getattr(theirs, each) for each in shared] == [getattr(ours, each) for each in shared]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("name", "model"), [("rir-16", "rir-s"), ("rir-64", "rir")])
def test_the_references_are_the_models(name: str, model: str, scale: int) -> None:
    config = load_train_config(ROOT / "models" / f"{model}-x{scale}.yaml")
    assert architecture("rivals", name, scale) == config.architecture


def test_every_baseline_and_every_part_of_the_network_is_studied() -> None:
    """The impulse filter is in the study of kinds, which trains nothing."""
    shown = {name for study in ("rivals", "ablations") for table in STUDIES[study].tables
             for name in table.entries}  # fmt: skip
    all_of_them = [
        training.config().architecture
        for name, training in TRAININGS.items()
        if name.partition(" ")[2] in shown
    ]
    assert {each.network for each in all_of_them} == set(FAMILIES)
    ours = [each for each in all_of_them if isinstance(each, RirConfig)]
    seen = {
        field: {getattr(each, field) for each in ours}
        for field in (
            "attention", "dense", "long_skip", "image_skip", "stem", "upsampler", "noise_share"
        )
    }  # fmt: skip
    assert seen == {
        "attention": {Attention.NONE, Attention.BLOCK},
        "dense": {True, False}, "long_skip": {True, False},
        "image_skip": set(ImageSkip), "stem": set(Stem), "upsampler": set(Upsampler),
        "noise_share": {True, False},
    }  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_every_page_has_the_marks_of_its_tables(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    places = [f"<!-- table {table.name} x{scale} -->" for table in STUDIES[name].tables
              for scale in table.scales]  # fmt: skip
    assert all(page.count(place) == 1 for place in places)
    assert page.count("<!-- table") == page.count("<!-- end -->") == len(places)


def scores(*psnr: float, kinds: tuple[str, ...] = ("bicubic",)) -> command.EntryScores:
    """Make scores of images, each with each kind of input."""
    metrics = {"ssim": 0.9, "ms_ssim": 0.99, "haarpsi_med": 0.5}
    cases = [
        command.Case(kind, "test", f"{index}.png")
        for index in range(len(psnr) // len(kinds))
        for kind in kinds
    ]
    images = {
        case: {"psnr_outside_marks": value, **metrics}
        for case, value in zip(cases, psnr, strict=True)
    }
    return command.EntryScores(images, parameters=1000, macs=2000.0)


def test_the_differences_of_a_table_are_paired_by_image(tmp_path: Path) -> None:
    study = load_study("out-of-domain")
    table = study.tables[0]
    found = {"bicubic": scores(30, 40, 35), "rir-s": scores(31, 39.5, 36.5)}
    text = command.tabulate(study, table, found, "Here.")
    assert text.splitlines()[2].startswith(
        "| `bicubic` | antialiased bicubic | 1,000 | 2,000 | 35.000 |"
    )
    assert "| 35.667 | +0.667 | +1.000, -0.500, +1.500 | -0.500 | 1/3 |  |" in text, "too few"
    many = {name: scores(*[each["psnr_outside_marks"] for each in judged.images.values()] * 2)
            for name, judged in found.items()}  # fmt: skip
    assert re.search(
        r"\| 35.667 \| \+0.667 \| [+-]0\.\d{3} to \+1\.\d{3} \| -0.500 \| 2/6 \| 0.\d+ \|",
        command.tabulate(study, table, many, "Here."),
    )
    note = "3 images of `models/studies/deep.txt`; input bicubic. Here."
    assert text.splitlines()[-1] == note
    page = tmp_path / "page.md"
    page.write_text(
        "# T\n\n<!-- table a x2 -->\n\nold\n\n<!-- end -->\n\nprose\n", encoding="utf-8"
    )
    command.fill(page, "a x2", text)
    filled = page.read_text(encoding="utf-8")
    assert "old" not in filled
    assert filled.startswith("# T\n\n<!-- table a x2 -->\n\n|  |")
    assert filled.endswith("Here.\n\n<!-- end -->\n\nprose\n")
    with pytest.raises(SystemExit, match="has no table"):
        command.fill(page, "b x2", text)


def test_a_table_by_kind_has_a_line_for_each_group_and_a_column_for_each_kind() -> None:
    study = load_study("kinds")
    kinds = ("bicubic", "white-1")
    found = {
        "bicubic": scores(30, 20, 40, 30, kinds=kinds),
        "rir-s": scores(31, 20.2, 40.5, 29.8, kinds=kinds),
    }
    head, _, line, *_ = command.tabulate(study, study.tables[0], found, "Here.").splitlines()
    assert head.startswith("|  | images of | bicubic | white-1 | all, dB to `bicubic` | 95 %")
    assert line == (
        "| `rir-s`: as `upscale` does | test | +0.75 | +0.00 | +0.38 | +0.15 to +0.60 | -0.20 "
        "| 1/4 | +0.0000 |"
    )


def test_a_study_is_run_and_its_page_is_filled(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study of an untrained network and two small images, with the real command."""
    monkeypatch.chdir(tmp_path)
    for hospital in ("one", "other"):
        folder = tmp_path / "data" / hospital / "test"
        folder.mkdir(parents=True)
        small_chest().save_as(folder / "a.dcm")
    (tmp_path / "toy.yaml").write_text(
        "entries:\n"
        "  bicubic: {about: antialiased bicubic, method: bicubic}\n"
        f"  exact: {{about: exact, method: {tiny_model}+exact}}\n"
        "tables:\n"
        "  - {name: all, scales: [2], reference: bicubic, entries: [bicubic, exact],\n"
        "     data: [data/one/test, data/other/test], inputs: 'binned,white-1', by_kind: true}\n",
        encoding="utf-8",
    )
    page = tmp_path / "toy.md"
    page.write_text("<!-- table all x2 -->\n<!-- end -->\n", encoding="utf-8")
    monkeypatch.setattr("benchmarks.study_config.STUDIES", tmp_path)
    monkeypatch.setattr(command, "PAGES", tmp_path)
    monkeypatch.setattr("sys.argv", ["run_study", "toy", "--device", "cpu"])
    monkeypatch.setattr(command, "run_cxrsr", run_here)
    command.main()
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[2].startswith("|  | images of | binned | white-1 |")
    assert [line.split(" | ")[:2] for line in lines[4:6]] == [
        ["| `exact`: exact", "one"],
        ["| `exact`: exact", "other"],
    ]
    assert lines[7].startswith("2 images of `data/one/test`, `data/other/test`; input binned, ")


def run_here(arguments: list[str]) -> None:
    """Run the command in this process."""
    assert CliRunner().invoke(app, arguments).exit_code == 0


def test_results_of_other_weights_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise they are used again. Methods are evaluated together."""
    monkeypatch.chdir(tmp_path)
    asked = list[list[str]]()
    sha256 = "1" * 64
    monkeypatch.setattr(command, "find_model", lambda *_: SimpleNamespace(sha256=sha256))

    def write_results(arguments: list[str]) -> None:
        asked.append(arguments)
        methods = arguments[arguments.index("--methods") + 1].split(",")
        cost = {"parameters": 1, "macs_per_input_pixel": 2.0}
        scores = {method: {"psnr_outside_marks": 40.0} for method in methods}
        outcome = {
            "models": {"rir-s": {"sha256": sha256}},
            "methods": {method: {"cost": cost} for method in methods},
            "images": [{"name": "a", "group": "nih", "input": "binned", "scores": scores}],
        }
        path = Path(arguments[arguments.index("--json") + 1])
        path.write_text(json.dumps({"outcomes": [outcome]}), encoding="utf-8")

    monkeypatch.setattr(command, "run_cxrsr", write_results)
    study = load_study("agreement")

    def evaluate() -> dict[str, command.EntryScores]:
        return command.evaluate_all(study, study.tables[0], 2, "cpu")

    assert evaluate() == evaluate()
    assert len(asked) == 1
    assert asked[0][:5] == ["evaluate", "--scale", "2", "--protocol", "mixed"]
    assert asked[0].count("--data") == 3
    methods = "bicubic,bicubic+exact,rir-s+none,rir-s+noise,rir-s+exact,rir-s+consistent"
    assert asked[0][asked[0].index("--methods") + 1] == methods
    (path,) = (tmp_path / "runs" / "studies" / "scores").iterdir()
    path.write_text(path.read_text(encoding="utf-8").replace(sha256, "0" * 64), "utf-8")
    case = command.Case("binned", "nih", "a")
    assert evaluate()["none"].images == {case: {"psnr_outside_marks": 40.0}}
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"entries": ("bicubic", "nobody")}, "unknown nobody"),
        ({"reference": "bicubic", "entries": ("rir-s",)}, "does not show its reference"),
    ],
)
def test_an_invalid_study_is_refused(changes: dict[str, Any], says: str) -> None:
    study = load_study("out-of-domain")
    with pytest.raises(ValueError, match=says):
        Study(entries=study.entries, tables=(replace(study.tables[0], **changes),))


@pytest.mark.parametrize("scale", SCALES)
def test_the_configuration_of_the_paper_is_as_published(scale: int) -> None:
    config = load_train_config(ROOT / "models" / f"rir-paper-x{scale}.yaml")
    millions = {2: 2.76, 4: 2.91, 8: 3.06}[scale]
    assert round(config.architecture.complexity.parameters / 1e6, 2) == millions
    assert config.architecture.image_skip is ImageSkip.NONE
    epochs = [0, 119, 120, 239, 240, 359]
    rates = [learning_rate(config, 1000 * epoch) for epoch in epochs]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-5, 2e-5, 2e-6, 2e-6])
