"""Check the structure of an encoded data set (PS3.5 section 7 and annex A) without pydicom.

A peer can send a hundred thousand elements in less than a megabyte, and pydicom takes
seconds and tens of megabytes to read them. So the elements are counted first. This also
finds data sets that end in the middle of an element, which pydicom accepts silently.
"""

import contextlib
import os
import struct
import sys
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
"""Limit of elements, items and fragments in a data set; a radiograph rarely has thousands."""

_MAX_DEPTH = 64
_UNDEFINED_LENGTH = 0xFFFFFFFF
_META_INFORMATION = 0x0002
_GROUP_LENGTH_OFFSET = 140
"""Of the value of (0002,0000) in a file (PS3.10 7.1)."""
_PIXEL_DATA = (1, 0x7FE0, 0x0010)
"""Level, group and element of the image's Pixel Data."""
_DELIMITERS = 0xFFFE
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
# VRs whose length field has 4 bytes (PS3.5 7.1.2).
LONG_LENGTH_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR",
                    b"UT", b"UV"}  # fmt: skip
_MIN_ELEMENT_BYTES = 8
_READ_CHUNK_BYTES = 1 << 20
_DAMAGED = "the data set is damaged or is cut off"


def check_structure(path: Path, offset: int, syntax: UID, max_inflated_bytes: int) -> None:
    """Check the structure of the data set in a file.

    Parameters
    ----------
    path : Path
        The file.
    offset : int
        Byte at which the data set starts.
    syntax : pydicom.uid.UID
        Its transfer syntax.
    max_inflated_bytes : int
        Limit of a deflated data set's size after inflating.

    Raises
    ------
    NotDicomError
        If it is damaged, is cut off, or has more than `MAX_ELEMENTS` elements, items and
        fragments.
    MemoryLimitError
        If it inflates to more than `max_inflated_bytes`.
    """
    with path.open("rb") as file:
        file.seek(offset)
        stream = _stream(file, syntax, max_inflated_bytes)
        try:
            _ElementWalker(stream, syntax).run()
        except (EOFError, zlib.error):
            raise NotDicomError(_DAMAGED) from None


def too_many_elements(limit: int) -> str:
    """Return the message about a data set that would take too much memory."""
    return f"the data set has more than {limit} elements, items and fragments"


def check_number_of_elements(
    file: BinaryIO, syntax: UID, limit: int = MAX_ELEMENTS, max_inflated_bytes: int = 0
) -> None:
    """Check the number of elements from the position of a file to its end.

    The structure is followed as far as it can be; damage is no error here.

    Raises
    ------
    NotDicomError
        If there are more than `limit` elements, items and fragments.
    MemoryLimitError
        If the data set is deflated and inflates to more than `max_inflated_bytes`.
    """
    stream = _stream(file, syntax, max_inflated_bytes)
    with contextlib.suppress(EOFError, zlib.error):
        _ElementWalker(stream, syntax, limit=limit, lenient=True).run()
    # What follows damage is inflated, too.
    with contextlib.suppress(EOFError, zlib.error):
        stream.skip(sys.maxsize)


def has_legal_encapsulation(file: BinaryIO, syntax: UID) -> bool:
    """Return whether a file written by this software is encapsulated as its syntax allows.

    Of a compressed transfer syntax the Pixel Data of the image may be, and nothing else that
    this software writes; of another one nothing (PS3.5 A.4).

    Parameters
    ----------
    file : file object
        With preamble and meta information; read from its start.
    syntax : pydicom.uid.UID
        Its transfer syntax.
    """
    file.seek(_GROUP_LENGTH_OFFSET)
    (length,) = struct.unpack("<I", file.read(4))
    file.seek(file.tell() + length)
    stream = _stream(file, syntax, sys.maxsize)
    walker = _ElementWalker(stream, syntax, limit=sys.maxsize, lenient=True)
    # What the source has in a structure that only pydicom follows is not judged here.
    with contextlib.suppress(EOFError):
        walker.run()
    return walker.encapsulated <= ({_PIXEL_DATA} if syntax.is_encapsulated else set())


class _Stream(Protocol):
    """Bytes that are read forward; both methods raise EOFError at a premature end."""

    def read(self, size: int, *, may_end: bool = False) -> bytes: ...

    def skip(self, size: int) -> None: ...


def _stream(file: BinaryIO, syntax: UID, max_inflated_bytes: int) -> _Stream:
    """Read the data set that starts at the position of a file."""
    if syntax == DeflatedExplicitVRLittleEndian:
        return _InflatedStream(file, max_inflated_bytes)
    return _PlainStream(file)


class _PlainStream:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        start = file.tell()
        self._size = file.seek(0, os.SEEK_END)
        file.seek(start)

    def read(self, size: int, *, may_end: bool = False) -> bytes:
        data = self._file.read(size)
        if len(data) < size and (data or not may_end):
            raise EOFError
        return data

    def skip(self, size: int) -> None:
        if self._file.tell() + size > self._size:
            raise EOFError
        self._file.seek(size, 1)


class _InflatedStream:
    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = self._bytes_left = max_bytes
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._buffer = b""
        # Position in the buffer; cutting the buffer for each element would copy it each time.
        self._position = 0

    def read(self, size: int, *, may_end: bool = False) -> bytes:
        while len(self._buffer) - self._position < size and self._inflate():
            pass
        data = self._buffer[self._position : self._position + size]
        self._position += len(data)
        if len(data) < size and (data or not may_end):
            raise EOFError
        return data

    def skip(self, size: int) -> None:
        self._position += size
        while self._position > len(self._buffer):
            if not self._inflate():
                raise EOFError

    def _inflate(self) -> bool:
        """Inflate a chunk; return False at the end marker of the deflated stream."""
        if self._inflater.eof:
            return False
        deflated = self._inflater.unconsumed_tail or self._file.read(_READ_CHUNK_BYTES)
        # At the end of the file, zlib may still hold inflated bytes.
        chunk = self._inflater.decompress(deflated, _READ_CHUNK_BYTES)
        if not deflated and not chunk and not self._inflater.eof:
            raise EOFError
        used = min(self._position, len(self._buffer))
        self._buffer = self._buffer[used:] + chunk
        self._position -= used
        self._bytes_left -= len(chunk)
        if self._bytes_left < 0:
            raise MemoryLimitError(
                f"the deflated data set inflates to more than {self._max_bytes >> 20} MiB"
            )
        return True


