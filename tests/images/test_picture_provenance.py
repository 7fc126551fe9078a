"""What is read of the JSON beside a picture."""

import json
import os
from pathlib import Path

import pytest

from cxrsr_cli.images.picture_provenance import (
    SCHEMA,
    PictureValues,
    StatedProvenance,
    stated_provenance,
)


def stated(
    *, schema: object = SCHEMA, model: object = "edsr", values: object = "stored", more: str = ""
) -> str:
    return json.dumps(
        {
            "schema": schema,
            "model": {"name": model},
            "picture": {"values": values, "sha256": "ab"},
            "more": more,
        }
    )


def test_model_values_and_hash_are_read(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    for values in PictureValues:
        (tmp_path / "a.png.json").write_text(stated(values=values))
        assert stated_provenance(picture) == StatedProvenance("edsr", values, "ab")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "\xff",
        json.dumps({"schema": SCHEMA}),
        json.dumps({"schema": SCHEMA, "model": {"name": "edsr"}, "picture": {"values": "stored"}}),
        json.dumps({"schema": SCHEMA, "model": "edsr", "picture": []}),
        stated(schema="cxrsr-picture/2"),
        stated(schema=[SCHEMA]),
        stated(model="\ud800"),
        stated(model="two\nlines"),
        stated(model=7),
        stated(values="other"),
        stated(values=["stored"]),
        stated(more="x" * (1 << 20)),
        f'{{"schema": "{SCHEMA}", "model": {"[" * 100_000}',
        f'{{"schema": {"9" * 5000}}}',
    ],
    ids=range(16),
)
def test_illegal_json_states_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.png.json").write_bytes(text.encode("latin-1"))
    assert stated_provenance(tmp_path / "a.png") is None


def test_what_is_not_a_regular_file_states_nothing(tmp_path: Path) -> None:
    assert stated_provenance(tmp_path / "none.png") is None
    os.mkfifo(tmp_path / "pipe.png.json")
    (tmp_path / "folder.png.json").mkdir()
    for name in ("folder", "pipe"):
        assert stated_provenance(tmp_path / f"{name}.png") is None
