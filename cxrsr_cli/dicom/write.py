"""Write a DICOM file whole, verified, and never over its source."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.fileutil import buffer_length
from pydicom.uid import UID, ExplicitVRLittleEndian

from cxrsr_cli.common.files import atomic_write, sha256_file
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.codecs import decodes_to_raw_cells
from cxrsr_cli.dicom.decode import decodes_equal, number_of_frames
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.raw_elements import to_explicit_vr
from cxrsr_cli.dicom.source import NATIVE_SYNTAXES, read_source
from cxrsr_cli.errors import NotDicomError, OutputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_ENCODE_CHUNK_BYTES = 1 << 20
"""Cells that are changed at a time."""


def check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    """Refuse a target before any work is done for it.

    Raises
    ------
    OutputError
        If the target is the source, by whatever name or link, or exists and
        may not be overwritten, or is a folder, or lies where none can be made.
    """
    try:
        if target.is_dir():
            raise OutputError("{path} is a folder", target)
        if target.exists() and source.samefile(target):
            raise OutputError("input and output are the same file, and a source is kept")
        if not overwrite and (target.exists() or target.is_symlink()):
            raise OutputError("{path} exists; use --overwrite to replace it", target)
        check_writable(target)
    except OSError as error:
        raise OutputError(f"cannot write {{path}}: {error.strerror}", target) from error


def check_writable(path: Path) -> None:
    """Refuse a path in whose folder, there or to be made, nothing can be written.

    Raises
    ------
    OutputError
        Naming the folder that is in the way.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise OutputError(f"cannot write {{path}}: {folder} is not a folder to write in", path)


@contextmanager
def os_errors_as_output_error(target: Path) -> Iterator[None]:
    """Make a target's folder, and say what then stops the writing in this program's words.

    Raises
    ------
    OutputError
        For any error of the operating system.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {{path}}: {error.strerror}", target) from error
    try:
        yield
    except FileExistsError:
        raise OutputError(
            "{path} appeared meanwhile; use --overwrite to replace it", target
        ) from None
    except OSError as error:
        raise OutputError(
            f"cannot write {{path}}: {error.strerror or 'I/O error'}", target
        ) from error


def write_dicom(
    dataset: FileDataset,
    pixels: NDArray[np.integer],
    target: Path,
    *,
    syntax: UID = ExplicitVRLittleEndian,
    overwrite: bool = False,
    before_publish: Callable[[str], None] = lambda _: None,
) -> str:
    """Encode, write, decode again, compare, then rename.

    Parameters
    ----------
    dataset : pydicom.dataset.FileDataset
        The derived object, uncompressed; encoded in place. Pixel Data may be a
        buffer (`PixelDataStream`), which is written piece by piece; to be compressed
        or deflated it is put in memory.
    pixels : numpy.ndarray
        ``(F, H, W)`` stored values that the file must hold.
    target : Path
        Final name; missing folders are made.
    syntax : pydicom.uid.UID
        Lossless transfer syntax to write (`resolve`).
    overwrite : bool
        Whether an existing file is replaced.
    announce : callable
        Told the file's SHA-256 just before it gets its name.

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    OutputError
        If the pixels cannot be encoded, or the file cannot be written or does
        not read back as written. No file is left under the final name.
    NotDicomError
        If the source's elements are too damaged to be written.
    """
    with os_errors_as_output_error(target), atomic_write(target, overwrite=overwrite) as temporary:
        with quiet_libraries():
            _encode(dataset, syntax)
            _save(dataset, temporary, syntax)
        if not verify_written_file(temporary, dataset, pixels):
            raise OutputError("{path}: what was written does not read back the same", target)
        sha256 = sha256_file(temporary)
        before_publish(sha256)
    return sha256


def _encode(dataset: FileDataset, syntax: UID) -> None:
    if not syntax.is_compressed:
        dataset.file_meta.TransferSyntaxUID = syntax
        return
    stored = dataset.BitsStored
    try:
        _put_in_memory(dataset)
        if decodes_to_raw_cells(syntax):
            # pydicom first cuts cells to Bits Stored, and so breaks 8 bits stored in 16.
            dataset.BitsStored = dataset.BitsAllocated
        else:
            _right_align_values(dataset)
        dataset.compress(syntax, generate_instance_uid=False)
    # Codecs raise anything, with header values in the text.
    except Exception as error:
        raise OutputError(
            f"the pixels cannot be written as {syntax.name} ({type(error).__name__}); "
            "use --transfer-syntax explicit"
        ) from None
    finally:
        dataset.BitsStored = stored


def _put_in_memory(dataset: FileDataset) -> None:
    """Make bytes of Pixel Data that are a buffer, which no codec takes."""
    pixels = dataset["PixelData"]
    if pixels.is_buffered:
        pixels.value.seek(0)
        # With its length: else it would be read in pieces, and joined.
        pixels.value = pixels.value.read(buffer_length(pixels.value))


def _right_align_values(dataset: FileDataset) -> None:
    """Move values down in their cells for a codec that knows only values (PS3.5 8.2)."""
    above = PixelFormat.from_dataset(dataset)
    below = replace(above, high_bit=above.bits_stored - 1)
    if above == below:
        return
    cells = np.frombuffer(bytearray(dataset.PixelData), above.cell_dtype)
    for start in range(0, cells.size, _ENCODE_CHUNK_BYTES):
        part = cells[start : start + _ENCODE_CHUNK_BYTES]
        part[:] = below.pack(above.unpack(part))
    dataset.PixelData = cells.tobytes()
    dataset.HighBit = below.high_bit


def _save(dataset: FileDataset, path: Path, syntax: UID) -> None:
    try:
        if dataset.original_encoding[0] and not syntax.is_implicit_VR:
            to_explicit_vr(dataset)
        dataset.save_as(path, enforce_file_format=True, overwrite=True)
    except OSError:
        raise
    # Elements that pydicom read from a damaged file may be beyond its writer,
    # which then raises anything, with values in the text.
    except Exception as error:
        raise NotDicomError(
            f"damaged DICOM: it holds elements that cannot be written ({type(error).__name__})"
        ) from None


_SAME = (
    "SOPClassUID", "SOPInstanceUID", "SamplesPerPixel", "PhotometricInterpretation",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation",
)  # fmt: skip
"""What says which object it is and how its pixels are to be read (PS3.3 C.7.6.3)."""

_COMPARE_CHUNK_PIXELS = 1 << 18
"""Pixels that are compared at a time."""


def verify_written_file(path: Path, dataset: FileDataset, pixels: NDArray[np.integer]) -> bool:
    """Read a file as if it were anybody's, and compare.

    Parameters
    ----------
    path : Path
        The file.
    dataset : pydicom.dataset.FileDataset
        The object that was written there.
    pixels : numpy.ndarray
        ``(F, H, W)`` stored values that it must hold.

    Returns
    -------
    bool
        Whether it is that object, in that transfer syntax and pixel format, and
        holds the pixels. Those that are neither compressed nor deflated are
        compared piece by piece; the others are decoded, all in memory.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        pixel_format = PixelFormat.from_dataset(dataset)
        length = pixels.size * pixel_format.cell_dtype.itemsize
        written = read_source(
            path, min_deferred_bytes=length if syntax in NATIVE_SYNTAXES else None
        )
        header, place = written.dataset, written.pixel_data_range
        if written.transfer_syntax != syntax or any(
            header.get(keyword) != dataset.get(keyword) for keyword in _SAME
        ):
            return False
        if place is None:
            return decodes_equal(written, pixels)
        shape = number_of_frames(header), header.Rows, header.Columns
        return pixels.shape == shape and _holds(path, place, pixel_format, pixels)
    except OSError:
        raise
    except Exception:  # what pydicom raises over a damaged file may be anything
        return False


