"""A file as the one part of a multipart message (PS3.18 8.6.1.2), read as it is sent."""

import io
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

_READ_CHUNK_BYTES = 1 << 16


class MultipartRelatedFile:
    """A request's body: a head, the bytes of a file, a tail.

    It has a length, so that no server has to understand chunks, and is read from
    the disk in pieces, so that memory does not depend on the file. It cannot
    tell where it stands, which requests would take for a length of 0.

    Parameters
    ----------
    path : Path
        Opened for reading only, until the end of the ``with`` block.

    Raises
    ------
    OSError
        If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        # Nobody can know it before, and so have it in a file.
        self._boundary = uuid.uuid4().hex
        head = f"--{self._boundary}\r\nContent-Type: application/dicom\r\n\r\n"
        tail = f"\r\n--{self._boundary}--\r\n"
        self._file = path.open("rb")
        self._left = os.fstat(self._file.fileno()).st_size
        self._head, self._tail = io.BytesIO(head.encode()), io.BytesIO(tail.encode())
        self._length = len(head) + self._left + len(tail)

    @property
    def content_type(self) -> str:
        """Value of the request's header field."""
        return f'multipart/related; type="application/dicom"; boundary={self._boundary}'

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        """Give the pieces; by this requests knows a stream."""
        return iter(lambda: self.read(_READ_CHUNK_BYTES), b"")

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes; nothing at the end."""
        if size is None or size < 0:
            size = self._length
        if piece := self._head.read(size):
            return piece
        if self._left:
            piece = self._file.read(min(size, self._left))
            if not piece:
                raise OSError("the file became shorter")
            self._left -= len(piece)
            return piece
        return self._tail.read(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
