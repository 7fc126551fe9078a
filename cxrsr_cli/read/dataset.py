"""Open a DICOM file without changing, trusting or quoting it."""

import copy
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cxrsr_cli.errors import CxrsrError, NotDicomError, NotReadableError
from cxrsr_cli.read.bigendian import to_little_endian
from cxrsr_cli.read.bounded import BoundedFile
from cxrsr_cli.read.silence import quiet_pydicom

_FIELDS_WITHOUT_WHICH_NOTHING_REFERS_TO_AN_IMAGE = ("SOPClassUID", "SOPInstanceUID")
_BARE = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
"""Transfer syntax of a bare data set, by (implicit VR, little endian)."""

_UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Source:
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
    """

    dataset: Dataset
    pristine: Dataset
    transfer_syntax: UID


def read_source(path: Path) -> Source:
    """Read a DICOM file.

    Parameters
    ----------
    path : Path
        Opened for reading only.

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
    with quiet_pydicom():
        try:
            pristine = _open(path)
            syntax = _transfer_syntax(pristine)
            if syntax == ExplicitVRBigEndian:
                to_little_endian(pristine)
                syntax = pristine.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset = copy.deepcopy(pristine)
            # Some files only turn out damaged when iterated.
            for _ in dataset.iterall():
                pass
        except OSError as error:
            raise NotReadableError(
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
    for keyword in _FIELDS_WITHOUT_WHICH_NOTHING_REFERS_TO_AN_IMAGE:
        if not dataset.get(keyword):
            raise NotDicomError(f"no {keyword}; a DICOM image must have one")
    return Source(dataset, pristine, syntax)


def _open(path: Path) -> FileDataset:
    with BoundedFile(path) as opened:
        try:
            return pydicom.dcmread(opened)
        except InvalidDicomError:
            return _open_bare(opened)


def _open_bare(opened: BoundedFile) -> FileDataset:
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
    # Not dataset["PixelData"], which would parse it.
    pixels = dataset.get_item("PixelData") if "PixelData" in dataset else None
    return isinstance(pixels, RawDataElement) and pixels.length == _UNDEFINED_LENGTH


def _transfer_syntax(dataset: FileDataset) -> UID:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise NotDicomError("no Transfer Syntax UID in the file's meta information")
    return UID(syntax)