class _Kind(Enum):
    DATA_SET = auto()
    SEQUENCE = auto()
    FRAGMENTS = auto()


@dataclass(slots=True)
class _Level:
    """One level of nesting; `end` is None if a delimiter ends it."""

    kind: _Kind
    end: int | None
    implicit: bool
    is_first_element: bool = True


class _ElementWalker:
    """Reads a data set as pydicom does, and refuses it where pydicom would guess."""

    def __init__(
        self, stream: _Stream, syntax: UID, *, limit: int = MAX_ELEMENTS, lenient: bool = False
    ) -> None:
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        self._limit = limit
        self._lenient = lenient
        self._stream = stream
        self._tag = struct.Struct(f"{order}HH")
        self._short, self._long = struct.Struct(f"{order}H"), struct.Struct(f"{order}I")
        self._position = 0
        self._count = 0
        self._levels = [_Level(_Kind.DATA_SET, None, syntax == ImplicitVRLittleEndian)]
        self.encapsulated = set[tuple[int, int, int]]()
        """Level, from 1, group and element of each value that consists of fragments."""

    def run(self) -> None:
        while True:
            level = self._levels[-1]
            if level.end is not None and self._position >= level.end:
                self._require(self._position == level.end)
                self._levels.pop()
                continue
            is_top_level = len(self._levels) == 1
            tag = self._stream.read(4, may_end=is_top_level)
            if not tag:
                return
            self._position += 4
            group, number = self._tag.unpack(tag)
            if group == _DELIMITERS:
                self._read_delimiter(level, number)
                continue
            self._require(level.kind is _Kind.DATA_SET)
            # pydicom would take group 0002 for the meta information, with its transfer syntax.
            self._require(self._lenient or not is_top_level or group > _META_INFORMATION)
            self._read_element(level, group, number)

    def _read_delimiter(self, level: _Level, number: int) -> None:
        length = self._long.unpack(self._read(4))[0]
        is_in_sequence = level.kind is not _Kind.DATA_SET
        if number == _ITEM and level.kind is _Kind.FRAGMENTS:
            self._require(length != _UNDEFINED_LENGTH)
            self._count_element()
            self._skip(length)
        elif number == _ITEM and is_in_sequence:
            self._count_element()
            self._push(_Kind.DATA_SET, length, implicit=level.implicit)
        elif number == (_SEQUENCE_END if is_in_sequence else _ITEM_END):
            self._require(level.end is None and len(self._levels) > 1)
            self._levels.pop()
        else:
            self._require(False)

    def _read_element(self, level: _Level, group: int, number: int) -> None:
        self._count_element()
        header = self._read(4)
        has_vr = all(0x40 < letter < 0x5B for letter in header[:2])
        if level.is_first_element:
            level.is_first_element = False
            # A data set may have the other VR encoding than stated; an item only implicit VR.
            is_top_level = len(self._levels) == 1
            level.implicit = not has_vr if is_top_level else level.implicit or not has_vr
        vr = header[:2]
        if level.implicit or not b"AA" <= vr <= b"ZZ":
            vr, length = b"", self._long.unpack(header)[0]
        elif vr in LONG_LENGTH_VRS:
            length = self._long.unpack(self._read(4))[0]
        else:
            length = self._short.unpack(header[2:])[0]
        if length == _UNDEFINED_LENGTH:
            is_sequence = vr in (b"SQ", b"UN") or (not vr and group != 0x7FE0)
            kind = _Kind.SEQUENCE if is_sequence else _Kind.FRAGMENTS
            if not is_sequence:
                self.encapsulated.add((len(self._levels), group, number))
            self._push(kind, length, implicit=level.implicit)
        elif vr == b"SQ":
            self._push(_Kind.SEQUENCE, length, implicit=level.implicit)
        elif vr in (b"", b"UN") and length >= _MIN_ELEMENT_BYTES:
            self._read_unknown(length, implicit=level.implicit)
        else:
            self._skip(length)

    def _read_unknown(self, length: int, *, implicit: bool) -> None:
        """Read a value of unknown VR: a sequence if it starts with an item (PS3.5 6.2.2)."""
        end = self._position + length
        if self._tag.unpack(self._read(4)) == (_DELIMITERS, _ITEM):
            self._push(_Kind.SEQUENCE, end - self._position, implicit=implicit)
            self._read_delimiter(self._levels[-1], _ITEM)
        else:
            self._skip(length - 4)

    def _push(self, kind: _Kind, length: int, *, implicit: bool) -> None:
        self._require(len(self._levels) < _MAX_DEPTH)
        end = None if length == _UNDEFINED_LENGTH else self._position + length
        self._levels.append(_Level(kind, end, implicit))

    def _count_element(self) -> None:
        self._count += 1
        if self._count > self._limit:
            raise NotDicomError(too_many_elements(self._limit))

    def _read(self, size: int) -> bytes:
        self._position += size
        return self._stream.read(size)

    def _skip(self, size: int) -> None:
        self._position += size
        self._stream.skip(size)

    def _require(self, condition: bool) -> None:
        if not condition:
            raise EOFError
