"""Write Series Description and Derivation Description, in the source's character set.

Text of this software is ASCII, which every character set has, so it is appended to the
source's text as bytes.
"""

from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import Tag
from pydicom.valuerep import TEXT_VR_DELIMS

from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.options import NOT_FOR_DIAGNOSIS

_MAX_SERIES_DESCRIPTION = 64
_MAX_DERIVATION_DESCRIPTION = 1024
"""In characters, of VR LO and ST (PS3.5 6.2)."""
_TO_ASCII = b"\x1b(B"
"""Escape sequence to ISO 646 (PS3.3 C.12.1.1.2)."""

_Element = DataElement | RawDataElement


def series_description(
    source: DicomSource, parameters: DerivationParameters
) -> tuple[_Element, str]:
    """Return the user's text, or the source's and what was done; and a warning or nothing."""
    options = parameters.options
    if options.series_description is not None:
        text = f"{options.series_description}, {NOT_FOR_DIAGNOSIS}"
        return _ascii_element("SeriesDescription", text), ""
    ours = f"AI super-resolution x{options.scale}, {NOT_FOR_DIAGNOSIS}"
    alone, stated = _ascii_element("SeriesDescription", ours), _stated(source, "SeriesDescription")
    if not stated:
        return alone, ""
    encodings, ours = _encodings(source), f": {ours}"
    whole = _decode(stated, encodings)
    # PS3.5 6.2: a backslash separates values, of which the attribute may have one.
    theirs = whole.replace("\\", " ")[: _MAX_SERIES_DESCRIPTION - len(ours)].strip()
    if theirs != whole:
        stated = encode_string(theirs, encodings)
    # Some multi-byte sets need an escape sequence before ASCII.
    for joined in (stated + ours.encode(), stated + _TO_ASCII + ours.encode()):
        if _decode(joined, encodings) == theirs + ours:
            return _element(source, "SeriesDescription", joined), ""
    return alone, "the source's Series Description was dropped: not legal in its character set"


def derivation_description(
    source: DicomSource, parameters: DerivationParameters, agreement: str
) -> tuple[_Element, str]:
    """Return what was done and the source's text, and a warning or nothing."""
    options = parameters.options
    noise = (
        f"; noise reduced by the share {options.noise_reduction:g}"
        if options.noise_reduction
        else ""
    )
    ensemble = "; mean of eight flips and rotations" if options.self_ensemble else ""
    impulses = (
        "; lone pixels at either end of the stored range first replaced by the median around them"
        if parameters.impulse_filter
        else ""
    )
    ours = (
        f"Enlarged x{options.scale} by AI super-resolution; model {options.model}, "
        f"weights SHA-256 {parameters.model_sha256}{impulses}{noise}{ensemble}; "
        f"{agreement}; "
        f"cxrsr {parameters.software}; {NOT_FOR_DIAGNOSIS}"
    )
    alone, stated = (
        _ascii_element("DerivationDescription", ours), _stated(source, "DerivationDescription")
    )  # fmt: skip
    if not stated:
        return alone, ""
    joined = f"{ours}. Earlier: ".encode() + stated
    if len(_decode(joined, _encodings(source))) > _MAX_DERIVATION_DESCRIPTION:
        return alone, "the earlier Derivation Description was dropped: too long"
    return _element(source, "DerivationDescription", joined), ""


def _stated(source: DicomSource, keyword: str) -> bytes:
    """Return the source's text as the bytes that it has."""
    raw = source.raw_dataset.get_item(keyword) if keyword in source.raw_dataset else None
    value = raw.value if isinstance(raw, RawDataElement) else None
    return value.strip(b" \0") if isinstance(value, bytes) else b""


def _encodings(source: DicomSource) -> list[str]:
    return convert_encodings(source.dataset.get("SpecificCharacterSet") or "ISO_IR 6")


def _decode(value: bytes, encodings: list[str]) -> str:
    return decode_bytes(value, encodings, TEXT_VR_DELIMS)


def _ascii_element(keyword: str, text: str) -> DataElement:
    return DataElement(Tag(keyword), dictionary_VR(keyword), text)


def _element(source: DicomSource, keyword: str, value: bytes) -> RawDataElement:
    """Return an element that is written as it is, in the encoding of its data set."""
    value += b" " * (len(value) % 2)
    implicit = bool(source.raw_dataset.original_encoding[0])
    vr = None if implicit else dictionary_VR(keyword)
    return RawDataElement(Tag(keyword), vr, len(value), value, 0, implicit, True)
