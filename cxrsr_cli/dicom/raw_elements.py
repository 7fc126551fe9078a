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
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

# Bytes of a word by VR (PS3.5 7.3); text and single bytes have no byte order.
_WORD_BYTES = {
    "US": 2, "SS": 2, "US or SS": 2, "AT": 2, "OW": 2, "OB or OW": 2, "US or OW": 2,
    "UL": 4, "SL": 4, "FL": 4, "OL": 4, "OF": 4,
    "UV": 8, "SV": 8, "FD": 8, "OV": 8, "OD": 8,
}  # fmt: skip

NUMBER_TYPES = {"US": "<u2", "SS": "<i2", "UL": "<u4", "SL": "<i4", "FL": "<f4", "FD": "<f8"}
"""NumPy's types of binary numbers by VR."""

_UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM = b"\xfe\xff\x00\xe0"
"""Tag of an item in little endian (PS3.5 7.5)."""
_MIN_GROUP = 0x0004
"""Of a data set; lower groups are commands and meta information (PS3.5 7.1, PS3.10 7.1)."""
_PIXEL_DATA = Tag("PixelData")
_LUT_DESCRIPTOR = Tag("LUTDescriptor")


def sequence_items(dataset: Dataset, tag: BaseTag) -> Sequence | None:
    """Return the items of a sequence, whose element stays as it is; None for another element.

    A value of unknown VR that begins as an item is a sequence, too (PS3.5 6.2.2).
    """
    element = dataset.get_item(tag)
    if isinstance(element, RawDataElement):
        vr = element.VR or _standard_vr(tag)
        if vr == "UN" and (element.value or b"").startswith(_ITEM):
            vr, element = "SQ", element._replace(is_implicit_VR=True)
        if vr != "SQ":
            return None
        copied = Dataset({tag: element._replace(VR="SQ")})
        try:
            value = copied[tag].value
        # Bytes of a private element may only look like an item.
        except Exception:
            return None
    else:
        value = element.value
    return value if isinstance(value, Sequence) else None


def _elements(dataset: Dataset) -> dict[BaseTag, DataElement | RawDataElement]:
    """Return pydicom's own elements: `get_item` would read values that were left in the file."""
    return cast("dict[BaseTag, DataElement | RawDataElement]", dataset._dict)  # noqa: SLF001


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


def detect_encoding(dataset: Dataset) -> None:
    """Set the original encoding to the one that the elements have, which a label may deny.

    pydicom detects the encoding when it reads, but remembers what the transfer syntax says.
    """
    raw = next((e for e in _elements(dataset).values() if isinstance(e, RawDataElement)), None)
    if raw is not None:
        dataset.set_original_encoding(
            raw.is_implicit_VR, raw.is_little_endian, dataset.original_character_set
        )


def remove_stray_elements(dataset: Dataset) -> None:
    """Remove what no data set has, in place: zeros and other bytes behind it, groups 0000 and 0002.

    pydicom reads such bytes as elements. Real ones follow Pixel Data in ascending order.
    """
    behind_pixel_data = False
    for tag, element in list(_elements(dataset).items()):  # in the order of the file
        is_stray = behind_pixel_data and (tag < _PIXEL_DATA or _is_cut_off(element))
        if is_stray or tag.group < _MIN_GROUP:
            del _elements(dataset)[tag]
        behind_pixel_data |= tag == _PIXEL_DATA


def is_cut_off(dataset: Dataset) -> bool:
    """Return whether a top-level element is shorter than it says, so that more may be missing."""
    return any(map(_is_cut_off, _elements(dataset).values()))


def _is_cut_off(element: DataElement | RawDataElement) -> bool:
    return (
        isinstance(element, RawDataElement)
        and element.value is not None
        and element.length not in (len(element.value), _UNDEFINED_LENGTH)
    )


