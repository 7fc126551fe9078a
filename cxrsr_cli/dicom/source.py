"""Read a DICOM file safely: unchanged, with bounded memory, without patient data in errors."""

import copy
import io
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom import filereader
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.attributes import set_single_values
from cxrsr_cli.dicom.dataset_walker import (
    MAX_ELEMENTS,
    check_number_of_elements,
    too_many_elements,
)
from cxrsr_cli.dicom.raw_elements import (
    detect_encoding,
    is_cut_off,
    parse_elements,
    remove_stray_elements,
    to_little_endian,
)
from cxrsr_cli.errors import (
    CxrsrError,
    NotDicomError,
    OutOfScopeError,
    UnreadableFileError,
)

NATIVE_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
"""Transfer syntaxes whose files hold the cells of the pixels as they are."""

_MAX_DICOMDIR_ELEMENTS = 1 << 20
"""A record has about twenty, and a DVD holds tens of thousands of images."""

_REQUIRED_UIDS = ("SOPClassUID", "SOPInstanceUID")
_BARE_SYNTAXES = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
"""Transfer syntax of a data set without meta information, by (implicit VR, little endian)."""

_DAMAGED_HEADER = "damaged DICOM: it is cut off, or its elements cannot be followed to the end"

_NOT_DICOM = "not a DICOM file (no DICM prefix)"
_OTHER_FORMATS = (
    b"%PDF-", b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"PK\x03\x04", b"\x1f\x8b",
)  # fmt: skip
"""How documents, pictures and archives begin, whatever their names are."""
_DICOM_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima", ".acr")
_CONTROL_CHARACTERS = {*range(32), 127} - {*b"\t\n\r\f\x1b"}
HEAD_BYTES = 132
"""Preamble and prefix (PS3.10 7.1)."""

_MIN_DEFERRED_BYTES = 1 << 16
"""Smaller values are always read, because reading one later opens the file again."""
_UNDEFINED_LENGTH = 0xFFFFFFFF

# Deflate reaches 1032:1, a radiograph 2:1 to 4:1, a mostly black one 20:1. So a file may
# inflate to a hundred times its size. A small file may inflate to the size of an
# uncompressed radiograph, which does little harm.
_MAX_INFLATION = 100
_ALWAYS_ALLOWED_BYTES = 64 << 20
_MAX_UNCHECKED_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class DicomSource:
    """A DICOM object as read.

    Attributes
    ----------
    dataset : pydicom.Dataset
        For reading attributes; pydicom replaces its raw elements when they are accessed.
    raw_dataset : pydicom.Dataset
        For copying: its elements are never accessed, so they stay the bytes of the file.
    transfer_syntax : pydicom.uid.UID
        Of the data set as it is, whatever the file says of its VR encoding. Explicit VR
        Little Endian for a big endian file, which is converted when it is read.
    pixel_data_range : range or None
        Bytes of the file that hold the value of Pixel Data, if it was not read; then
        neither `dataset` nor `raw_dataset` has Pixel Data.
    """

    dataset: Dataset
    raw_dataset: Dataset
    transfer_syntax: UID
    pixel_data_range: range | None = None


class _ItemLimit(threading.local):
    """How many items and elements of sequences pydicom may still make, in this thread."""

    left: int | None = None


_ITEM_LIMIT = _ItemLimit()


@contextmanager
def _limited_items(limit: int) -> Iterator[None]:
    """Let pydicom make a limited number of items, and of elements in them.

    `check_number_of_elements` ends at damage; pydicom goes on, and takes eight zeros for an item.
    """
    _ITEM_LIMIT.left = limit
    try:
        yield
    finally:
        _ITEM_LIMIT.left = None


def _read_limited_item(*arguments: Any, **options: Any) -> Dataset | None:  # noqa: ANN401
    item = _read_sequence_item(*arguments, **options)
    if item is not None and _ITEM_LIMIT.left is not None:
        _ITEM_LIMIT.left -= 1 + len(item)
        if _ITEM_LIMIT.left < 0:
            raise NotDicomError(too_many_elements(MAX_ELEMENTS))
    return item


_read_sequence_item = filereader.read_sequence_item
filereader.read_sequence_item = _read_limited_item


