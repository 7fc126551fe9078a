"""Every model has a card: the template's headings in order, and what its files say."""

import re
from pathlib import Path

import pytest

from cxrsr_cli.networks.model_files import bundled_models, load_network
from cxrsr_cli.training.config import load_train_config
from tests.conftest import ROOT

FOLDER = ROOT / "models"
TEMPLATE = FOLDER / "TEMPLATE.md"
CARDS = sorted(path for path in FOLDER.glob("*.md") if path != TEMPLATE)
MODELS = {model.path.stem: model for model in bundled_models()}

every_card = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)


def sections(path: Path) -> dict[str, str]:
    """Return what stands below each heading, in order; what is above them below ''."""
    parts = re.split(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    titles = ["", *parts[1::2]]
    assert len(set(titles)) == len(titles)
    return dict(zip(titles, parts[::2], strict=True))


def table(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^\| (\w+) \| (.+) \|$", sections(path)[""], re.MULTILINE))


def test_every_model_has_a_card_and_every_card_a_model() -> None:
    assert {card.stem for card in CARDS} == set(MODELS)


def test_the_template_guides_in_one_line_a_heading() -> None:
    below = [text for title, text in sections(TEMPLATE).items() if title]
    assert all(len(text.strip().splitlines()) == 1 for text in below)


@every_card
def test_a_card_follows_the_template(card: Path) -> None:
    assert [*sections(card)] == [*sections(TEMPLATE)]
    assert [*table(card)] == [*table(TEMPLATE)]
    assert all(text.strip() for text in sections(card).values())
    head = sections(card)[""]
    assert head.startswith(f"# {card.stem}\n")
    assert "\n**Not a medical device; not for diagnosis.**\n" in head
    guidance = [text.strip() for text in (*sections(TEMPLATE).values(), *table(TEMPLATE).values())]
    text = card.read_text(encoding="utf-8")
    assert [line for line in guidance if line in text] == []


@every_card
def test_a_card_names_its_files(card: Path) -> None:
    model, rows = MODELS[card.stem], table(card)
    assert f"({model.path.name})" in rows["weights"]
    assert f"SHA-256 `{model.sha256}`" in rows["weights"]
    parameters = sum(each.numel() for each in load_network(model.path).parameters())
    assert f" {parameters:,} parameters" in rows["network"]
    configuration = card.with_suffix(".yaml")
    digest = load_train_config(configuration).sha256()
    assert model.metadata.config_sha256 == digest
    assert f"({configuration.name})" in rows["configuration"]
    assert f"`{digest}`" in rows["configuration"]
    assert model.metadata.command == f"cxrsr train models/{configuration.name}"


@every_card
def test_scores_have_their_command_and_date(card: Path) -> None:
    text = sections(card)["Scores"]
    titles = re.findall(r"^```\n(.+)$", text, re.MULTILINE)
    assert any(f"(SHA-256 {MODELS[card.stem].sha256[:12]})" in title for title in titles)
    for title in titles:
        found = re.search(r" on \d+ images? of (\S+?)(?:,|$)", title)
        assert found, title
        assert re.search(rf"cxrsr evaluate --data\s+{re.escape(found[1])}[\s`]", text), title
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", text)


@every_card
def test_a_card_shows_a_failure_with_its_command_and_date(card: Path) -> None:
    text = sections(card)["Failure cases"]
    pictures = [card.parent / target for target in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)]
    assert pictures
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 200_000
    assert re.search(r"cxrsr evaluate\s[^`]*--worst-cases\s", text)
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", text)
