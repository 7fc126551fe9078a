"""Open a DICOM file without changing, trusting or quoting it."""

import copy
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.raw_elements import to_little_endian
from cxrsr_cli.errors import CxrsrError, MemoryLimitError, NotDicomError, UnreadableFileError

_REQUIRED_UIDS = ("SOPClassUID", "SOPInstanceUID")
_BARE = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
"""Transfer syntax of a bare data set, by (implicit VR, little endian)."""

NATIVE_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
"""Transfer syntaxes whose cells lie in the file as they are."""

_MIN_DEFERRED_BYTES = 1 << 16
"""Bytes; not every text element is to be looked for again in the file of a small image."""

_UNDEFINED_LENGTH = 0xFFFFFFFF


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


@dataclass(frozen=True, slots=True)
class DicomSource:
    """A DICOM object as read.

    Attributes
    ----------
    dataset : pydicom.Dataset
        For looking at. pydicom replaces raw elements by parsed ones as they
        are read.
    pristine : pydicom.Dataset
        Never looked at: its elements are still the file's bytes, so what is
        copied from it to an output is copied byte for byte.
    transfer_syntax : pydicom.uid.UID
        Of the file; explicit little endian for a big endian file, whose
        elements are turned as it is read.
    pixels_at : range or None
        Bytes of the file that are the value of Pixel Data, if it was left
        there: neither `dataset` nor `pristine` has it then.
    """

    dataset: Dataset
    raw_dataset: Dataset
    transfer_syntax: UID
    pixel_data_range: range | None = None


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
    leave_pixels : int, optional
        Leave Pixel Data of at least so many bytes, and of no fewer than 64 KiB,
        in a file of a `PLAIN` transfer syntax.

    Returns
    -------
    Source
        The object, its pixel data not yet decoded.

    Raises
    ------
    NotReadableError
        If the file cannot be read.
    NotDicomError
        If it is not DICOM, or is damaged.
    TooLargeError
        If it is deflated and inflates beyond reason.
    """
    with quiet_libraries():
        try:
            pristine = _open(file, min_deferred_bytes)
            syntax = _transfer_syntax(pristine)
            place = _defer_pixel_data(pristine) if syntax in NATIVE_SYNTAXES else None
            if syntax == ExplicitVRBigEndian:
                to_little_endian(pristine)
                syntax = pristine.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset = copy.deepcopy(pristine)
            # Some files only turn out damaged when iterated.
            for _ in dataset.iterall():
                pass
        except OSError as error:
            raise UnreadableFileError(
                f"cannot read the file ({error.strerror or 'I/O error'})"
            ) from None
        except RecursionError:
            raise NotDicomError("damaged DICOM: sequences nested beyond reason") from None
        except CxrsrError:
            raise
        # A damaged file makes pydicom raise anything, with values in the text.
        except Exception as error:
            raise NotDicomError(f"damaged DICOM ({type(error).__name__})") from None
    if not dataset:
        raise NotDicomError("truncated DICOM: the data end in the middle of an element")
    for keyword in _REQUIRED_UIDS:
        if not dataset.get(keyword):
            raise NotDicomError(f"no {keyword}; a DICOM image must have one")
    return DicomSource(dataset, pristine, syntax, place)


def _open(file: Path | io.BytesIO, least_left: int | None) -> FileDataset:
    """Read elements; pydicom reads those that are left, at least so long, when looked at."""
    largest_read = None if least_left is None else max(least_left, _MIN_DEFERRED_BYTES) - 1
    if isinstance(file, io.BytesIO):
        file.seek(0)
        return pydicom.dcmread(file)
    with LengthCheckedFile(file) as opened:
        try:
            return pydicom.dcmread(opened, defer_size=largest_read)
        except InvalidDicomError:
            return _open_bare(opened)


def _open_bare(opened: LengthCheckedFile) -> FileDataset:
    # Old files begin with the data set itself, in group 0008, without preamble
    # and meta information; the encoding shows in the bytes.
    opened.seek(0)
    if opened.read(2) not in (b"\x08\x00", b"\x00\x08"):
        raise NotDicomError("not a DICOM file (no DICM prefix)")
    opened.seek(0)
    dataset = pydicom.dcmread(opened, force=True)
    implicit, little = dataset.original_encoding
    syntax = _BARE.get((bool(implicit), bool(little)))
    if syntax is None or _is_encapsulated(dataset):
        raise NotDicomError("no meta information, and the data do not show their encoding")
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _is_encapsulated(dataset: FileDataset) -> bool:
    pixels = _pixels(dataset)
    return isinstance(pixels, RawDataElement) and pixels.length == _UNDEFINED_LENGTH


def _defer_pixel_data(dataset: FileDataset) -> range | None:
    """Take Pixel Data that were not read out of an object; tell where in the file they are."""
    pixels = _pixels(dataset)
    if not isinstance(pixels, RawDataElement) or pixels.value is not None:
        return None
    if pixels.length == _UNDEFINED_LENGTH:
        return None
    del dataset[pixels.tag]
    return range(pixels.value_tell, pixels.value_tell + pixels.length)


def _pixels(dataset: FileDataset) -> DataElement | RawDataElement | None:
    # Not dataset["PixelData"], which would parse it.
    return dataset.get_item("PixelData", keep_deferred=True) if "PixelData" in dataset else None


def _transfer_syntax(dataset: FileDataset) -> UID:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise NotDicomError("no Transfer Syntax UID in the file's meta information")
    return UID(syntax)
