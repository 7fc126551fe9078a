"""Big endian objects (retired in 2006, still in archives) turned to little endian."""

import numpy as np
from pydicom.dataset import Dataset

# Words that pydicom keeps as bytes, by VR (PS3.5 7.3); it converts the rest.
_WORDS = {"OW": 2, "OL": 4, "OF": 4, "OV": 8, "OD": 8}


def to_little_endian(dataset: Dataset) -> None:
    """Turn a big endian dataset into a little endian one, in place.

    Parameters
    ----------
    dataset : pydicom.Dataset
        As read. Every element is parsed: none can be copied byte for byte.
    """
    for element in dataset.iterall():
        size = _WORDS.get(element.VR)
        if size and element.value:
            words = np.frombuffer(element.value, f">u{size}")
            element.value = words.astype(f"<u{size}").tobytes()
    _declare_little_endian(dataset)


def _declare_little_endian(dataset: Dataset) -> None:
    dataset.set_original_encoding(False, True, dataset.original_character_set)
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _declare_little_endian(item)
