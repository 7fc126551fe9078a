"""docs/training.md names every key of a training configuration, with its default."""

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields

import pytest
import yaml

from cxrsr_cli.training.config import DataConfig, StageConfig, TrainConfig
from cxrsr_cli.training.degradation import DegradationConfig
from tests.conftest import ROOT

TABLE = re.compile(r"^\| `([a-z_.]+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
DOCUMENTED = {
    key: default.strip()
    for key, default, _ in TABLE.findall((ROOT / "docs" / "training.md").read_text("utf-8"))
}
SECTIONS = {"data": DataConfig, "stages": StageConfig, "degradation": DegradationConfig}
"""Architecture's keys are on a page of their own."""


def keys() -> Iterator[tuple[str, Field[object]]]:
    for field in fields(TrainConfig):
        yield field.name, field
        for each in fields(SECTIONS[field.name]) if field.name in SECTIONS else ():
            yield f"{field.name}.{each.name}", each


@pytest.mark.parametrize(("key", "field"), list(keys()), ids=lambda each: str(each)[:30])
def test_every_key_is_documented_with_its_default(key: str, field: Field[object]) -> None:
    if key == "data":
        assert {"data.train", "data.val"} <= DOCUMENTED.keys()
        return
    said = DOCUMENTED[key]
    if key == "degradation":
        assert said == "all off"
        assert not DegradationConfig().is_active
    elif field.default_factory is not MISSING:
        assert yaml.safe_load(said.strip("`")) == field.default_factory()
    elif field.default is MISSING:
        assert said == "needed"
    elif field.default is None:
        assert said == "none"
    else:
        default = field.default
        expected = list(default) if isinstance(default, tuple) else default
        assert yaml.safe_load(said.strip("`")) == expected


def test_no_key_is_documented_that_does_not_exist() -> None:
    assert set(DOCUMENTED) <= {key for key, _ in keys()}