def to_file(dataset: Dataset) -> io.BytesIO:
    """Encode an object as a DICOM file in memory, in the transfer syntax that it has.

    Parameters
    ----------
    dataset : pydicom.Dataset
        Not changed. Without a stated transfer syntax its pixel data are native.

    Raises
    ------
    NotDicomError
        If pydicom cannot write it.
    """
    whole, file = copy.deepcopy(dataset), io.BytesIO()
    whole.file_meta = whole.get("file_meta") or FileMetaDataset()
    whole.file_meta.setdefault("TransferSyntaxUID", ExplicitVRLittleEndian)
    with quiet_libraries():
        try:
            pydicom.dcmwrite(file, whole, enforce_file_format=True)
        # pydicom raises anything, with values in the text.
        except Exception as error:
            raise NotDicomError(
                f"the object cannot be written as DICOM ({type(error).__name__})"
            ) from None
    file.seek(0)
    return file


def read_source(file: Path | io.BytesIO, *, min_deferred_bytes: int | None = None) -> DicomSource:
    """Read a DICOM file.

    Parameters
    ----------
    file : Path or io.BytesIO
        Opened for reading only; or the file in memory, which is read whole.
    min_deferred_bytes : int, optional
        Do not read Pixel Data of at least this length, and of at least 64 KiB, from a file
        of one of `NATIVE_SYNTAXES`.

    Returns
    -------
    DicomSource
        The object, its pixel data not yet decoded.

    Raises
    ------
    UnreadableFileError
        If the file cannot be read.
    NotDicomError
        If it is damaged.
    OutOfScopeError
        If it is a file of another format.
    MemoryLimitError
        If it is deflated and inflates to more than a radiograph can.
    """
    with quiet_libraries(), _limited_items(MAX_ELEMENTS):
        try:
            raw = _open(file, min_deferred_bytes)
            detect_encoding(raw)
            remove_stray_elements(raw)
            if "PixelData" not in raw and is_cut_off(raw):
                raise NotDicomError(_DAMAGED_HEADER)
            syntax = _transfer_syntax(raw)
            deferred = _remove_deferred_pixel_data(raw) if syntax in NATIVE_SYNTAXES else None
            if syntax == ExplicitVRBigEndian:
                to_little_endian(raw)
                syntax = raw.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset = copy.deepcopy(raw)
            # Some damage appears only when all elements are parsed.
            parse_elements(dataset)
            set_single_values(dataset)
        except OSError as error:
            # pydicom raises OSError for a damaged sequence, too; a disk's error has a number.
            if error.errno is None:
                raise NotDicomError(_DAMAGED_HEADER) from None
            raise UnreadableFileError(f"cannot read the file ({error.strerror})") from None
        except RecursionError:
            raise NotDicomError("damaged DICOM: sequences are nested too deeply") from None
        except CxrsrError:
            raise
        # On a damaged file pydicom raises any exception, with values in its text.
        except Exception as error:
            raise NotDicomError(f"damaged DICOM ({type(error).__name__})") from None
    if not dataset:
        raise NotDicomError("truncated DICOM: the file ends in the middle of an element")
    for keyword in _REQUIRED_UIDS:
        if not dataset.get(keyword):
            raise NotDicomError(f"no {keyword}, or not one UID; a DICOM image must have one")
    return DicomSource(dataset, raw, syntax, deferred)


