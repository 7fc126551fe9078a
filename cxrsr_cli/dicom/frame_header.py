"""Read the image size from a compressed frame, before a codec allocates that size."""

from dataclasses import dataclass
from typing import Self

# Marker codes of JPEG (ITU-T T.81 table B.1), JPEG-LS (T.87) and JPEG 2000 (T.800).
_START_OF_IMAGE = b"\xff\xd8"
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
_JP2_SIGNATURE = b"jP  "
_START_OF_CODESTREAM = b"\xff\x4f\xff\x51"


@dataclass(frozen=True, slots=True)
class FrameSize:
    """Image size that a compressed frame states.

    Attributes
    ----------
    rows, columns : int
        Rows may be 0 in JPEG, where a marker after the first scan can state them.
    """

    rows: int
    columns: int

    @classmethod
    def from_stream(cls, stream: bytes) -> Self | None:
        """Read the size; None if `stream` is not JPEG, JPEG-LS or JPEG 2000, or states none."""
        if stream.startswith(_START_OF_IMAGE):
            return cls._from_jpeg(stream)
        if stream[4:8] == _JP2_SIGNATURE:  # not allowed (PS3.5 A.4.4), but it occurs
            stream = stream[max(stream.find(_START_OF_CODESTREAM), 0) :]
        if stream.startswith(_START_OF_CODESTREAM) and len(stream) >= 24:
            right, bottom, left, top = (_number(stream[at : at + 4]) for at in (8, 12, 16, 20))
            return cls(bottom - top, right - left)
        return None

    @classmethod
    def _from_jpeg(cls, stream: bytes) -> Self | None:
        at = 2
        while at + 9 <= len(stream) and stream[at] == 0xFF:
            marker = stream[at + 1]
            if marker == 0xFF:  # fill byte
                at += 1
            elif marker in _START_OF_FRAME:
                return cls(_number(stream[at + 5 : at + 7]), _number(stream[at + 7 : at + 9]))
            elif marker == _START_OF_SCAN:
                return None
            else:
                at += 2 + _number(stream[at + 2 : at + 4])
        return None


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "big")