def parse_elements(dataset: Dataset) -> None:
    """Parse every element, in place; a value that cannot be parsed stays bytes, with VR UN.

    So do private elements in implicit VR: their VR would be a guess of pydicom's.

    Raises
    ------
    Exception
        Any, for a sequence that cannot be followed.
    """
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        is_raw = isinstance(raw, RawDataElement)
        if is_raw and not raw.VR and tag.is_private and not tag.is_private_creator:
            _set_unknown(dataset, tag, raw.value)
            continue
        try:
            element = dataset[tag]
        except (RecursionError, MemoryError):
            raise
        except Exception:
            if not is_raw or "SQ" in (raw.VR, _standard_vr(tag)):
                raise
            _set_unknown(dataset, tag, raw.value)
            continue
        if element.VR == "SQ":
            for item in element.value or ():
                parse_elements(item)


def _set_unknown(dataset: Dataset, tag: BaseTag, value: bytes | None) -> None:
    element = DataElement(tag, "UN", value, already_converted=True)
    element.VR = "UN"  # the constructor looks for another one
    _elements(dataset)[tag] = element


def set_vr_encoding(dataset: Dataset, *, implicit: bool) -> None:
    """Prepare a little endian data set for being written in implicit or explicit VR, in place."""
    is_implicit = bool(dataset.original_encoding[0])
    if is_implicit and not implicit:
        to_explicit_vr(dataset)
    elif implicit and not is_implicit:
        to_implicit_vr(dataset)


def to_explicit_vr(dataset: Dataset) -> None:
    """Give every element of an implicit VR data set its VR, in place.

    Values keep their bytes. Private elements and unknown ones get UN (PS3.5 6.2.2), because
    their VR would be a guess.
    """
    _set_vrs(dataset, dataset)


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
    _elements(dataset)[tag] = element


def _swapped(element: RawDataElement) -> bytes | None:
    vr = cast("str", element.VR)
    if vr == "UN" and dictionary_has_tag(element.tag):
        vr = dictionary_VR(element.tag)
    size = _WORD_BYTES.get(vr)
    if not size or not element.value:
        return element.value
    return np.frombuffer(element.value, f">u{size}").astype(f"<u{size}").tobytes()


def _set_vrs(dataset: Dataset, image: Dataset) -> None:
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        vr = raw.VR or _standard_vr(tag)
        if vr == "SQ":
            for item in dataset[tag].value or ():
                _set_vrs(item, image)
        elif isinstance(raw, RawDataElement):
            if len(vr) > 2:
                vr = _unambiguous_vr(dataset, tag, image)
            _set_raw(dataset, tag, raw._replace(VR=vr, is_implicit_VR=False))
        elif len(vr) > 2:
            dataset.add_new(tag, _unambiguous_vr(dataset, tag, image), raw.value)
    dataset.set_original_encoding(False, True, dataset.original_character_set)


def _standard_vr(tag: BaseTag) -> str:
    if tag.is_private:
        return "LO" if tag.is_private_creator else "UN"
    return dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"


def _unambiguous_vr(dataset: Dataset, tag: BaseTag, image: Dataset) -> str:
    """Choose one of several VRs that the dictionary gives, such as ``US or SS``."""
    vr = _standard_vr(tag)
    if tag == _LUT_DESCRIPTOR:
        # PS3.3 C.11.2.1.1: the sign of what the LUT maps; of a Modality LUT, that of the pixels.
        is_voi = any(item is dataset for item in image.get("VOILUTSequence") or ())
        signed = _is_modality_output_signed(image) if is_voi else _has_signed_pixels(image)
        return "SS" if signed else "US"
    if "OW" in vr:
        return "OW"
    return "SS" if _has_signed_pixels(image) else "US"


def _has_signed_pixels(image: Dataset) -> bool:
    return bool(image.get("PixelRepresentation") == 1)


def _is_modality_output_signed(dataset: Dataset) -> bool:
    """Return whether the input of the VOI LUT can be below zero (PS3.3 C.11.2.1.1)."""
    if dataset.get("ModalityLUTSequence"):
        return False
    signed = _has_signed_pixels(dataset)
    minimum = -(1 << dataset.BitsStored - 1) if signed else 0
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope is None or intercept is None:
        return signed
    return minimum * float(slope) + float(intercept) < 0
