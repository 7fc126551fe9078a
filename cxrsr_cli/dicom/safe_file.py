"""Read no more of a file than it holds, and inflate no more than is reasonable."""

import io
import zlib
from pathlib import Path

from cxrsr_cli.errors import MemoryLimitError

# Deflate reaches 1032:1, a radiograph 2:1 to 4:1, a mostly black one 20:1. So
# a file may inflate to a hundred times its size, and a small one, which cannot
# do much harm, to what an uncompressed radiograph takes.
_MAX_INFLATION = 100
_ALWAYS_ALLOWED = 64 << 20

_INFLATE_CHUNK_BYTES = 1 << 20


class LengthCheckedFile(io.BufferedReader):
    """A file for pydicom to read, which trusts what elements claim of their length.

    Parameters
    ----------
    path : Path
        Opened for reading only.

    Notes
    -----
    Two places in pydicom allocate what a file claims: the value of an element,
    and, inflated in one go, the data set of a deflated file. The second is the
    only one that reads without a size.
    """

    def __init__(self, path: Path) -> None:
        # A string, which pydicom needs for a name to open the file by again.
        super().__init__(io.FileIO(str(path)))
        self._length = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes, or what is left.

        Raises
        ------
        TooLargeError
            If what is left is to be inflated, and to more than the bound.
        """
        if size is None or size < 0:
            rest = super().read()
            _check_inflation(rest)
            return rest
        if size > _INFLATE_CHUNK_BYTES:
            size = min(size, max(self._length - self.tell(), 0))
        return super().read(size)


def _check_inflation(deflated: bytes) -> None:
    bound = max(_MAX_INFLATION * len(deflated), _ALWAYS_ALLOWED)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = 0
    # In pieces, which are dropped: a copy of the rest for each would take as long as it is large.
    for start in range(0, len(deflated), _INFLATE_CHUNK_BYTES):
        piece = deflated[start : start + _INFLATE_CHUNK_BYTES]
        while piece and not inflater.eof:
            inflated += len(inflater.decompress(piece, _INFLATE_CHUNK_BYTES))
            piece = inflater.unconsumed_tail
            if inflated > bound:
                raise MemoryLimitError(
                    f"the deflated data set inflates to more than {bound >> 20} MiB, "
                    "which no radiograph of this file's size does"
                )
