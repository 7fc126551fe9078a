"""An instance in an uncompressed transfer syntax, for a peer that does not take its own."""

from pathlib import Path
from typing import cast

from pydicom.dataelem import DataElement
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.decode import decode_compact
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.raw_elements import to_explicit_vr, to_implicit_vr
from cxrsr_cli.dicom.source import DicomSource, read_source
from cxrsr_cli.errors import NotDicomError, UnsupportedImageError

_OFFSET_TABLES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
"""Of encapsulated pixel data only (PS3.3 C.7.6.3.1.8)."""


def transcode(path: Path, syntax: UID, target: Path) -> None:
    """Write an instance in another transfer syntax; nothing else of it changes.

    Values of text are passed on as the bytes they are, legal or not. Pixels are
    decoded to the stored values that they hold, in cells as the header says.

    Parameters
    ----------
    path : Path
        Opened for reading only.
    syntax : pydicom.uid.UID
        Implicit or explicit VR little endian.
    target : Path
        A file of the DICOM File Format is written here.

    Raises
    ------
    CxrsrError
        If it cannot be read or decoded, or not be converted without loss.
    OSError
        If it cannot be written.
    """
    source = read_source(path)
    dataset = cast("FileDataset", source.raw_dataset)
    with quiet_libraries():
        if source.transfer_syntax.is_encapsulated:
            _put_pixels(source, dataset)
        _announce(source, dataset, syntax)
        try:
            if dataset.original_encoding[0] and not syntax.is_implicit_VR:
                to_explicit_vr(dataset)
            elif syntax.is_implicit_VR and not dataset.original_encoding[0]:
                to_implicit_vr(dataset)
            dataset.save_as(target, enforce_file_format=True, overwrite=True)
        except OSError:
            raise
        # As in write/dicom.py: pydicom raises anything, with values in the text.
        except Exception as error:
            raise NotDicomError(
                f"it holds elements that cannot be converted ({type(error).__name__})"
            ) from None


def _put_pixels(source: DicomSource, dataset: FileDataset) -> None:
    """Replace encapsulated pixels by what they hold."""
    if source.dataset.get("SamplesPerPixel", 1) != 1:
        raise UnsupportedImageError(
            f"colour pixels in {source.transfer_syntax.name}, "
            "which only a peer that takes them so gets unchanged"
        )
    cells = PixelFormat.from_dataset(source.dataset).pack(decode_compact(source)).tobytes()
    # PS3.5 8.1.1 and A.2: an even length, and OW above 8 bits or in implicit VR.
    dataset["PixelData"] = DataElement("PixelData", "OW", cells + b"\0" * (len(cells) % 2))
    for keyword in _OFFSET_TABLES:
        if keyword in dataset:
            del dataset[keyword]


def _announce(source: DicomSource, dataset: FileDataset, syntax: UID) -> None:
    meta = dataset.file_meta
    meta.TransferSyntaxUID = syntax
    # A bare data set has none of these.
    meta.MediaStorageSOPClassUID = UID(source.dataset.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(source.dataset.SOPInstanceUID)
