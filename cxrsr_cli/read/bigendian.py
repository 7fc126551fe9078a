"""Big endian objects (retired in 2006, still in archives) turned to little endian."""

from typing import cast

import numpy as np
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

# Bytes of a word, by VR (PS3.5 7.3); text and single bytes have no order.
_WORDS = {
    "US": 2, "SS": 2, "US or SS": 2, "AT": 2, "OW": 2, "OB or OW": 2, "US or OW": 2,
    "UL": 4, "SL": 4, "FL": 4, "OL": 4, "OF": 4,
    "UV": 8, "SV": 8, "FD": 8, "OV": 8, "OD": 8,
}  # fmt: skip


def to_little_endian(dataset: Dataset) -> None:
    """Turn a big endian dataset into a little endian one, in place.

    Words are swapped and nothing is parsed, so text remains the file's bytes,
    whether legal in its character set or not.

    Parameters
    ----------
    dataset : pydicom.Dataset
        As read from a file, and not looked at.
    """
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if element.VR == "SQ":
            for item in dataset[tag].value:
                to_little_endian(item)
        elif isinstance(element, RawDataElement):
            turned = element._replace(value=_swapped(element), is_little_endian=True)
            # Setting an item would parse it if it is private.
            dataset._dict[tag] = turned  # noqa: SLF001
    dataset.set_original_encoding(False, True, dataset.original_character_set)


def _swapped(element: RawDataElement) -> bytes | None:
    vr = cast("str", element.VR)
    if vr == "UN" and dictionary_has_tag(element.tag):
        vr = dictionary_VR(element.tag)
    size = _WORDS.get(vr)
    if not size or not element.value:
        return element.value
    return np.frombuffer(element.value, f">u{size}").astype(f"<u{size}").tobytes()
