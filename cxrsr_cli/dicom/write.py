"""Write a DICOM file: atomically, read back and compared, never over its source."""

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.fileutil import buffer_length
from pydicom.uid import UID, ExplicitVRLittleEndian

from cxrsr_cli.common.files import atomic_write, free_bytes, make_folder, sha256_file
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.attributes import number_of_frames, single_value
from cxrsr_cli.dicom.codecs import decodes_to_raw_cells
from cxrsr_cli.dicom.dataset_walker import has_legal_encapsulation
from cxrsr_cli.dicom.decode import decodes_equal
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.raw_elements import set_vr_encoding
from cxrsr_cli.dicom.source import NATIVE_SYNTAXES, DicomSource, read_source
from cxrsr_cli.errors import NotDicomError, OutputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_STREAM_CHUNK_BYTES = 1 << 20
_ENCODE_CHUNK_CELLS = 1 << 20
_COMPARE_CHUNK_PIXELS = 1 << 18

_COMPARED_KEYWORDS = (
    "SOPClassUID", "SOPInstanceUID", "SamplesPerPixel", "PhotometricInterpretation",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation",
)  # fmt: skip
"""Attributes that identify an object and decide how its pixels are read (PS3.3 C.7.6.3)."""


def check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    """Refuse a target before any work is done for it.

    Raises
    ------
    OutputError
        If the target is the source (under any name or link), exists and may not be
        overwritten, is a folder, or is in a folder that cannot be written to.
    """
    try:
        if target.is_dir():
            raise OutputError("{path} is a folder", target)
        if target.exists() and source.samefile(target):
            raise OutputError("input and output are the same file; a source is never overwritten")
        if not overwrite and (target.exists() or target.is_symlink()):
            raise OutputError("{path} exists; use --overwrite to replace it", target)
        check_writable(target)
    except OSError as error:
        raise OutputError(f"cannot write {{path}}: {error.strerror}", target) from error


def check_writable(path: Path) -> None:
    """Raise OutputError if a file cannot be written in its folder, which need not exist yet."""
    # A link that leads nowhere is in the way of the folder.
    folder = next(
        parent for parent in path.absolute().parents if parent.exists() or parent.is_symlink()
    )
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise OutputError(f"cannot write {{path}}: {folder} is not a writable folder", path)


def check_free_space(target: Path, needed: int) -> None:
    """Raise OutputError if a file system has less than the bytes that a file needs."""
    free = free_bytes(target)
    if free is not None and free < needed:
        raise OutputError(
            f"cannot write {{path}}: {os.strerror(errno.ENOSPC)}: it needs {needed >> 20} MiB, "
            f"and {free >> 20} MiB are free",
            target,
        )


def check_header(dataset: FileDataset, syntax: UID) -> None:
    """Encode all but the pixels, to find out whether it can be written.

    Parameters
    ----------
    dataset : pydicom.dataset.FileDataset
        As `write_dicom` takes it; changed.
    syntax : pydicom.uid.UID
        Transfer syntax to write.

    Raises
    ------
    NotDicomError
        If the source's elements are too damaged to be written.
    """
    native = syntax if syntax in NATIVE_SYNTAXES else ExplicitVRLittleEndian
    dataset["PixelData"].value = b""
    dataset.file_meta.TransferSyntaxUID = native
    with quiet_libraries():
        _save(dataset, io.BytesIO(), native)


@contextmanager
def os_errors_as_output_error(target: Path) -> Iterator[None]:
    """Make the folder of a target, and translate errors of the operating system.

    Raises
    ------
    OutputError
        For any OSError in the block.
    """
    try:
        make_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {{path}}: {error.strerror}", target) from error
    try:
        yield
    except FileExistsError:
        raise OutputError(
            "{path} was created by another process; use --overwrite to replace it", target
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
    permissions: int = 0o666,
    before_publish: Callable[[str], None] = lambda _: None,
) -> str:
    """Encode and write a file under a temporary name, read it back, compare, and rename it.

    Parameters
    ----------
    dataset : pydicom.dataset.FileDataset
        The derived object, uncompressed; changed when it is encoded. A buffer as Pixel Data
        (`PixelDataStream`) is written in chunks; compressing and deflating load it whole.
    pixels : numpy.ndarray
        ``(F, H, W)`` stored values that the file must hold.
    target : Path
        Final name; missing folders are made.
    syntax : pydicom.uid.UID
        Lossless transfer syntax to write (`resolve_transfer_syntax`).
    overwrite : bool
        Whether an existing file is replaced.
    permissions : int
        As of `atomic_write`.
    before_publish : callable
        Called with the file's SHA-256 just before the file gets its final name.

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    OutputError
        If the pixels cannot be encoded, or the file cannot be written or does not read
        back the same. Then no file is left under the final name.
    NotDicomError
        If the source's elements are too damaged to be written.
    """
    with (
        os_errors_as_output_error(target),
        atomic_write(target, overwrite=overwrite, permissions=permissions) as temporary,
    ):
        with quiet_libraries():
            _encode(dataset, syntax)
            _save(dataset, temporary, syntax)
        if not verify_written_file(temporary, dataset, pixels):
            raise OutputError("{path}: the written file does not read back the same", target)
        sha256 = sha256_file(temporary)
        before_publish(sha256)
    return sha256


