"""The study of detectors shows what `upscale` makes, and its page has a place for all of it."""

import re

import numpy as np

from benchmarks.detectors import (
    BICUBIC,
    CROPS,
    DETECTORS,
    PAGE,
    REGION,
    Detector,
    Method,
    draw_crops,
    make_methods,
    measure,
    sources_table,
    spectra_table,
)

CHEST = Detector("example", "examples/chest-256.dcm", (128, 128))
LARGE = Detector("example", "examples/chest-1024.dcm", (512, 512))


def test_a_part_comes_out_as_in_the_whole_image() -> None:
    """Noise and range of values are those of the whole image."""
    for method in make_methods("rir-s", 2)[:2]:
        whole = CHEST.enlarge(method, (0, 0), 256)
        assert whole.shape == (512, 512)
        for top, left in ((64, 64), (0, 128), (128, 128)):
            part = CHEST.enlarge(method, (top, left), REGION)
            inside = whole[2 * top : 2 * (top + REGION), 2 * left : 2 * (left + REGION)]
            assert np.abs(part - inside).max() <= 1, "rounding"


def test_bicubic_interpolation_is_compared_with_itself() -> None:
    method = Method(BICUBIC, 2)
    table = spectra_table({(LARGE, method): measure(LARGE, method)})
    assert table.rows[0][1] == BICUBIC
    assert table.rows[0][3:7] == ["1.00"] * 4
    (source,) = sources_table([LARGE]).rows
    assert source[1:3] == ["1024x1024", "0 to 4095"]


def test_the_picture_has_a_row_for_each_scale_and_a_column_for_each_method() -> None:
    methods = [[Method(BICUBIC, scale)] for scale in (2, 4)]
    picture = draw_crops(CHEST, methods)
    side = 2 * CROPS[2][0] * CROPS[2][1]
    assert side == np.prod(CROPS[4]) * 4 == np.prod(CROPS[8]) * 8
    assert 0 < picture.width - 2 * side < 20
    assert 0 < picture.height - 2 * side < 40


def test_the_page_has_a_place_for_every_table_and_shows_every_picture() -> None:
    text = PAGE.read_text(encoding="utf-8")
    places = re.findall("<!-- table (.*) -->", text)
    assert places == ["sources", *(f"spectra x{scale}" for scale in CROPS)]
    pictures = {name.removeprefix("detectors-") for name in re.findall(r"\((.*)\.png\)", text)}
    assert pictures == {"spectra", *(each.name.lower().replace(" ", "-") for each in DETECTORS)}
    assert sum(path.stat().st_size for path in PAGE.parent.glob("detectors-*.png")) < 1.5e6