def _holds(
    path: Path, place: range, pixel_format: PixelFormat, pixels: NDArray[np.integer]
) -> bool:
    """Compare the cells in a file with stored values."""
    values = np.ravel(pixels)
    expected = values.size * pixel_format.cell_dtype.itemsize
    if len(place) != expected + expected % 2:
        return False
    piece = np.empty(_COMPARE_CHUNK_PIXELS, pixel_format.cell_dtype)
    with path.open("rb") as opened:
        opened.seek(place.start)
        for start in range(0, values.size, _COMPARE_CHUNK_PIXELS):
            part = values[start : start + _COMPARE_CHUNK_PIXELS]
            cells = piece[: part.size]
            if opened.readinto(cells.data) != cells.nbytes:
                return False
            if not np.array_equal(pixel_format.unpack(cells), part):
                return False
    return True


_STREAM_CHUNK_BYTES = 1 << 20


class PixelDataStream(io.BufferedReader):
    """The cells of stored values, as the value of an element (PS3.5 8.1.1 and 8.2).

    Parameters
    ----------
    values : numpy.ndarray
        Contiguous stored values of any shape and integer type, inside the legal
        range. They are not copied, and must not be changed while this is in use.
    pixel_format : PixelFormat
        Where in a cell a value lies.

    Notes
    -----
    pydicom takes a buffer for a value, asks for a few kilobytes at a time and
    states the length that it finds, so a byte that makes the length even is
    part of it. A deep copy is one, of the values too.
    """

    def __init__(self, values: NDArray[np.integer], pixel_format: PixelFormat) -> None:
        super().__init__(_RawPixelDataStream(values, pixel_format), _STREAM_CHUNK_BYTES)
        self._values, self._pixel_format = values, pixel_format

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Copy the values and the position; pydicom copies objects this way."""
        copied = type(self)(self._values.copy(), self._pixel_format)
        copied.seek(self.tell())
        return copied


class _RawPixelDataStream(io.RawIOBase):
    """What `PixelDataStream` buffers: cells are made as they are read."""

    def __init__(self, values: NDArray[np.integer], pixel_format: PixelFormat) -> None:
        super().__init__()
        self._values, self._pixel_format = np.ravel(values), pixel_format
        length = self._values.size * pixel_format.cell_dtype.itemsize
        self._length, self._position = length + length % 2, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        if origin + offset < 0:
            raise ValueError("before the beginning")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        place = memoryview(buffer).cast("B")
        width = self._pixel_format.cell_dtype.itemsize
        start = self._position
        stop = min(start + min(len(place), _STREAM_CHUNK_BYTES), self._length)
        if stop <= start:
            return 0
        values = self._values[start // width : -(-stop // width)]
        cells = self._pixel_format.pack(values).view(np.uint8)[start % width :][: stop - start]
        place[: len(cells)] = cells.data
        place[len(cells) : stop - start] = bytes(stop - start - len(cells))
        self._position = stop
        return stop - start
