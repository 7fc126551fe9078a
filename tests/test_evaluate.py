"""Evaluation measures what it says, and the shipped models keep their word."""

import csv
import re
from pathlib import Path

import pytest

from cxrsr_cli.errors import ExitCode
from cxrsr_cli.judge.evaluation import ImageScores, Method, evaluate_folder
from cxrsr_cli.learn.config import load_train_config
from cxrsr_cli.learn.images import list_images
from cxrsr_cli.restore.registry import shipped_models
from cxrsr_cli.restore.restorer import Restorer
from tests.conftest import ROOT, Command

MODELS = shipped_models()


def gains(scores: list[ImageScores]) -> list[float]:
    return [
        image.scores[Method.CONSISTENT_MODEL].psnr - image.scores[Method.CONSISTENT_BICUBIC].psnr
        for image in scores
    ]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_shipped_models_clear_the_floor_on_every_image(shared: Path, model: object) -> None:
    """Range-aware consistent bicubic is the floor; the cards say how far above it."""
    assert isinstance(model, type(MODELS[0]))
    restorer = Restorer.load(model.path, device="cpu")
    scores = list(evaluate_folder(list_images(shared / "cxr" / "nih" / "test"), restorer))
    assert len(scores) == 30
    found = gains(scores)
    assert min(found) > 0
    promised = {2: 1.6, 4: 2.5, 8: 1.1}[model.description.architecture.scale]
    assert sum(found) / len(found) >= promised
    assert all(image.scores[Method.CONSISTENT_MODEL].inconsistency < 1 for image in scores)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_models_come_with_their_configuration_and_card(model: object) -> None:
    assert isinstance(model, type(MODELS[0]))
    assert model.path.with_suffix(".yaml").is_file()
    card = model.path.with_suffix(".md").read_text(encoding="utf-8")
    assert model.sha256 in card
    config = load_train_config(model.path.with_suffix(".yaml"))
    assert model.description.config_sha256 == config.sha256()
    assert config.sha256() in card
    assert "not for diagnosis" in card.lower()


def test_the_command(cxrsr: Command, shared: Path, tiny_model: Path, tmp_path: Path) -> None:
    """An untrained model is its image skip: exactly the floor."""
    folder = tmp_path / "images"
    folder.mkdir()
    for path in list_images(shared / "cxr" / "hannover" / "test")[:2]:
        (folder / path.name).symlink_to(path)
    done = cxrsr(
        "evaluate", "--data", folder, "-s", 2, "-m", tiny_model, "--csv", tmp_path / "scores.csv"
    )
    assert done.returncode == ExitCode.OK, done.stderr
    assert "on 2 images" in done.stdout
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[2:]}
    assert set(rows) == {str(method) for method in Method}
    floor = rows[Method.CONSISTENT_BICUBIC]
    assert float(floor[0]) > float(rows[Method.BICUBIC][0])
    assert abs(float(rows[Method.CONSISTENT_MODEL][0]) - float(floor[0])) < 0.1
    with (tmp_path / "scores.csv").open(encoding="utf-8") as opened:
        lines = list(csv.DictReader(opened))
    assert len(lines) == 2 * len(Method)
    assert {line["method"] for line in lines} == set(rows)


def test_refuses_a_folder_without_images(cxrsr: Command, tiny_model: Path, tmp_path: Path) -> None:
    done = cxrsr("evaluate", "--data", tmp_path, "-s", 2, "-m", tiny_model)
    assert done.returncode == ExitCode.NOTHING_TO_DO
    assert re.search("no image .* below", done.stderr)


def test_weights_are_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "models").iterdir()) < 64 << 20
