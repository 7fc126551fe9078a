"""Drop private elements (PS3.5 7.8) that are untrue of the larger image, or all of them.

Nobody knows what a private element counts. Those that must be copies of the image, those that
the dictionary of private elements names as geometry, and those whose values are the image's
size or spacing are dropped. All others keep their bytes.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

import numpy as np
from pydicom.datadict import (
    private_dictionary_description,
    private_dictionary_VR,
)
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from cxrsr_cli.derive.geometry import PIXEL_GEOMETRY, ScalingRule
from cxrsr_cli.dicom.raw_elements import NUMBER_TYPES, sequence_items

_GEOMETRY_NAME = re.compile(
    r"\b(ROI|Region of Interest|Rows?|Columns?|Crop\w*|\w*Shutter\w*|Spacing|Pixel (Size|Shift)"
    r"|Coordinates?|Vertices|Image Matrix)\b",
    re.IGNORECASE,
)
"""Names that pydicom's dictionary of private elements gives to what counts in pixels."""
_NUMERIC_VRS = (*NUMBER_TYPES, "DS", "IS")
_TYPES_OF_UNKNOWN = ("<f4", "<f8", "<u2", "<u4")
_MAX_NUMBERS_BYTES = 4096
_MIN_SIDE = 16
"""Smaller numbers of rows or columns are too common to be taken for them."""


class _Verdict(Enum):
    COPY = "{count} private elements as large as the image were dropped"
    GEOMETRY = "{count} private elements that state its size, spacing or geometry were dropped"
    POSITION = (
        "{count} private elements may be positions in pixels and were kept unchanged; "
        "--drop-private leaves out all of them"
    )


def drop_private(dataset: Dataset) -> None:
    """Remove every private element, also from the items of sequences, in place.

    Only sequences are parsed; all other elements stay the bytes of the file.
    """
    for tag in list(dataset.keys()):
        if tag.is_private:
            del dataset[tag]
        elif sequence_items(dataset, tag) is not None:
            for item in dataset[tag].value or ():
                drop_private(item)


def drop_untrue_private(dataset: Dataset, source: Dataset) -> list[str]:
    """Remove private elements that would be untrue of the larger image, in place.

    A private sequence is dropped as a whole.

    Parameters
    ----------
    dataset : pydicom.Dataset
        A copy of the original; elements that stay are not parsed.
    source : pydicom.Dataset
        The original.

    Returns
    -------
    list of str
        Warnings, without values.
    """
    judge = _Judge.of(source)
    judge.drop_from(dataset)
    return [verdict.value.format(count=count) for verdict, count in judge.counts.items()]


@dataclass(frozen=True, slots=True)
class _Judge:
    sides: tuple[int, int]
    spacings: tuple[float, ...]
    counts: Counter[_Verdict] = field(default_factory=Counter)

    @classmethod
    def of(cls, source: Dataset) -> Self:
        spacings = set[float]()
        for line in PIXEL_GEOMETRY:
            if line.rule is ScalingRule.DIVIDE and not line.within:
                spacings |= set(_numbers_of_text(source.get(line.keyword)))
        return cls((source.Rows, source.Columns), tuple(filter(None, spacings)))

    def drop_from(self, dataset: Dataset) -> None:
        for tag in list(dataset.keys()):
            if tag.is_private and not tag.is_private_creator:
                verdict = self._verdict(dataset, tag)
                if verdict is None:
                    continue
                self.counts[verdict] += 1
                if verdict is not _Verdict.POSITION:
                    del dataset[tag]
            elif self._has_private(dataset, tag):
                for item in dataset[tag].value:
                    self.drop_from(item)

    def _has_private(self, dataset: Dataset, tag: BaseTag) -> bool:
        return any(
            nested.is_private or self._has_private(item, nested)
            for item in sequence_items(dataset, tag) or ()
            for nested in item.keys()
        )

    def _verdict(self, dataset: Dataset, tag: BaseTag) -> _Verdict | None:
        items = sequence_items(dataset, tag)
        if items is not None:
            verdicts = [self._verdict(item, nested) for item in items for nested in item.keys()]
            return next((verdict for verdict in _Verdict if verdict in verdicts), None)
        value = dataset.get_item(tag).value
        if not isinstance(value, bytes) or tag.is_private_creator:
            return None
        rows, columns = self.sides
        # Vendors keep the original, or a reduced bit depth: at least one byte for each pixel.
        if len(value) >= rows * columns:
            return _Verdict.COPY
        readings = _numbers(value, dataset.get_item(tag).VR)
        if _is_named_geometry(dataset, tag) or any(map(self._is_geometry, readings)):
            return _Verdict.GEOMETRY
        # Bytes of unknown VR have several readings, so they prove nothing.
        is_position = len(readings) == 1 and self._may_be_position(readings[0])
        return _Verdict.POSITION if is_position else None

    def _is_geometry(self, numbers: list[float]) -> bool:
        """Return whether all of the numbers are spacings, sizes or numbers of pixels."""
        rows, columns = self.sides
        sizes = {float(side) for side in (rows, columns, rows * columns) if side >= _MIN_SIDE}
        if all(number in sizes for number in numbers):
            return True
        if len(numbers) == 1 and numbers[0].is_integer():
            return False
        return all(
            any(math.isclose(number, spacing, rel_tol=1e-6) for spacing in self.spacings)
            for number in numbers
        )

    def _may_be_position(self, numbers: list[float]) -> bool:
        return (
            len(numbers) > 1
            and len(numbers) % 2 == 0
            and _MIN_SIDE <= max(numbers) <= max(self.sides)
            and min(numbers) >= 0
        )


def _is_named_geometry(dataset: Dataset, tag: BaseTag) -> bool:
    if tag.private_creator not in dataset:
        return False
    stated = dataset.get_item(tag.private_creator).value
    creator = stated.decode("latin1") if isinstance(stated, bytes) else str(stated)
    try:
        name = private_dictionary_description(tag, creator.strip(" \0"))
        vr = private_dictionary_VR(tag, creator.strip(" \0"))
    except KeyError:
        return False
    return vr in _NUMERIC_VRS and bool(_GEOMETRY_NAME.search(name))


def _numbers(value: bytes, vr: str | None) -> list[list[float]]:
    """Return the numbers that a value can be read as: none, one list, or several of unknown VR."""
    if not value or len(value) > _MAX_NUMBERS_BYTES:
        return []
    if vr in NUMBER_TYPES:
        types: tuple[str, ...] = (NUMBER_TYPES[vr],)
    else:
        text = _numbers_of_text(value.decode("latin1"))
        if text or vr not in (None, "UN"):
            return [text] if text else []
        types = _TYPES_OF_UNKNOWN
    return [
        np.frombuffer(value, kind).astype(float).tolist()
        for kind in types
        if len(value) % np.dtype(kind).itemsize == 0
    ]


def _numbers_of_text(value: object) -> list[float]:
    """Return numbers that text or the value of an element states; nothing if one is none."""
    if isinstance(value, str):
        value = value.split("\\")
    values = value if isinstance(value, Iterable) else [value]
    try:
        numbers = [float(str(number).strip(" \0").replace(",", ".")) for number in values]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []
