"""Pictures of worst cases: layout, names and atomic writing."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cxrsr_cli.commands.app import app
from cxrsr_cli.errors import OutputError
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.plots import worst_case_figure, write_worst_cases
from cxrsr_cli.evaluation.worst_cases import SIDE, WorstCase
from tests.conftest import EXAMPLE

pytest.importorskip("matplotlib")

RAMP = np.tile(np.arange(40, dtype=np.float32), (30, 1))
CASE = WorstCase(
    Method("model", ensemble=True), "a", "white-1", 0.5, 3, 4, RAMP, RAMP + 1, RAMP - 2, False
)


def test_a_standalone_picture_has_one_panel_less_than_the_page() -> None:
    standalone, page = (
        Image.open(io.BytesIO(worst_case_figure(CASE, standalone=standalone))).width
        for standalone in (True, False)
    )
    assert 2 * SIDE <= page - standalone < 3 * SIDE


def test_every_pixel_of_a_crop_is_drawn_as_four_pixels() -> None:
    """Otherwise neighbours would have different sizes."""
    crop = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE)).astype(np.float32)
    case = replace(CASE, original=crop, reference=crop, output=crop)
    drawn = np.asarray(Image.open(io.BytesIO(worst_case_figure(case))).convert("L"))
    inside = drawn[60:300, 20:300]
    assert len(np.unique(inside)) > 200
    assert np.array_equal(inside[::2, ::2], inside[1::2, 1::2])


def test_the_caption_has_method_image_input_and_position() -> None:
    assert CASE.caption == (
        "model+ensemble: image a, input white-1, +0.500 dB; 40x30 pixels at row 3, column 4"
    )


def test_file_names_are_safe_and_unique(tmp_path: Path) -> None:
    """A method can be a weights file with any characters in its name."""
    methods = [Method(base) for base in ("a b", "a-b", "A:B", "né*t", "m.safetensors")]
    cases = [replace(CASE, method=method) for method in methods]
    write_worst_cases({2: cases, 4: [CASE]}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "worst-case-x2-a-b.png",
        "worst-case-x2-a-b-2.png",
        "worst-case-x2-A-B-3.png",
        "worst-case-x2-n--t.png",
        "worst-case-x2-m.png",
        "worst-case-x4-model+ensemble.png",
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shape"):
        write_worst_cases({2: [replace(CASE, output=RAMP[:, 1:])]}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    arguments = ["evaluate", "--data", EXAMPLE.parent, "--methods", "bicubic"]
    arguments += ["--worst-cases", tmp_path / "file" / "x"]
    with pytest.raises(OutputError, match="is not a writable folder"):
        CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