def encode_dicom(dataset: FileDataset, pixels: NDArray[np.integer], syntax: UID) -> FileDataset:
    """Encode in memory as `write_dicom` does in a file, decode again and compare.

    Parameters
    ----------
    dataset, pixels, syntax
        As of `write_dicom`.

    Returns
    -------
    pydicom.dataset.FileDataset
        The encoded object, read back.

    Raises
    ------
    OutputError
        If the pixels cannot be encoded, or do not read back as written.
    NotDicomError
        If the source's elements are too damaged to be written.
    """
    file = io.BytesIO()
    with quiet_libraries():
        _encode(dataset, syntax)
        _save(dataset, file, syntax)
        if not verify_written_file(file, dataset, pixels):
            raise OutputError("what was encoded does not read back the same")
        file.seek(0)
        return pydicom.dcmread(file)


def encode_header(dataset: FileDataset, syntax: UID) -> DicomSource:
    """Encode an object without its pixel data, and read it back.

    Parameters
    ----------
    dataset : pydicom.dataset.FileDataset
        The derived object; it loses its Pixel Data.
    syntax : pydicom.uid.UID
        Uncompressed transfer syntax.

    Raises
    ------
    NotDicomError
        If it has elements that are too damaged to be written.
    """
    file = io.BytesIO()
    del dataset.PixelData
    with quiet_libraries():
        _encode(dataset, syntax)
        _save(dataset, file, syntax)
    return read_source(file)


def _encode(dataset: FileDataset, syntax: UID) -> None:
    if not syntax.is_compressed:
        dataset.file_meta.TransferSyntaxUID = syntax
        return
    stored = dataset.BitsStored
    try:
        _load_pixel_data(dataset)
        if decodes_to_raw_cells(syntax):
            # pydicom first cuts cells to Bits Stored, which breaks 8 bits stored in 16.
            dataset.BitsStored = dataset.BitsAllocated
        else:
            _right_align_values(dataset)
        dataset.compress(syntax, generate_instance_uid=False)
    # Codecs raise any exception, with header values in its text.
    except Exception as error:
        raise OutputError(
            f"the pixels cannot be written as {syntax.name} ({type(error).__name__}); "
            "use --transfer-syntax explicit"
        ) from None
    finally:
        dataset.BitsStored = stored


def _load_pixel_data(dataset: FileDataset) -> None:
    """Replace Pixel Data that are a buffer by bytes, which codecs need."""
    pixels = dataset["PixelData"]
    if pixels.is_buffered:
        pixels.value.seek(0)
        # Without its length it would be read in chunks and joined.
        pixels.value = pixels.value.read(buffer_length(pixels.value))


def _right_align_values(dataset: FileDataset) -> None:
    """Move values to the low bits of their cells, for codecs without High Bit (PS3.5 8.2)."""
    old = PixelFormat.from_dataset(dataset)
    new = replace(old, high_bit=old.bits_stored - 1)
    if old == new:
        return
    cells = np.frombuffer(bytearray(dataset.PixelData), old.cell_dtype)
    for start in range(0, cells.size, _ENCODE_CHUNK_CELLS):
        chunk = cells[start : start + _ENCODE_CHUNK_CELLS]
        chunk[:] = new.pack(old.unpack(chunk))
    dataset.PixelData = cells.tobytes()
    dataset.HighBit = new.high_bit


