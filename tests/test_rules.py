"""Which object follows which rule, and which configurations are refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError
from pydicom.dataset import Dataset

from cxrsr_cli.errors import ConfigError
from cxrsr_cli.serve.config import load_serve_config
from cxrsr_cli.serve.rules import Rule, When, first_that_holds
from cxrsr_cli.serve.state import Item, State


def item(**changes: object) -> Item:
    facts = {"calling_ae": "PACS", "called_ae": "CXRSR", "address": "127.0.0.1"}
    numbers = {"begun": 0, "attempts": 0, "due": 0.0, "arrived": 0.0}
    words = {"key": "k", "state": State.RECEIVED, "rule": "", "reason": ""}
    return Item(**{**facts, **numbers, **words, **changes})  # type: ignore[arg-type]


def chest(**changes: object) -> Dataset:
    dataset = Dataset()
    dataset.Modality, dataset.BodyPartExamined = "DX", "CHEST"
    dataset.SeriesDescription, dataset.StudyDescription = "Thorax pa", "Admission"
    dataset.Rows, dataset.Columns = 2000, 2128
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


WHENS = [
    ({}, True),
    ({"calling_ae": ("PACS",)}, True),
    ({"calling_ae": ("OTHER", "PACS")}, True),
    ({"calling_ae": ("OTHER",)}, False),
    ({"called_ae": ("CXRSR",)}, True),
    ({"called_ae": ("CXRSR4",)}, False),
    ({"modality": ("CR", "DX")}, True),
    ({"modality": ("CR",)}, False),
    ({"body_part": ("CHEST",)}, True),
    ({"body_part": ("",)}, False),
    ({"description": "THORAX"}, True),
    ({"description": "^adm"}, True),
    ({"description": "lateral|ap$"}, False),
    ({"smallest_side": 2000}, True),
    ({"smallest_side": 2001}, False),
    ({"largest_side": 2128}, True),
    ({"largest_side": 2127}, False),
    ({"modality": ("DX",), "largest_side": 100}, False),
]


@pytest.mark.parametrize(("when", "holds"), WHENS, ids=[str(when) for when, _ in WHENS])
def test_a_rule_holds_if_all_that_it_asks_for_does(when: dict[str, Any], holds: bool) -> None:
    assert When(**when).holds(item(), chest()) is holds


def test_what_an_object_does_not_state() -> None:
    bare = Dataset()
    assert When(modality=("",), body_part=("",)).holds(item(), bare)
    assert not When(smallest_side=1).holds(item(), bare)
    assert not When(description=".").holds(item(), bare)


def test_a_term_in_small_letters() -> None:
    dataset = chest()
    dataset["BodyPartExamined"]._value = "chest "  # as some devices write it
    assert When(body_part=("CHEST",)).holds(item(), dataset)


def test_the_first_rule_that_holds_is_followed() -> None:
    rules = [
        Rule(name="cr", when=When(modality=("CR",)), send_to=("a",)),
        Rule(name="dx", when=When(modality=("DX",)), ignore=True),
        Rule(name="rest", send_to=("a",)),
    ]
    found = [first_that_holds(rules, item(), chest(Modality=m)) for m in ("CR", "DX", "SC")]
    assert [rule and rule.name for rule in found] == ["cr", "dx", "rest"]
    assert first_that_holds(rules[:1], item(), chest()) is None


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"name": "a"}, "either send_to or ignore"),
    ({"name": "a", "ignore": True, "send_to": ["x"]}, "either send_to or ignore"),
    ({"name": "a", "send_to": ["x"], "upscale": {"scale": 3}}, "scale is one of"),
    ({"name": "a", "send_to": ["x"], "upscale": {"modl": "x"}}, "modl"),
    ({"name": "a", "send_to": ["x"], "when": {"description": "("}}, "no regular expression"),
    ({"name": "a", "send_to": ["x"], "when": {"modalty": ["CR"]}}, "modalty"),
    (
        {"name": "a", "send_to": ["x"], "upscale": {"series_description": "Käse"}},
        "ASCII characters",
    ),
]


@pytest.mark.parametrize(("plain", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_a_rule_that_cannot_be_meant(plain: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(Rule).validate_python(plain)


CONFIG: dict[str, Any] = {
    "spool": "spool",
    "listen": {"ae_title": "CXRSR", "port": 11112, "peers": [{"ae_title": "PACS"}]},
    "destinations": {
        "archive": {"kind": "store", "host": "pacs", "port": 104, "called_ae": "PACS"},
        "web": {"kind": "stow", "url": "https://pacs/dicom-web"},
        "share": {"kind": "folder", "path": "out"},
    },
    "rules": [{"name": "chests", "when": {"modality": ["CR", "DX"]}, "send_to": ["archive"]}],
    "memory": "2GiB",
    "health": {"port": 9100},
}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **changes}), encoding="utf-8")
    return path


def test_a_configuration(tmp_path: Path) -> None:
    config = load_serve_config(written(tmp_path))
    assert config.memory == 2 << 30
    assert config.rules[0].when.modality == ("CR", "DX")
    assert set(config.destinations) == {"archive", "web", "share"}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"spol": 1}, "spol: "),
    ({"memory": "much"}, "memory: .*'much' is no size"),
    ({"health": {"port": 1, "address": "0.0.0.0"}}, "health.*not on loopback"),  # noqa: S104
    ({"destinations": {"a": {"kind": "ftp"}}}, "destinations.a: .*one of store, stow, folder"),
    ({"destinations": {"a": {"kind": "store", "host": "x"}}}, "destinations.a.port: "),
    ({"destinations": {}}, "sends to 'archive', which is no destination; those given: none"),
    ({"rules": [*CONFIG["rules"], *CONFIG["rules"]]}, "two rules are named 'chests'"),
    ({"rules": [{"name": "a"}]}, "rules.0: .*either send_to or ignore"),
    ({"retry": {"first": 0}}, "retry: .*0 < first"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_wrong_is_said_by_key(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_serve_config(written(tmp_path, **changes))