class LengthCheckedFile(io.BufferedReader):
    """A file that never allocates more than it can deliver, for pydicom to read.

    pydicom allocates what a file claims in two places: for the value of an element, and for
    the whole data set of a deflated file. Only the second one calls `read` without a size.

    Parameters
    ----------
    path : Path
        Opened for reading only.
    """

    def __init__(self, path: Path) -> None:
        # As a string, which pydicom needs to open the file again by its name.
        super().__init__(io.FileIO(str(path)))
        self._length = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes, or the rest of the file.

        Raises
        ------
        MemoryLimitError
            If the rest is read and inflates to more than the limit.
        NotDicomError
            If the rest is read and has too many elements when it is inflated.
        """
        if size is None or size < 0:
            rest = super().read()
            limit = max(_MAX_INFLATION * len(rest), _ALWAYS_ALLOWED_BYTES)
            check_number_of_elements(
                io.BytesIO(rest), DeflatedExplicitVRLittleEndian, max_inflated_bytes=limit
            )
            return rest
        if size > _MAX_UNCHECKED_READ_BYTES:
            size = min(size, max(self._length - self.tell(), 0))
        return super().read(size)


def _open(source: Path | io.BytesIO, min_deferred_bytes: int | None) -> FileDataset:
    """Read a file; values of at least `min_deferred_bytes` stay in it until accessed."""
    if isinstance(source, io.BytesIO):
        source.seek(0)
        return _read(source)
    largest_read = (
        None if min_deferred_bytes is None else max(min_deferred_bytes, _MIN_DEFERRED_BYTES) - 1
    )
    with LengthCheckedFile(source) as file:
        try:
            return _read(file, largest_read)
        except InvalidDicomError:
            return _open_bare(file)


def read_dicomdir(path: Path) -> FileDataset:
    """Read a DICOMDIR (PS3.10 section 8) within the bounds of all other files.

    Raises
    ------
    Exception
        Any, if it is damaged; OSError with a number if it cannot be read.
    """
    with LengthCheckedFile(path) as file:
        return _read(file, max_elements=_MAX_DICOMDIR_ELEMENTS)


def _read(
    file: LengthCheckedFile | io.BytesIO,
    largest_read: int | None = None,
    *,
    force: bool = False,
    max_elements: int = MAX_ELEMENTS,
) -> FileDataset:
    """Read an object with a limited number of elements."""
    start = file.tell()
    beginning = read_partial(file, stop_when=lambda *_: True, force=force)
    syntax = beginning.file_meta.get("TransferSyntaxUID")
    if syntax != DeflatedExplicitVRLittleEndian:
        check_number_of_elements(file, UID(syntax or ImplicitVRLittleEndian), max_elements)
    file.seek(start)
    count = itertools.count()
    return read_partial(
        file,
        stop_when=lambda *_: _check_count(next(count), max_elements),
        defer_size=largest_read,
        force=force,
    )


def _check_count(elements: int, max_elements: int) -> bool:
    if elements > max_elements:
        raise NotDicomError(too_many_elements(max_elements))
    return False


def _open_bare(file: LengthCheckedFile) -> FileDataset:
    """Read a file without preamble, as old software wrote them.

    It starts with the meta information, or with group 0008, whose first bytes show the
    encoding.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if head[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        is_other = _is_other_format(Path(file.name), head)
        raise (OutOfScopeError if is_other else NotDicomError)(_NOT_DICOM)
    file.seek(0)
    dataset = _read(file, force=True)
    if "TransferSyntaxUID" in dataset.file_meta:
        return dataset
    detect_encoding(dataset)
    implicit, little = dataset.original_encoding
    syntax = _BARE_SYNTAXES.get((bool(implicit), bool(little)))
    if syntax is None or _is_encapsulated(dataset):
        raise NotDicomError("no meta information, and the data set does not show its encoding")
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _is_other_format(path: Path, head: bytes) -> bool:
    """Return whether a file is of another format by its name or else its beginning.

    A text in a file that is named as DICOM may be what a failed transfer left.
    """
    suffix = path.suffix.lower()
    # A name may be a UID, whose last component is no suffix.
    if any(map(str.isalpha, suffix)):
        return suffix not in _DICOM_SUFFIXES
    is_text = head.strip() and not set(head) & _CONTROL_CHARACTERS
    return bool(is_text) or head.startswith(_OTHER_FORMATS)


def has_dicom_prefix(head: bytes) -> bool:
    """Return whether the first `HEAD_BYTES` of a file end with the prefix (PS3.10 7.1)."""
    return head[128:HEAD_BYTES] == b"DICM"


def media_storage_sop_class(path: Path) -> UID:
    """Return the SOP Class that the meta information states; empty if it cannot be read."""
    try:
        with quiet_libraries(), LengthCheckedFile(path) as file:
            beginning = read_partial(file, stop_when=lambda *_: True)
            return UID(str(beginning.file_meta.get("MediaStorageSOPClassUID", "")))
    # On a damaged file pydicom raises any exception.
    except Exception:
        return UID("")


def _is_encapsulated(dataset: FileDataset) -> bool:
    pixels = _raw_pixel_data(dataset)
    return isinstance(pixels, RawDataElement) and pixels.length == _UNDEFINED_LENGTH


def _remove_deferred_pixel_data(dataset: FileDataset) -> range | None:
    """Remove Pixel Data that were not read; return their bytes' range in the file."""
    pixels = _raw_pixel_data(dataset)
    if not isinstance(pixels, RawDataElement) or pixels.value is not None:
        return None
    if pixels.length == _UNDEFINED_LENGTH:
        return None
    del dataset[pixels.tag]
    return range(pixels.value_tell, pixels.value_tell + pixels.length)


def _raw_pixel_data(dataset: FileDataset) -> DataElement | RawDataElement | None:
    # dataset["PixelData"] would parse the element.
    return dataset.get_item("PixelData", keep_deferred=True) if "PixelData" in dataset else None


def _transfer_syntax(dataset: FileDataset) -> UID:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise NotDicomError("no Transfer Syntax UID in the file's meta information")
    if syntax in NATIVE_SYNTAXES:
        implicit = bool(dataset.original_encoding[0])
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    return UID(syntax)
