"""Pictures as outputs: what the JSON beside them may say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cxrsr_cli.comparison.compare import read_comparison
from cxrsr_cli.comparison.page import build_page
from cxrsr_cli.errors import UsageError
from cxrsr_cli.images.picture_provenance import SCHEMA
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import small_chest


def test_a_picture_names_its_model_by_the_json_beside_it(
    upscaler: Upscaler, tmp_path: Path
) -> None:
    source, output = tmp_path / "in.dcm", tmp_path / "out.png"
    small_chest().save_as(source)
    upscaler.upscale_file(source, output)
    _, shown = read_comparison(source, [output])
    assert shown.model == upscaler.options.model


def test_windowed_values_are_refused(upscaler: Upscaler, tmp_path: Path) -> None:
    source, output = tmp_path / "in.dcm", tmp_path / "out.png"
    small_chest().save_as(source)
    windowed = replace(upscaler, options=replace(upscaler.options, windowed=True))
    windowed.upscale_file(source, output)
    with pytest.raises(UsageError, match="windowed values"):
        read_comparison(source, [output])


@pytest.mark.parametrize("values", ["stored", "windowed"])
def test_json_about_another_file_is_not_believed(
    upscaler: Upscaler, tmp_path: Path, values: str
) -> None:
    source, output = tmp_path / "in.dcm", tmp_path / "out.png"
    small_chest().save_as(source)
    upscaler.upscale_file(source, output)
    beside = tmp_path / "out.png.json"
    stated = json.loads(beside.read_text())
    stated["picture"] |= {"values": values, "sha256": "0" * 64}
    beside.write_text(json.dumps(stated))
    _, shown = read_comparison(source, [output])
    assert shown.model == ""


def test_illegal_json_stops_no_comparison(upscaler: Upscaler, tmp_path: Path) -> None:
    source, output = tmp_path / "in.dcm", tmp_path / "out.png"
    small_chest().save_as(source)
    upscaler.upscale_file(source, output)
    (tmp_path / "out.png.json").write_text(json.dumps({"schema": SCHEMA}))
    _, shown = read_comparison(source, [output])
    assert shown.model == ""


def test_the_scale_bar_of_a_picture_is_as_its_file_states(
    upscaler: Upscaler, tmp_path: Path
) -> None:
    chest, source, output = (tmp_path / name for name in ("in.dcm", "in.png", "out.png"))
    small_chest(PixelSpacing=[0.2, 0.2]).save_as(chest)
    upscaler.upscale_file(chest, source)
    upscaler.upscale_file(source, output)
    page = "".join(build_page(read_comparison(source, [output])))
    assert '"as the file states"]' in page
    assert "<th>Spacing (mm), as the file states</th>" in page
    assert "Pixel Spacing" not in page
