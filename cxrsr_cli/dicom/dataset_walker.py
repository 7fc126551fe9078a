"""Walk through an encoded data set (PS3.5 7 and annex A) without making objects of it.

pydicom takes seconds and tens of megabytes for a hundred thousand elements, which
a peer can send in less than a megabyte. So they are counted first, and what ends
in the middle of an element is found on the way: pydicom reads that in silence.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO, Protocol

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from cxrsr_cli.errors import MemoryLimitError, NotDicomError

MAX_ELEMENTS = 1 << 16
"""Elements and items of a data set; a radiograph has hundreds, seldom thousands."""

_MAX_DEPTH = 64
_UNDEFINED = 0xFFFFFFFF
_META_INFORMATION = 0x0002
_DELIMITERS = 0xFFFE
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SMALLEST_ELEMENT = 8
_READ_CHUNK_BYTES = 1 << 20
_DAMAGED = "the data set is damaged, is cut off, or has too many elements"


def check_structure(path: Path, offset: int, syntax: UID, max_inflated_bytes: int) -> None:
    """Walk through the data set of a file.

    Parameters
    ----------
    path : Path
        The file.
    begins : int
        Offset of its data set.
    syntax : UID
        How it is encoded.
    largest : int
        Bytes that it may inflate to.

    Raises
    ------
    NotDicomError
        If it is damaged, is cut off, or has more than `MAX_ELEMENTS` elements and items.
    MemoryLimitError
        If it inflates to more than `largest` bytes.
    """
    with path.open("rb") as opened:
        opened.seek(offset)
        inflated = syntax == DeflatedExplicitVRLittleEndian
        stream = (
            _Inflated(opened, max_inflated_bytes)
            if inflated
            else _Plain(opened, path.stat().st_size)
        )
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        try:
            _ElementWalker(stream, order, implicit=syntax == ImplicitVRLittleEndian).run()
        except (EOFError, zlib.error):
            raise NotDicomError(_DAMAGED) from None


class _Stream(Protocol):
    """Bytes, forward only; both methods raise EOFError where they end before."""

    def read(self, size: int, *, may_end: bool = False) -> bytes: ...

    def skip(self, size: int) -> None: ...


class _Plain:
    def __init__(self, opened: BinaryIO, size: int) -> None:
        self._opened = opened
        self._size = size

    def read(self, size: int, *, may_end: bool = False) -> bytes:
        got = self._opened.read(size)
        if len(got) < size and (got or not may_end):
            raise EOFError
        return got

    def skip(self, size: int) -> None:
        if self._opened.tell() + size > self._size:
            raise EOFError
        self._opened.seek(size, 1)


class _Inflated:
    def __init__(self, opened: BinaryIO, largest: int) -> None:
        self._opened = opened
        self._left = largest
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._held = b""
        self._at = 0  # of what is held; cutting it for each element would copy it each time

    def read(self, size: int, *, may_end: bool = False) -> bytes:
        while len(self._held) - self._at < size and self._inflate():
            pass
        got = self._held[self._at : self._at + size]
        self._at += len(got)
        if len(got) < size and (got or not may_end):
            raise EOFError
        return got

    def skip(self, size: int) -> None:
        self._at += size
        while self._at > len(self._held):
            if not self._inflate():
                raise EOFError

    def _inflate(self) -> bool:
        """Inflate a piece; false at the end of the stream, which must be there."""
        if self._inflater.eof:
            return False
        deflated = self._inflater.unconsumed_tail or self._opened.read(_READ_CHUNK_BYTES)
        # Without more to read, zlib may still hold some.
        piece = self._inflater.decompress(deflated, _READ_CHUNK_BYTES)
        if not deflated and not piece and not self._inflater.eof:
            raise EOFError
        gone = min(self._at, len(self._held))
        self._held = self._held[gone:] + piece
        self._at -= gone
        self._left -= len(piece)
        if self._left < 0:
            raise MemoryLimitError("the data set inflates to more than its limit")
        return True


class _Kind(Enum):
    DATA_SET = auto()
    SEQUENCE = auto()
    FRAGMENTS = auto()


@dataclass(slots=True)
class _Level:
    """What the walk is in: where it ends, None for at its delimiter."""

    kind: _Kind
    end: int | None
    implicit: bool
    fresh: bool = True


class _ElementWalker:
    """Follows what pydicom would, and refuses where pydicom would guess."""

    def __init__(self, stream: _Stream, order: str, *, implicit: bool) -> None:
        self._stream = stream
        self._tag = struct.Struct(f"{order}HH")
        self._short, self._long = struct.Struct(f"{order}H"), struct.Struct(f"{order}I")
        self._at = 0
        self._count = 0
        self._levels = [_Level(_Kind.DATA_SET, None, implicit)]

    def run(self) -> None:
        while True:
            level = self._levels[-1]
            if level.end is not None and self._at >= level.end:
                self._require(self._at == level.end)
                self._levels.pop()
                continue
            top = len(self._levels) == 1
            tag = self._stream.read(4, may_end=top)
            if not tag:
                return
            self._at += 4
            group, number = self._tag.unpack(tag)
            if group == _DELIMITERS:
                self._delimit(level, number)
                continue
            self._require(level.kind is _Kind.DATA_SET)
            # Would be read as the file's, with another transfer syntax perhaps.
            self._require(not top or group > _META_INFORMATION)
            self._take_element(level, group)

    def _delimit(self, level: _Level, number: int) -> None:
        length = self._long.unpack(self._read(4))[0]
        within = level.kind is not _Kind.DATA_SET
        if number == _ITEM and level.kind is _Kind.FRAGMENTS:
            self._require(length != _UNDEFINED)
            self._skip(length)
        elif number == _ITEM and within:
            self._grow(1)
            self._push(_Kind.DATA_SET, length, implicit=level.implicit)
        elif number == (_SEQUENCE_END if within else _ITEM_END):
            self._require(level.end is None and len(self._levels) > 1)
            self._levels.pop()
        else:
            self._require(False)

    def _take_element(self, level: _Level, group: int) -> None:
        self._grow(1)
        head = self._read(4)
        letters = all(0x40 < letter < 0x5B for letter in head[:2])
        if level.fresh:
            level.fresh = False
            # A whole data set may be of the other kind than was said, an item only implicit.
            top = len(self._levels) == 1
            level.implicit = not letters if top else level.implicit or not letters
        vr = head[:2]
        if level.implicit or not b"AA" <= vr <= b"ZZ":
            vr, length = b"", self._long.unpack(head)[0]
        elif vr in _LONG:
            length = self._long.unpack(self._read(4))[0]
        else:
            length = self._short.unpack(head[2:])[0]
        if length == _UNDEFINED:
            is_sequence = vr in (b"SQ", b"UN") or (not vr and group != 0x7FE0)
            kind = _Kind.SEQUENCE if is_sequence else _Kind.FRAGMENTS
            self._push(kind, length, implicit=level.implicit)
        elif vr == b"SQ":
            self._push(_Kind.SEQUENCE, length, implicit=level.implicit)
        elif vr in (b"", b"UN") and length >= _SMALLEST_ELEMENT:
            self._take_unknown(length, implicit=level.implicit)
        else:
            self._skip(length)

    def _take_unknown(self, length: int, *, implicit: bool) -> None:
        """Take a value that is a sequence if it begins like one (PS3.5 6.2.2)."""
        end = self._at + length
        if self._tag.unpack(self._read(4)) == (_DELIMITERS, _ITEM):
            self._push(_Kind.SEQUENCE, end - self._at, implicit=implicit)
            self._delimit(self._levels[-1], _ITEM)
        else:
            self._skip(length - 4)

    def _push(self, kind: _Kind, length: int, *, implicit: bool) -> None:
        self._require(len(self._levels) < _MAX_DEPTH)
        end = None if length == _UNDEFINED else self._at + length
        self._levels.append(_Level(kind, end, implicit))

    def _grow(self, count: int) -> None:
        self._count += count
        self._require(self._count <= MAX_ELEMENTS)

    def _read(self, size: int) -> bytes:
        self._at += size
        return self._stream.read(size)

    def _skip(self, size: int) -> None:
        self._at += size
        self._stream.skip(size)

    def _require(self, true: bool) -> None:
        if not true:
            raise NotDicomError(_DAMAGED)
