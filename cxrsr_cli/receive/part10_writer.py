"""The file of an instance that is being received."""

import os
import shutil
import uuid
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from cxrsr_cli.dicom.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from cxrsr_cli.receive.refusal import InstanceRejectedError, RefusalReason

_PREFIX = "arriving-"
_SUFFIX = ".dcm"
_PREAMBLE = bytes(128) + b"DICM"
_BETWEEN_LOOKS = 16 << 20
"""Bytes that are written before the free disk space is looked at again."""


class Part10Writer:
    """A DICOM file whose data set comes in pieces (PS3.10 7.1).

    The data set is written as it comes, never decoded or encoded again. The file's
    name is made up here.

    Parameters
    ----------
    folder : Path
        Where it is made.
    sop_class, sop_instance, transfer_syntax : str
        For its meta information.
    largest : int
        Bytes that the data set may have.
    spare : int
        Bytes of the disk that are left free.

    Attributes
    ----------
    path : Path
        The file.
    data_set_at : int
        Offset of the data set in it.

    Raises
    ------
    NotStoredError
        If it cannot be made now.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sop_class: str,
        sop_instance: str,
        transfer_syntax: UID,
        largest: int,
        spare: int,
    ) -> None:
        self.path = folder / f"{_PREFIX}{uuid.uuid4().hex}{_SUFFIX}"
        self._largest = largest
        self._spare = spare
        self._written = 0
        self._looked = 0
        self._file: BinaryIO | None = None
        try:
            self._look()
            # For the owner only: these are patients' images.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(descriptor, "wb")
            self.data_set_at = self._file.write(_head(sop_class, sop_instance, transfer_syntax))
        except OSError:
            self.discard()
            raise InstanceRejectedError(RefusalReason.FULL) from None
        except BaseException:
            self.discard()
            raise

    def write(self, piece: memoryview) -> None:
        """Append to the data set.

        Raises
        ------
        NotStoredError
            If it grows too long, or the disk too full; the file is gone then.
        """
        self._written += len(piece)
        try:
            if self._written > self._largest:
                raise InstanceRejectedError(RefusalReason.INSTANCE_TOO_LONG)
            if self._written - self._looked >= _BETWEEN_LOOKS:
                self._look()
            self._opened.write(piece)
        except OSError:
            self.discard()
            raise InstanceRejectedError(RefusalReason.FULL) from None
        except InstanceRejectedError:
            self.discard()
            raise

    def finish(self) -> Path:
        """Close the file; it is whole, but not flushed to the disk.

        Raises
        ------
        NotStoredError
            If the disk is full; the file is gone then.
        """
        try:
            self._opened.close()
        except OSError:
            self.discard()
            raise InstanceRejectedError(RefusalReason.FULL) from None
        return self.path

    def discard(self) -> None:
        """Remove the file, if it is still where it was made."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError:  # what could not be written is not wanted either
            pass
        finally:
            self.path.unlink(missing_ok=True)

    @property
    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("not opened")
        return self._file

    def _look(self) -> None:
        self._looked = self._written
        if shutil.disk_usage(self.path.parent).free < self._spare:
            raise InstanceRejectedError(RefusalReason.FULL)


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed process was receiving; the folder must belong to this one alone.

    Nothing of it was acknowledged, so the peers have it still.
    """
    for leftover in folder.glob(f"{_PREFIX}{'[0-9a-f]' * 32}{_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def _head(sop_class: str, sop_instance: str, transfer_syntax: UID) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance)
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    encoded = DicomBytesIO()
    write_file_meta_info(encoded, meta)
    return _PREAMBLE + encoded.getvalue()
