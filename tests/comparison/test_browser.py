"""The page in a real browser: what it draws, and what it does not let happen."""

import base64
import math
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cxrsr_cli.comparison.compare import Shown
from cxrsr_cli.comparison.page import write_page
from cxrsr_cli.comparison.tiles import means
from cxrsr_cli.images.display import Display, Preset
from cxrsr_cli.verify.findings import Aspect, ClaimStatus, Finding, Place
from tests.helpers.browser import Browser, browser
from tests.helpers.comparisons import bicubic, pair, voi_lut

pytestmark = [pytest.mark.process, pytest.mark.slow]

_WHEEL_OF_HALF = math.log(2) / 0.0015
"""Turn of the wheel that halves the zoom."""
_READ_CANVAS = """(() => {
const canvas = document.getElementById("canvas");
const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
let grey = "";
for (let i = 0; i < pixels.length; i += 4) {
  const isGrey = pixels[i] === pixels[i + 1] && pixels[i] === pixels[i + 2];
  grey += String.fromCharCode(isGrey && pixels[i + 3] === 255 ? pixels[i] : 77);
}
return [canvas.width, canvas.height, btoa(grey)];
})()"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


def show(
    window: Browser,
    shown: list[Shown],
    width: int = 1280,
    height: int = 800,
    *,
    ratio: float = 1,
    touch: bool = False,
) -> Display:
    """Write a page and open it."""
    page = shown[0].path.with_suffix(".html")
    write_page(page, shown)
    window.open(page, width, height, ratio=ratio, touch=touch)
    return Display.from_dataset(shown[0].source.dataset, shown[0].pixels)


def canvas(window: Browser) -> NDArray[np.uint8]:
    width, height, grey = window.run(_READ_CANVAS)
    return np.frombuffer(base64.b64decode(grey), np.uint8).reshape(height, width)


def placed(picture: NDArray[np.uint8], view: NDArray[np.uint8], left: int = 0) -> NDArray[np.uint8]:
    """Return a picture in the middle of a black view, or of a part of it."""
    result = np.zeros_like(view)
    top, start = (
        math.floor(length / 2 - side / 2 + 0.5)
        for length, side in zip(view.shape, picture.shape, strict=True)
    )
    result[max(top, 0) :, max(start, 0) :][: picture.shape[0], : picture.shape[1]] = picture[
        max(-top, 0) :, max(-start, 0) :
    ][: view.shape[0], : view.shape[1]]
    return np.roll(result, left, 1)


def difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int:
    return int(np.abs(first.astype(int) - second).max())


def wheel(window: Browser, turn: float) -> None:
    window.run(f"""(() => {{
        const box = document.getElementById("viewer").getBoundingClientRect();
        document.getElementById("canvas").dispatchEvent(new WheelEvent("wheel", {{
            deltaY: {turn!r}, clientX: box.x + box.width / 2, clientY: box.y + box.height / 2,
            bubbles: true, cancelable: true }}));
    }})()""")
    window.settle()


def middle_of_viewer(window: Browser) -> tuple[float, float, float, float]:
    """Return the middle of the viewer, its width and its height in CSS pixels."""
    box = "document.getElementById('viewer').getBoundingClientRect()"
    x, y, width, height = window.run(f"(b => [b.x, b.y, b.width, b.height])({box})")
    return x + width / 2, y + height / 2, width, height


CASES: dict[str, dict[str, Any]] = {
    "8 bits": {"bits": 8},
    "12 bits, two windows": {"WindowCenter": [2048, 1000], "WindowWidth": [4096, 300]},
    "16 bits, signed": {"bits": 16, "signed": True},
    "12 bits, MONOCHROME1": {"PhotometricInterpretation": "MONOCHROME1"},
    "16 bits, MONOCHROME1, padding": {
        "bits": 16, "PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0,
        "WindowCenter": 30000, "WindowWidth": 20000,
    },
    "signed, rescaled": {
        "signed": True, "RescaleSlope": "0.5", "RescaleIntercept": "-100", "WindowCenter": 50,
        "WindowWidth": 600, "VOILUTFunction": "LINEAR_EXACT",
    },
    "sigmoid and VOI LUT": {
        "WindowCenter": 2000, "WindowWidth": 900, "VOILUTFunction": "SIGMOID",
        "VOILUTSequence": voi_lut(12),
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_window_gives_the_greys_that_numpy_computes(
    window: Browser, tmp_path: Path, case: str
) -> None:
    source, output = pair(tmp_path, **CASES[case])
    display = show(window, [source, output], width=900, height=500)
    window.press("4", "9")
    for preset in display.presets:
        view = canvas(window)
        expected = placed(display.grey(output.pixels, preset), view)
        assert np.array_equal(view, expected), preset.name
        window.press("w")


def test_the_source_is_enlarged_by_the_bicubic_interpolation_of_the_project(
    window: Browser, tmp_path: Path
) -> None:
    source, output = pair(tmp_path, scale=4)
    display = show(window, [source, output], width=900, height=500)
    window.press("3", "9")
    view = canvas(window)
    expected = placed(display.grey(bicubic(source, 4), display.presets[0]), view)
    # A value on the border of two greys may fall to the other side.
    assert difference(view, expected) <= 1
    window.run("(s => { s.value = 'pixels'; s.dispatchEvent(new Event('change')) })(left)")
    window.settle()
    repeated = source.pixels.repeat(4, 0).repeat(4, 1)
    assert np.array_equal(canvas(window), placed(display.grey(repeated, display.presets[0]), view))


def test_the_divider_parts_source_and_output_and_follows_mouse_and_keys(
    window: Browser, tmp_path: Path
) -> None:
    source, output = pair(tmp_path, (120, 160), scale=4)
    display = show(window, [source, output], width=900, height=500)
    window.press("1", "9")
    preset = display.presets[0]
    x, y, width, _ = middle_of_viewer(window)
    moved = x + 0.1 * width
    acts: list[tuple[Callable[[], object], float]] = [
        (lambda: window.drag((x, y), (moved, y)), 0.6),
        (lambda: window.press("]", "]"), 0.7),
        (lambda: window.press("["), 0.65),
    ]
    for act, share in acts:
        act()
        view = canvas(window)
        split = math.floor(share * view.shape[1] + 0.5)
        before, after = (
            placed(display.grey(values, preset), view)
            for values in (bicubic(source, 4), output.pixels)
        )
        assert difference(view[:, :split], before[:, :split]) <= 1
        assert np.array_equal(view[:, split:], after[:, split:])


def test_the_difference_is_grey_where_there_is_none(window: Browser, tmp_path: Path) -> None:
    source, output = pair(tmp_path, scale=2)
    display = show(window, [source, output], width=900, height=500)
    window.press("5", "9")
    preset = display.presets[0]
    limit = max(4, (preset.high - preset.low) / 20)
    less = output.pixels - bicubic(source, 2).astype(np.float64)
    grey = np.floor((less / limit + 1) * 127.5 + 0.5).clip(0, 255).astype(np.uint8)
    view = canvas(window)
    assert difference(view, placed(grey, view)) <= 1


def test_a_reduced_image_has_the_means_of_its_pixels(window: Browser, tmp_path: Path) -> None:
    source, output = pair(tmp_path, (600, 700), scale=2)
    display = show(window, [source, output], width=900, height=900)
    window.press("4", "9")
    for side in (2, 4):
        wheel(window, _WHEEL_OF_HALF)
        view = canvas(window)
        expected = placed(display.grey(means(output.pixels, side), display.presets[0]), view)
        # The mouse has whole pixels: the middle of the view may lie between two.
        moved = (np.roll(expected, shift, (0, 1)) for shift in product((0, -1, 1), repeat=2))
        assert any(difference(view, each) <= 1 for each in moved), side


def test_dragging_with_the_right_button_sets_the_window(window: Browser, tmp_path: Path) -> None:
    source, output = pair(tmp_path)
    display = show(window, [source, output], width=900, height=500)
    window.press("4", "9")
    x, y, width, height = middle_of_viewer(window)
    window.drag((x, y), (x - 60, y + 30), button=2)
    first = display.presets[0]
    span, middle = (
        first.high - first.low,
        (first.high + first.low) / 2 + 30 / height * (first.high - first.low),
    )
    half = span * 2 ** (3 * -60 / width) / 2
    dragged = Preset("dragged", middle - half, middle + half)
    view = canvas(window)
    assert difference(view, placed(display.grey(output.pixels, dragged), view)) <= 1
    assert view.max() > view.min()


def test_both_sides_show_the_same_place_after_zoom_and_movement(
    window: Browser, tmp_path: Path
) -> None:
    source, output = pair(tmp_path, (200, 300))
    show(window, [source, source, output], width=1200, height=600)
    window.run("(s => { s.value = '1'; s.dispatchEvent(new Event('change')) })(right)")
    window.press("2", "9", "+", "+")
    x, y, width, _ = middle_of_viewer(window)
    window.drag((x + width / 4, y), (x + width / 4 - 50, y + 20))
    wheel(window, -200)
    view = canvas(window)
    half = view.shape[1] // 2
    # The right one is the source, too; left is enlarged by bicubic interpolation of the same.
    assert view.std() > 10
    assert np.array_equal(view[:, :half], view[:, half : 2 * half])


def test_findings_and_scale_bar_are_drawn_where_they_belong(
    window: Browser, tmp_path: Path
) -> None:
    place = Place(1, 31, 41, 9)
    finding = Finding(Aspect.PIXELS, "is <b>true</b>", ClaimStatus.FAILS, "most there", place)
    header: dict[str, Any] = {"PixelSpacing": [0.2, 0.4]}
    source, output = pair(tmp_path, (60, 80), scale=4, findings=(finding,), **header)
    show(window, [source, output], width=1000, height=600)
    window.press("4", "9")
    _, _, width, height = middle_of_viewer(window)
    x, y, side = (
        float(window.run(f"document.querySelector('rect.finding').getAttribute('{name}')"))
        for name in ("x", "y", "width")
    )
    assert side == pytest.approx(9 * 4)
    assert x + side / 2 == pytest.approx(width / 2 + (40.5 - 40) * 4, abs=1)
    assert y + side / 2 == pytest.approx(height / 2 + (30.5 - 30) * 4, abs=1)
    path = window.run("document.querySelector('path.bar').getAttribute('d')")
    length = float(window.run("document.querySelector('path.bar').dataset.mm"))
    assert float(path.split("H")[1].split("V")[0]) - 10 == pytest.approx(length / 0.4 * 4)
    assert "by Pixel Spacing" in window.run("document.getElementById('scale').textContent")
    assert "is <b>true</b>: most there" in window.run("document.querySelector('aside').textContent")
    window.press("m")
    assert window.run("document.querySelectorAll('rect.finding').length") == 0
    window.run("document.querySelector('button.finding').click()")
    window.settle()
    assert window.run("document.querySelectorAll('rect.finding').length") == 1


@pytest.mark.parametrize("spacing", [None, [0, 0], [-1, 1], [0.2]])
def test_no_scale_is_guessed(window: Browser, tmp_path: Path, spacing: list[float] | None) -> None:
    header: dict[str, Any] = {"ImagerPixelSpacing": None, "PixelSpacing": spacing}
    show(window, pair(tmp_path, **header), width=700, height=400)
    assert "no spacing" in window.run("document.getElementById('scale').textContent")
    assert window.run("document.querySelectorAll('path.bar').length") == 0


def test_a_phone_shows_all_controls_and_zooms_with_two_fingers(
    window: Browser, tmp_path: Path
) -> None:
    source, output = pair(tmp_path, (120, 100), scale=4)
    display = show(window, [source, output], width=390, height=844, ratio=2, touch=True)
    assert window.run("document.documentElement.scrollWidth") <= 390
    for box in window.run(
        "[...document.querySelectorAll('header button, header select, #divider')].map(e => "
        "(b => [b.left, b.right, b.height])(e.getBoundingClientRect()))"
    ):
        assert box[0] >= 0
        assert box[1] <= 390
        assert box[2] >= 28
    x, y, width, _ = middle_of_viewer(window)
    window.touch([(x, y), (x + width / 4, y)])
    assert window.run("divider.value") == "750"
    window.press("4", "9")
    view = canvas(window)
    assert np.array_equal(view, placed(display.grey(output.pixels, display.presets[0]), view))
    before = window.run("document.getElementById('state').textContent")
    window.touch([(x - 20, y), (x - 80, y)], [(x + 20, y), (x + 80, y)])
    assert window.run("document.getElementById('state').textContent") != before


def test_text_of_a_header_is_shown_and_never_run(window: Browser, tmp_path: Path) -> None:
    attack = "</script><img src=x onerror=hacked=1><svg onload=hacked=1>"
    header: dict[str, Any] = {"PatientName": "DOE^JANE", "PatientID": attack}
    source, output = pair(tmp_path, Manufacturer=attack, **header)
    hostile = Shown(output.path, output.source, output.pixels, 2, attack)
    page = tmp_path / "page.html"
    write_page(page, [source, hostile], with_patient=True)
    window.events.clear()
    window.open(page)
    text = window.run("document.querySelector('aside').textContent")
    assert text.count(attack) >= 3
    assert "DOE^JANE" in text
    assert window.run("typeof hacked") == "undefined"
    requests = [
        event["params"]["request"]["url"]
        for event in window.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert requests == [page.as_uri()]
    assert not [event for event in window.events if event.get("method") == "Log.entryAdded"]


def test_the_policy_stops_programs_styles_and_requests_of_others(
    window: Browser, tmp_path: Path
) -> None:
    show(window, pair(tmp_path))
    window.run("""(() => {
        const script = document.createElement("script");
        script.textContent = "hacked = 1";
        document.body.append(script);
        const holder = document.createElement("div");
        holder.innerHTML = "<button onclick='hacked = 1' style='opacity: 0'></button>";
        document.body.append(holder);
        holder.firstChild.click();
        globalThis.opacity = getComputedStyle(holder.firstChild).opacity;
    })()""")
    assert window.run("typeof hacked") == "undefined"
    assert window.run("opacity") == "1"
    assert window.run("fetch('data:,x').then(() => 'sent', () => 'stopped')") == "stopped"
