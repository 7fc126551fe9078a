"""Read what a compressed frame states of its pixels, before a codec acts on it."""

import math
from dataclasses import dataclass
from typing import Self

# Marker codes of JPEG (ITU-T T.81 table B.1), JPEG-LS (T.87) and JPEG 2000 (T.800).
_START_OF_IMAGE = b"\xff\xd8"
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_END_OF_IMAGE = b"\xff\xd9"
_MAX_PADDING_BYTES = 16
_MAX_HEADER_BYTES = 4 << 20
_JP2_SIGNATURE = b"jP  "
_START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
_START_OF_TILE_PART = b"\xff\x90"
_CODING_STYLE = b"\xff\x52"
_TRANSFORMATION = 13
"""Offset in a COD marker segment of the wavelet transformation (T.800 A.6.1)."""
_START_OF_JPEG_LS_FRAME = 0xF7
_SIZ_BYTES = 45
"""From the start of a codestream to the end of its first component."""


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What a compressed frame states of its pixels.

    Attributes
    ----------
    rows, columns : int
        Rows may be 0 in JPEG, where a marker after the first scan can state them.
    components : int
        Samples per pixel.
    bits : int
        Of a sample.
    signed : bool or None
        None for JPEG and JPEG-LS, which do not state it.
    """

    rows: int
    columns: int
    components: int
    bits: int
    signed: bool | None = None

    @classmethod
    def from_stream(cls, stream: bytes) -> Self | None:
        """Read the header; None if `stream` is not JPEG, JPEG-LS or JPEG 2000, or has none."""
        if stream.startswith(_START_OF_IMAGE):
            return cls._from_jpeg(stream)
        if stream[4:8] == _JP2_SIGNATURE:  # not allowed (PS3.5 A.4.4), but it occurs
            at = max(stream.find(_START_OF_CODESTREAM), 0)
            stream = stream[at : at + _SIZ_BYTES]
        if stream.startswith(_START_OF_CODESTREAM) and len(stream) >= _SIZ_BYTES:
            right, bottom, left, top = (_number(stream[at : at + 4]) for at in (8, 12, 16, 20))
            components, depth = _number(stream[40:42]), stream[42]
            return cls(bottom - top, right - left, components, (depth & 0x7F) + 1, depth > 0x7F)
        return None

    @classmethod
    def _from_jpeg(cls, stream: bytes) -> Self | None:
        at, end = 2, min(len(stream), _MAX_HEADER_BYTES)
        while at + 10 <= end and stream[at] == 0xFF:
            marker = stream[at + 1]
            if marker == 0xFF:  # fill byte
                at += 1
            elif marker in _START_OF_FRAME:
                rows, columns = _number(stream[at + 5 : at + 7]), _number(stream[at + 7 : at + 9])
                return cls(rows, columns, stream[at + 9], stream[at + 4])
            elif marker == _START_OF_SCAN:
                return None
            else:
                at += 2 if marker in _WITHOUT_LENGTH else 2 + _number(stream[at + 2 : at + 4])
        return None


def is_reversible(stream: bytes) -> bool:
    """Return whether a compressed frame states that no value was changed.

    That is JPEG 2000, also high-throughput, with the reversible transformation (T.800 A.6.1),
    and JPEG-LS with NEAR = 0 (T.87 C.2.3).
    """
    at = stream.find(_START_OF_CODESTREAM)
    if stream.startswith(_START_OF_CODESTREAM) or stream[4:8] == _JP2_SIGNATURE:
        at += 2
        while stream[at : at + 1] == b"\xff" and stream[at : at + 2] != _START_OF_TILE_PART:
            if stream[at : at + 2] == _CODING_STYLE:
                return stream[at + _TRANSFORMATION : at + _TRANSFORMATION + 1] == b"\x01"
            at += 2 + _number(stream[at + 2 : at + 4])
        return False
    at = 2
    is_jpeg_ls = False
    while stream.startswith(_START_OF_IMAGE) and stream[at : at + 1] == b"\xff":
        marker = stream[at + 1]
        is_jpeg_ls |= marker == _START_OF_JPEG_LS_FRAME
        if marker == _START_OF_SCAN:
            near = at + 5 + 2 * stream[at + 4]
            return is_jpeg_ls and stream[near : near + 1] == b"\0"
        at += 1 if marker == 0xFF else 2 + _number(stream[at + 2 : at + 4])
    return False


def has_all_tiles(stream: bytes) -> bool:
    """Return whether a JPEG 2000 codestream has a part of each of its tiles (T.800 A.4.2).

    Behind the last of them must be the end. Other bytes there are what a failed transfer left,
    and the parts before may hold such bytes, too, which a codec would decode.
    """
    start = stream.find(_START_OF_CODESTREAM)
    if start < 0 or len(stream) < start + _SIZ_BYTES:
        return False
    right, bottom, width, height, x, y = (
        _number(stream[start + at : start + at + 4]) for at in (8, 12, 24, 28, 32, 36)
    )
    if not (width and height):
        return False
    expected = math.ceil((right - x) / width) * math.ceil((bottom - y) / height)
    tiles, at = set[bytes](), start + 2
    while at + 12 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at : at + 2]
        if marker == _END_OF_IMAGE or (tiles and marker != _START_OF_TILE_PART):
            break
        length = _number(stream[at + 2 : at + 4]) + 2
        if marker == _START_OF_TILE_PART:
            tiles.add(stream[at + 4 : at + 6])
            # 0 for the last one: as far as the codestream goes.
            length = _number(stream[at + 6 : at + 10]) or len(stream)
        at += length
    rest = stream[at:]
    return len(tiles) >= expected and (len(rest) <= 1 or rest.startswith(_END_OF_IMAGE))


def add_end_of_image(stream: bytes) -> bytes:
    """Return a JPEG or JPEG-LS frame with its last marker, which some software leaves out.

    With it, a codec finds the marker where pixels are missing, and says so. Without it some
    fill the pixels with grey, and others search for seconds. The marker cannot occur inside
    of compressed pixels.
    """
    is_jpeg = stream.startswith(_START_OF_IMAGE)
    if not is_jpeg or _END_OF_IMAGE in stream[-_MAX_PADDING_BYTES:]:
        return stream
    return stream + _END_OF_IMAGE


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "big")
