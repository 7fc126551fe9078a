"""Implicit VR objects turned to explicit VR without touching their text."""

from typing import cast

import numpy as np
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.tag import Tag
from pydicom.valuerep import STR_VR

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


_LUT_DESCRIPTOR = Tag("LUTDescriptor")


def to_explicit_vr(dataset: Dataset) -> None:
    """Give every element of an implicit VR dataset its VR, in place.

    pydicom, left to itself, decodes all text and encodes it again, and so
    loses what is illegal in its character set.

    Parameters
    ----------
    dataset : pydicom.Dataset
        As read from a file, apart from what was set since.
    """
    _state(dataset)
    for item in dataset.get("VOILUTSequence") or ():
        _sign_descriptor(item, signed=_is_modality_output_signed(dataset))
    correct_ambiguous_vr(dataset, True)
    _declare(dataset)


def _state(dataset: Dataset) -> None:
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        element = dataset[tag]
        if element.VR == "SQ":
            for item in element.value:
                _state(item)
        elif isinstance(raw, RawDataElement) and element.VR in STR_VR:
            # Characters are the same bytes under any VR encoding.
            # Setting an item would parse it if it is private.
            dataset._dict[tag] = raw._replace(VR=element.VR, is_implicit_VR=False)  # noqa: SLF001


def _is_modality_output_signed(dataset: Dataset) -> bool:
    """Tell whether what enters the VOI LUT can be below zero (C.11.2.1.1)."""
    if dataset.get("ModalityLUTSequence"):
        return False
    signed = bool(dataset.get("PixelRepresentation") == 1)
    lowest = -(1 << dataset.BitsStored - 1) if signed else 0
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope is None or intercept is None:
        return signed
    return lowest * float(slope) + float(intercept) < 0


def _sign_descriptor(item: Dataset, *, signed: bool) -> None:
    """Give LUT Descriptor its VR; pydicom takes the sign of the pixels for all tables."""
    if _LUT_DESCRIPTOR not in item:
        return
    words = [int(word) & 0xFFFF for word in item.LUTDescriptor]
    if signed:
        words[1:2] = [word - (1 << 16) if word >= 1 << 15 else word for word in words[1:2]]
    item.add_new(_LUT_DESCRIPTOR, "SS" if signed else "US", words)


def _declare(dataset: Dataset) -> None:
    dataset.set_original_encoding(False, True, dataset.original_character_set)
    for element in dataset.elements():
        if element.VR == "SQ":
            for item in dataset[element.tag].value:
                _declare(item)


def to_implicit_vr(dataset: Dataset) -> None:
    """Declare a dataset implicit VR, so that pydicom writes its values as they are, in place.

    Only sequences are encoded again: the header of an element inside one has
    its VR too.
    """
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        if raw.VR == "SQ" or (isinstance(raw, DataElement) and raw.VR == "UN"):
            element = dataset[tag]
            if element.VR == "SQ":
                for item in element.value:
                    to_implicit_vr(item)
        elif isinstance(raw, RawDataElement):
            # Setting an item would parse it if it is private.
            dataset._dict[tag] = raw._replace(is_implicit_VR=True)  # noqa: SLF001
    dataset.set_original_encoding(True, True, dataset.original_character_set)
