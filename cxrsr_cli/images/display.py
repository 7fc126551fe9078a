"""How stored values become grey on a screen: modality LUT, windows, VOI LUTs and polarity."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from cxrsr_cli.dicom.pixel_format import Padding, PixelRange

_CENTRAL_PERCENT = 0.5, 99.5
_WHITE = 255
_DEFAULT_FUNCTION = "LINEAR"
_MAX_OWN_PRESETS = 16
"""Windows, and VOI LUTs, of an object that are offered: each curve takes up to 64 KiB."""
_MAX_NUMBER = 1e30
"""Larger numbers of a header are illegal, because what is computed from them could overflow."""
_STRIP_PIXELS = 1 << 18
"""Pixels that are made grey at a time: their indices take four times the memory of the values."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A window that a viewer can choose.

    Attributes
    ----------
    name : str
        As shown; without text from the object.
    low, high : float
        What is black and what is white, after the modality LUT.
    curve : numpy.ndarray or None
        ``(maximum - minimum + 1,)`` uint8, the grey of each stored value, if it is not linear
        between `low` and `high`.
    """

    name: str
    low: float
    high: float
    curve: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class Display:
    """How an object is displayed (PS3.4 N.2).

    Attributes
    ----------
    pixel_range : PixelRange
        Legal stored values and polarity.
    slope, intercept : float
        Of the modality LUT; 1 and 0 for one that is a table.
    padding : Padding or None
        Stored values that are shown black.
    presets : list of Preset
        The object's own first, and then those that fit its values.
    shift : float
        What the function LINEAR adds to the middle of `Preset.low` and `Preset.high` to make
        Window Center; half of what it adds to their difference (PS3.3 C.11.2.1.2.1).
    """

    pixel_range: PixelRange
    slope: float
    intercept: float
    padding: Padding | None
    presets: list[Preset]
    shift: float

    @classmethod
    def from_dataset(cls, dataset: Dataset, stored: NDArray[np.integer]) -> Self:
        """Read it from an object.

        Parameters
        ----------
        dataset : pydicom.Dataset
            The object. A window or table that is illegal is left out.
        stored : numpy.ndarray
            ``(H, W)``, its stored values.
        """
        pixel_range, padding = PixelRange.from_dataset(dataset), Padding.from_dataset(dataset)
        is_table = bool(dataset.get("ModalityLUTSequence"))
        slope, intercept = (1.0, 0.0) if is_table else _rescale(dataset)
        function = str(dataset.get("VOILUTFunction") or _DEFAULT_FUNCTION)
        shift = 0.5 if function == _DEFAULT_FUNCTION else 0.0
        plain = cls(pixel_range, slope, intercept, padding, [], shift)
        image = stored[~padding.mask(stored)] if padding else stored
        return replace(plain, presets=[*_own_presets(dataset, plain), *_presets_of(image, plain)])

    def grey(self, values: NDArray[np.number], preset: Preset) -> NDArray[np.uint8]:
        """Return the grey, from black 0 to white 255, of stored values or of their means.

        Parameters
        ----------
        values : numpy.ndarray
            ``(H, W)`` or ``(N,)``; a value beyond the legal ones has the grey of the nearest.
        preset : Preset
            One of this object.

        Returns
        -------
        numpy.ndarray
            uint8, of the shape of `values`. It is made in strips of rows, so that it takes
            little memory beside itself.
        """
        curve, minimum = self.curve(preset), int(self.pixel_range.minimum)
        grey = np.empty(values.shape, np.uint8)
        rows = max(1, _STRIP_PIXELS * len(values) // max(1, values.size))
        for start in range(0, len(values), rows):
            strip = values[start : start + rows]
            if strip.dtype.kind == "f":
                strip = np.floor(strip.astype(np.float64) + 0.5)
            index = strip.astype(np.intp) - minimum
            grey[start : start + rows] = curve.take(index, mode="clip")
        return grey

    def curve(self, preset: Preset) -> NDArray[np.uint8]:
        """Return the grey of each legal stored value."""
        stored = self.stored_values()
        if preset.curve is None:
            curve = _linear(stored * self.slope + self.intercept, preset.low, preset.high)
        else:
            curve = preset.curve.copy()
        if self.pixel_range.inverted:
            curve = _WHITE - curve
        if self.padding:
            curve[self.padding.mask(stored)] = 0
        return curve

    def stored_values(self) -> NDArray[np.int64]:
        """Return all legal stored values."""
        return np.arange(int(self.pixel_range.minimum), int(self.pixel_range.maximum) + 1)


def _rescale(dataset: Dataset) -> tuple[float, float]:
    slope, intercept = (
        _number(dataset.get("RescaleSlope")),
        _number(dataset.get("RescaleIntercept")),
    )
    # A slope that is missing, or 0, changes nothing.
    return (slope or 1.0, intercept or 0.0)


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type] # what is not a number raises
    except (TypeError, ValueError):
        return None
    return number if abs(number) <= _MAX_NUMBER else None


def _linear(values: NDArray[np.number], low: float, high: float) -> NDArray[np.uint8]:
    share = (values - low) / (high - low) if high > low else (values > low).astype(np.float64)
    return _to_grey(share)


def _to_grey(share: NDArray[np.number]) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = np.floor(np.clip(share, 0, 1) * _WHITE + 0.5).astype(np.uint8)
    return grey


def _own_presets(dataset: Dataset, display: Display) -> Iterator[Preset]:
    """Yield the windows and VOI LUTs of the object, the first `_MAX_OWN_PRESETS` of each."""
    centres, widths = (_numbers(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or _DEFAULT_FUNCTION)
    modality = _modality_values(dataset, display)
    if modality is None:
        return
    for number, (centre, width) in enumerate(zip(centres, widths, strict=False), start=1):
        if centre is None or width is None or width <= 0:
            continue
        name = "Window of the object" if len(centres) == 1 else f"Window {number} of the object"
        half = width / 2 - display.shift
        low, high = centre - display.shift - half, centre - display.shift + half
        if half < 0:
            continue
        if function == "SIGMOID":
            share = 1 / (1 + np.exp((-4 * (modality - centre) / width).clip(-500, 500)))
            yield Preset(name, low, high, _to_grey(share))
        elif dataset.get("ModalityLUTSequence"):
            yield Preset(name, low, high, _linear(modality, low, high))
        else:
            yield Preset(name, low, high)
    tables = islice(dataset.get("VOILUTSequence") or (), _MAX_OWN_PRESETS)
    for number, item in enumerate(tables, start=1):
        looked_up = _look_up(item, modality)
        if looked_up is None:
            continue
        table = looked_up / ((1 << item.LUTDescriptor[2]) - 1)
        inside = modality[(table > 0) & (table < 1)]
        ends = (inside.min(), inside.max()) if inside.size else (modality[0], modality[-1])
        name = f"VOI LUT {number} of the object"
        yield Preset(name, float(ends[0]), float(ends[1]), _to_grey(table))


def _numbers(value: object) -> list[float | None]:
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    return [_number(each) for each in values[:_MAX_OWN_PRESETS]]


def _modality_values(dataset: Dataset, display: Display) -> NDArray[np.float64] | None:
    """Return what the modality LUT makes of each legal stored value; None if it is damaged."""
    stored = display.stored_values()
    if not dataset.get("ModalityLUTSequence"):
        return np.asarray(stored * display.slope + display.intercept, np.float64)
    return _look_up(dataset.ModalityLUTSequence[0], stored)


def _look_up(item: Dataset, values: NDArray[np.number]) -> NDArray[np.float64] | None:
    """Apply a LUT (PS3.3 C.11.1.1.1, C.11.2.1.1); None if it is damaged.

    pydicom's functions keep indices in the type of the entries, which is too small for 8 bits.
    """
    try:
        count, first, bits = (int(number) for number in item.LUTDescriptor)
        data, count = item.LUTData, count or 1 << 16
        if isinstance(data, bytes):
            data = np.frombuffer(data, "u1" if len(data) < 2 * count else "<u2")
        table = np.asarray(data, np.float64)[:count]
    except (AttributeError, TypeError, ValueError):
        return None
    if len(table) < count or not 1 <= bits <= 16:
        return None
    index = np.floor(values - first + 0.5).clip(0, count - 1)
    return np.asarray(table[index.astype(np.intp)])


def _presets_of(image: NDArray[np.integer], display: Display) -> Iterator[Preset]:
    """Yield presets that need no attribute of the object."""
    low, high = display.pixel_range.minimum, display.pixel_range.maximum
    if image.size:
        central = np.percentile(image, _CENTRAL_PERCENT)
        yield _preset("Source, 0.5 to 99.5 %", central[0], central[1], display)
        yield _preset("Source, all", image.min(), image.max(), display)
    yield _preset("All stored values", low, high, display)


def _preset(name: str, low: float, high: float, display: Display) -> Preset:
    first, last = sorted(float(end) * display.slope + display.intercept for end in (low, high))
    return Preset(name, first, last)
