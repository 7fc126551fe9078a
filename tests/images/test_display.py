"""Windows, VOI LUTs and polarity, against pydicom's."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing
from pydicom.sequence import Sequence

from cxrsr_cli.images.display import Display
from tests.helpers.comparisons import pair, voi_lut


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(
    ("centre", "width"), [(2048, 4096), (1000, 300.5), (-200, 900), (3000, 20)]
)
def test_a_window_gives_the_greys_of_pydicom(
    tmp_path: Path, function: str, centre: float, width: float
) -> None:
    header: dict[str, Any] = {"WindowCenter": centre, "WindowWidth": width}
    source, _ = pair(tmp_path, VOILUTFunction=function, **header)
    display = Display.from_dataset(source.source.dataset, source.pixels)
    values = display.stored_values()
    expected = apply_windowing(values, source.source.dataset) / 4095 * 255
    found = display.grey(values, display.presets[0])
    assert np.abs(found - expected).max() <= 0.5 + 1e-9


def test_large_values_are_dark_in_monochrome1(tmp_path: Path) -> None:
    source, _ = pair(tmp_path, PhotometricInterpretation="MONOCHROME1")
    display = Display.from_dataset(source.source.dataset, source.pixels)
    grey = display.grey(display.stored_values(), display.presets[-1])
    assert (grey[0], grey[-1]) == (255, 0)


def test_padding_is_black_whatever_the_polarity(tmp_path: Path) -> None:
    header: dict[str, Any] = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 3}
    source, _ = pair(tmp_path, PhotometricInterpretation="MONOCHROME1", **header)
    display = Display.from_dataset(source.source.dataset, source.pixels)
    assert list(display.grey(np.arange(5), display.presets[-1])) == [0, 0, 0, 0, 255]


def test_an_object_without_a_window_is_shown_by_its_central_values(tmp_path: Path) -> None:
    source, _ = pair(tmp_path, WindowCenter=None, WindowWidth=None)
    display = Display.from_dataset(source.source.dataset, source.pixels)
    assert [preset.name for preset in display.presets] == [
        "Source, 0.5 to 99.5 %", "Source, all", "All stored values",
    ]  # fmt: skip
    ends = tuple(np.percentile(source.pixels, (0.5, 99.5)))
    assert (display.presets[0].low, display.presets[0].high) == ends


@pytest.mark.parametrize(
    "header",
    [
        {"WindowCenter": 1, "WindowWidth": 0},
        {"WindowCenter": 1, "WindowWidth": -5},
        {"WindowCenter": [], "WindowWidth": 3},
        {"WindowCenter": 1, "WindowWidth": "1e308"},
    ],
)
def test_an_illegal_window_is_left_out(tmp_path: Path, header: dict[str, Any]) -> None:
    source, _ = pair(tmp_path, **header)
    display = Display.from_dataset(source.source.dataset, source.pixels)
    assert not [preset for preset in display.presets if "object" in preset.name]


def test_a_voi_lut_is_a_curve(tmp_path: Path) -> None:
    sequence = voi_lut(12)
    source, _ = pair(tmp_path, VOILUTSequence=sequence)
    display = Display.from_dataset(source.source.dataset, source.pixels)
    (preset,) = (each for each in display.presets if each.curve is not None)
    table = np.frombuffer(sequence[0].LUTData, "<u2")
    assert np.array_equal(display.grey(display.stored_values(), preset), table)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_grey_takes_little_memory_beside_itself(tmp_path: Path, dtype: type[np.number]) -> None:
    source, _ = pair(tmp_path)
    display = Display.from_dataset(source.source.dataset, source.pixels)
    values = np.arange(3000 * 2000).reshape(3000, 2000).astype(dtype) % 4096
    tracemalloc.start()
    grey = display.grey(values, display.presets[0])
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < grey.nbytes + (8 << 20)
    assert np.array_equal(grey, display.curve(display.presets[0])[values.astype(int)])


@pytest.mark.parametrize("signed", [False, True])
def test_means_and_values_beyond_the_range_have_the_grey_of_the_nearest(
    tmp_path: Path, signed: bool
) -> None:
    source, _ = pair(tmp_path, signed=signed)
    display = Display.from_dataset(source.source.dataset, source.pixels)
    preset, first = display.presets[0], -2048 if signed else 0
    curve = display.curve(preset)
    means = np.array([[first - 9, first + 99.5], [first + 1000.4, first + 5000]], np.float32)
    assert np.array_equal(display.grey(means, preset), curve[[[0, 100], [1000, 4095]]])
    integers = np.array([first - 9, first + 7, first + 5000], np.int16)
    assert np.array_equal(display.grey(integers, preset), curve[[0, 7, 4095]])
    assert display.grey(np.empty((0, 3), np.int16), preset).shape == (0, 3)


def test_the_first_sixteen_windows_and_voi_luts_are_offered(tmp_path: Path) -> None:
    count: int = 4000
    header: dict[str, Any] = {
        "WindowCenter": [*range(count)], "WindowWidth": [100] * count, "VOILUTFunction": "SIGMOID",
    }  # fmt: skip
    (table,) = voi_lut(12)
    source, _ = pair(tmp_path, **header)
    dataset: Dataset = source.source.dataset
    dataset.VOILUTSequence = Sequence([table] * 20)
    display = Display.from_dataset(dataset, source.pixels)
    assert [preset.name for preset in display.presets if "object" in preset.name] == [
        *(f"Window {number} of the object" for number in range(1, 17)),
        *(f"VOI LUT {number} of the object" for number in range(1, 17)),
    ]


def test_a_rescale_that_overflows_changes_nothing(tmp_path: Path) -> None:
    source, _ = pair(tmp_path, RescaleSlope="1e308", RescaleIntercept="-1e308")
    display = Display.from_dataset(source.source.dataset, source.pixels)
    assert (display.slope, display.intercept) == (1, 0)
