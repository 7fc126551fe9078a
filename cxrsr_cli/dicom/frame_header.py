"""What a compressed frame says of itself, before a codec believes it."""

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
    """Size of the image in a compressed frame.

    Attributes
    ----------
    rows, columns : int
        Rows may be 0 in JPEG, which then states them after the first scan.
    """

    rows: int
    columns: int

    @classmethod
    def from_stream(cls, stream: bytes) -> Self | None:
        """Read it; None if `stream` is neither JPEG, JPEG-LS nor JPEG 2000."""
        if stream.startswith(_START_OF_IMAGE):
            return cls._by_jpeg(stream)
        if stream[4:8] == _JP2_SIGNATURE:  # not allowed in DICOM (PS3.5 A.4.4), and seen
            stream = stream[max(stream.find(_START_OF_CODESTREAM), 0) :]
        if stream.startswith(_START_OF_CODESTREAM) and len(stream) >= 24:
            right, bottom, left, top = (_number(stream[at : at + 4]) for at in (8, 12, 16, 20))
            return cls(bottom - top, right - left)
        return None

    @classmethod
    def _by_jpeg(cls, stream: bytes) -> Self | None:
        at = 2
        while at + 9 <= len(stream) and stream[at] == 0xFF:
            marker = stream[at + 1]
            if marker == 0xFF:  # fill
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