def _save(dataset: FileDataset, file: Path | io.BytesIO, syntax: UID) -> None:
    try:
        set_vr_encoding(dataset, implicit=syntax.is_implicit_VR)
        dataset.save_as(file, enforce_file_format=True, overwrite=True)
    except OSError as error:
        # pydicom raises a new error, with the place in its text and without the system's number.
        while isinstance(error.__cause__, OSError):
            error = error.__cause__
        if error.errno is not None:
            raise error from None
        raise NotDicomError("damaged DICOM: it has a value that cannot be written") from None
    # pydicom's writer may fail on elements that it read from a damaged file; it raises any
    # exception, with values in its text.
    except Exception as error:
        raise NotDicomError(
            f"damaged DICOM: it has elements that cannot be written ({type(error).__name__})"
        ) from None


def verify_written_file(
    file: Path | io.BytesIO, dataset: FileDataset, pixels: NDArray[np.integer]
) -> bool:
    """Read a file like any other input, and compare it with what should be in it.

    Parameters
    ----------
    file : Path or io.BytesIO
        The file, or the same in memory.
    dataset : pydicom.dataset.FileDataset
        The object that was written.
    pixels : numpy.ndarray
        ``(F, H, W)`` stored values that the file must hold.

    Returns
    -------
    bool
        Whether the object, its transfer syntax, pixel format and pixels are the same, and
        nothing is encapsulated that may not be. pydicom, which writes the file, does not see
        the latter, so another reader looks for it.
        Uncompressed pixels are compared in chunks; others are decoded in memory.

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
            file, min_deferred_bytes=length if syntax in NATIVE_SYNTAXES else None
        )
        header, place = written.dataset, written.pixel_data_range
        if (
            written.transfer_syntax != syntax
            or any(
                single_value(header, keyword) != single_value(dataset, keyword)
                for keyword in _COMPARED_KEYWORDS
            )
            or number_of_frames(header) != number_of_frames(dataset)
            or not _has_legal_encapsulation(file, syntax)
        ):
            return False
        if place is None or isinstance(file, io.BytesIO):
            return decodes_equal(written, pixels)
        shape = number_of_frames(header), header.Rows, header.Columns
        return pixels.shape == shape and _cells_equal(file, place, pixel_format, pixels)
    except OSError:
        raise
    except Exception:  # on a damaged file pydicom raises any exception
        return False


def _has_legal_encapsulation(file: Path | io.BytesIO, syntax: UID) -> bool:
    if isinstance(file, io.BytesIO):
        return has_legal_encapsulation(file, syntax)
    with file.open("rb") as opened:
        return has_legal_encapsulation(opened, syntax)


def _cells_equal(
    path: Path, place: range, pixel_format: PixelFormat, pixels: NDArray[np.integer]
) -> bool:
    """Return whether the cells in a range of a file are those of stored values."""
    values = np.ravel(pixels)
    expected = values.size * pixel_format.cell_dtype.itemsize
    if len(place) != expected + expected % 2:
        return False
    buffer = np.empty(_COMPARE_CHUNK_PIXELS, pixel_format.cell_dtype)
    with path.open("rb") as file:
        file.seek(place.start)
        for start in range(0, values.size, _COMPARE_CHUNK_PIXELS):
            chunk = values[start : start + _COMPARE_CHUNK_PIXELS]
            cells = buffer[: chunk.size]
            if file.readinto(cells.data) != cells.nbytes:
                return False
            if not np.array_equal(pixel_format.unpack(cells), chunk):
                return False
    return True


class PixelDataStream(io.BufferedReader):
    """The cells of stored values as the value of Pixel Data, made as pydicom reads them.

    So a large image is in memory only once (PS3.5 8.1.1 and 8.2).

    Parameters
    ----------
    values : numpy.ndarray
        Contiguous stored values of any shape and integer type, inside the legal range. They
        are not copied, and must not be changed while this is in use.
    pixel_format : PixelFormat
        How values are placed in their cells.

    Notes
    -----
    pydicom accepts a buffer as a value, reads a few kilobytes at a time and writes the
    length that it finds, so the byte that makes the length even is part of the stream.
    A deep copy also copies the values.
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
    """The unbuffered stream inside `PixelDataStream`."""

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
            raise ValueError("position before the start")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        target = memoryview(buffer).cast("B")
        width = self._pixel_format.cell_dtype.itemsize
        start = self._position
        stop = min(start + min(len(target), _STREAM_CHUNK_BYTES), self._length)
        if stop <= start:
            return 0
        values = self._values[start // width : -(-stop // width)]
        cells = self._pixel_format.pack(values).view(np.uint8)[start % width :][: stop - start]
        target[: len(cells)] = cells.data
        target[len(cells) : stop - start] = bytes(stop - start - len(cells))
        self._position = stop
        return stop - start
