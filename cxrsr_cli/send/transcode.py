"""Transcoding to an uncompressed transfer syntax, for a peer that does not accept a file's own."""

from pathlib import Path
from typing import cast

from pydicom.dataelem import DataElement
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.codecs import check_standard_syntax
from cxrsr_cli.dicom.decode import decode_compact
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.raw_elements import set_vr_encoding
from cxrsr_cli.dicom.source import DicomSource, read_source
from cxrsr_cli.errors import NotDicomError, UnsupportedImageError

_OFFSET_TABLES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
"""Attributes of encapsulated pixel data only (PS3.3 C.7.6.3.1.8)."""


def transcode(path: Path, syntax: UID, target: Path) -> None:
    """Write an instance to `target` in another transfer syntax; nothing else changes.

    Text values keep their bytes, legal or not. Pixels keep their stored values.

    Parameters
    ----------
    path : Path
        Opened for reading only.
    syntax : pydicom.uid.UID
        Implicit or explicit VR little endian.
    target : Path
        Path of the new file in the DICOM File Format (PS3.10).

    Raises
    ------
    CxrsrError
        If the file cannot be read, decoded or transcoded without loss.
    OSError
        If `target` cannot be written.
    """
    source = read_source(path)
    check_standard_syntax(source.transfer_syntax)
    dataset = cast("FileDataset", source.raw_dataset)
    with quiet_libraries():
        if source.transfer_syntax.is_encapsulated:
            _decompress(source, dataset)
        _write_file_meta(source, dataset, syntax)
        try:
            set_vr_encoding(dataset, implicit=syntax.is_implicit_VR)
            dataset.save_as(target, enforce_file_format=True, overwrite=True)
        except OSError:
            raise
        # pydicom can raise anything for a damaged element, with values in the text.
        except Exception as error:
            raise NotDicomError(
                f"it contains elements that cannot be transcoded ({type(error).__name__})"
            ) from None


def _decompress(source: DicomSource, dataset: FileDataset) -> None:
    """Replace encapsulated pixels by native ones."""
    if source.dataset.get("SamplesPerPixel", 1) != 1:
        raise UnsupportedImageError(
            f"colour pixels in {source.transfer_syntax.name} cannot be decompressed unchanged"
        )
    cells = PixelFormat.from_dataset(source.dataset).pack(decode_compact(source)).tobytes()
    # PS3.5 8.1.1 and A.2: an even length, and OW above 8 bits or in implicit VR.
    dataset["PixelData"] = DataElement("PixelData", "OW", cells + b"\0" * (len(cells) % 2))
    for keyword in _OFFSET_TABLES:
        if keyword in dataset:
            del dataset[keyword]


def _write_file_meta(source: DicomSource, dataset: FileDataset, syntax: UID) -> None:
    meta = dataset.file_meta
    meta.TransferSyntaxUID = syntax
    # A data set without file meta information has none of these.
    meta.MediaStorageSOPClassUID = UID(source.dataset.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(source.dataset.SOPInstanceUID)
