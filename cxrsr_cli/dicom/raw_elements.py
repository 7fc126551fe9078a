"""Change the encoding of data sets without parsing their values.

pydicom decodes text when it parses an element and encodes it again when it writes, which
loses bytes that are illegal in the character set. Elements that stay raw are written as
the bytes that were read. Everything that relies on pydicom's private `Dataset._dict` is in
this module.
"""

from typing import cast

import numpy as np
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import STR_VR

# Bytes of a word by VR (PS3.5 7.3); text and single bytes have no byte order.
_WORD_BYTES = {
    "US": 2, "SS": 2, "US or SS": 2, "AT": 2, "OW": 2, "OB or OW": 2, "US or OW": 2,
    "UL": 4, "SL": 4, "FL": 4, "OL": 4, "OF": 4,
    "UV": 8, "SV": 8, "FD": 8, "OV": 8, "OD": 8,
}  # fmt: skip

_LUT_DESCRIPTOR = Tag("LUTDescriptor")


def to_little_endian(dataset: Dataset) -> None:
    """Convert a big endian data set to little endian (PS3.5 7.3), in place.

    None of its elements may be parsed yet.
    """
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if element.VR == "SQ":
            for item in dataset[tag].value:
                to_little_endian(item)
        elif isinstance(element, RawDataElement):
            swapped = element._replace(value=_swapped(element), is_little_endian=True)
            _set_raw(dataset, tag, swapped)
    dataset.set_original_encoding(False, True, dataset.original_character_set)


def to_explicit_vr(dataset: Dataset) -> None:
    """Give every element of an implicit VR data set its VR, in place."""
    _set_text_vrs(dataset)
    for item in dataset.get("VOILUTSequence") or ():
        _set_descriptor_vr(item, signed=_is_modality_output_signed(dataset))
    correct_ambiguous_vr(dataset, True)
    _set_explicit_encoding(dataset)


def to_implicit_vr(dataset: Dataset) -> None:
    """Declare a data set implicit VR, so that pydicom writes its values unchanged, in place.

    Only sequences are encoded again, because the elements in their items have VRs too.
    """
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        if raw.VR == "SQ" or (isinstance(raw, DataElement) and raw.VR == "UN"):
            element = dataset[tag]
            if element.VR == "SQ":
                for item in element.value:
                    to_implicit_vr(item)
        elif isinstance(raw, RawDataElement):
            _set_raw(dataset, tag, raw._replace(is_implicit_VR=True))
    dataset.set_original_encoding(True, True, dataset.original_character_set)


def _set_raw(dataset: Dataset, tag: BaseTag, element: RawDataElement) -> None:
    # Dataset.__setitem__ would parse the element if its tag is private.
    dataset._dict[tag] = element  # noqa: SLF001


def _swapped(element: RawDataElement) -> bytes | None:
    vr = cast("str", element.VR)
    if vr == "UN" and dictionary_has_tag(element.tag):
        vr = dictionary_VR(element.tag)
    size = _WORD_BYTES.get(vr)
    if not size or not element.value:
        return element.value
    return np.frombuffer(element.value, f">u{size}").astype(f"<u{size}").tobytes()


def _set_text_vrs(dataset: Dataset) -> None:
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        element = dataset[tag]
        if element.VR == "SQ":
            for item in element.value:
                _set_text_vrs(item)
        elif isinstance(raw, RawDataElement) and element.VR in STR_VR:
            # The bytes of text are the same in implicit and explicit VR.
            _set_raw(dataset, tag, raw._replace(VR=element.VR, is_implicit_VR=False))


def _is_modality_output_signed(dataset: Dataset) -> bool:
    """Return whether the input of the VOI LUT can be below zero (PS3.3 C.11.2.1.1)."""
    if dataset.get("ModalityLUTSequence"):
        return False
    signed = bool(dataset.get("PixelRepresentation") == 1)
    minimum = -(1 << dataset.BitsStored - 1) if signed else 0
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope is None or intercept is None:
        return signed
    return minimum * float(slope) + float(intercept) < 0


def _set_descriptor_vr(item: Dataset, *, signed: bool) -> None:
    """Set the VR of LUT Descriptor; pydicom would take the sign of the pixels for any LUT."""
    if _LUT_DESCRIPTOR not in item:
        return
    words = [int(word) & 0xFFFF for word in item.LUTDescriptor]
    if signed:
        words[1:2] = [word - (1 << 16) if word >= 1 << 15 else word for word in words[1:2]]
    item.add_new(_LUT_DESCRIPTOR, "SS" if signed else "US", words)


def _set_explicit_encoding(dataset: Dataset) -> None:
    dataset.set_original_encoding(False, True, dataset.original_character_set)
    for element in dataset.elements():
        if element.VR == "SQ":
            for item in dataset[element.tag].value:
                _set_explicit_encoding(item)
