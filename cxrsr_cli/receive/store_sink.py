"""Receive the data set of one C-STORE into a file, check it, and hand it over (PS3.4 B.2.3)."""

import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.dicom.dataset_walker import check_structure
from cxrsr_cli.dicom.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import CxrsrError, MemoryLimitError, NotDicomError, UnreadableFileError
from cxrsr_cli.receive.config import ScpLimits
from cxrsr_cli.receive.refusal import STATUSES, InstanceRejectedError, RefusalReason

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_PREFIX = "arriving-"
_SUFFIX = ".dcm"
_PREAMBLE = bytes(128) + b"DICM"
_SPACE_CHECK_BYTES = 16 << 20
"""Bytes written between two checks of the free disk space."""

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_MAX_UID_LENGTH = 64

_VALIDATION_LOCK = threading.Lock()
"""One file is read at a time: compressed files are read whole, and many could fill the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedInstance:
    """An instance that is complete on the disk and not acknowledged yet.

    Attributes
    ----------
    path : Path
        A DICOM file in the folder of incoming files, under a generated name.
    dataset_offset : int
        Offset of the data set in the file, in bytes.
    sop_instance_uid : str
        SOP Instance UID of the data set; equal to that of the C-STORE request.
    calling_ae, called_ae : str
        AE titles of the association, without padding.
    address : str
        IP address of the peer.
    """

    path: Path
    dataset_offset: int
    sop_instance_uid: str
    calling_ae: str
    called_ae: str
    address: str


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """The instance that a C-STORE request names.

    Attributes
    ----------
    sop_class, sop_instance : str
        As the peer wrote them; they may be no valid UIDs.
    transfer_syntax : UID
        Transfer syntax of the presentation context.
    """

    sop_class: str
    sop_instance: str
    transfer_syntax: UID


@dataclass(frozen=True, slots=True)
class StoreResult:
    """The response to a C-STORE request; `reason` is None if the instance was stored."""

    status: DimseStatus
    reason: RefusalReason | None = None

    @classmethod
    def refused(cls, reason: RefusalReason) -> "StoreResult":
        """Return the response for a reason."""
        return cls(STATUSES[reason], reason)


class StoreSink(BytesIO):
    """Replaces the memory buffer in which pynetdicom would collect a data set.

    After a refusal, the rest of the data set is discarded as it arrives, so that the
    association can continue with the next instance.

    Parameters
    ----------
    request : StoreRequest
        The instance that the peer announced.
    folder : Path
        Where the file is created.
    limits : ScpLimits
        Limits of size and disk space.
    refusal : RefusalReason or None
        Reason to refuse the instance at once.
    """

    def __init__(
        self,
        request: StoreRequest,
        folder: Path,
        limits: ScpLimits,
        refusal: RefusalReason | None,
    ) -> None:
        super().__init__()
        self._request = request
        self._limits = limits
        self._file: Part10Writer | None = None
        self._refusal = refusal
        if refusal is not None:
            return
        try:
            self._file = Part10Writer(folder, request, limits)
        except InstanceRejectedError as error:
            self._refusal = error.reason

    def write(self, piece: "ReadableBuffer", /) -> int:
        """Append a piece of the data set to the file."""
        view = memoryview(piece)
        if self._file is not None:
            try:
                self._file.write(view)
            except InstanceRejectedError as error:
                self._refusal, self._file = error.reason, None
        return len(view)

    def finish(
        self,
        accept: Callable[[ReceivedInstance], DimseStatus],
        *,
        calling_ae: str,
        called_ae: str,
        address: str,
    ) -> StoreResult:
        """Check the file and hand it to `accept`, which owns it if it returns success."""
        if self._file is None:
            return StoreResult.refused(self._refusal or RefusalReason.INTERNAL)
        file = self._file
        try:
            path = file.finish()
            sop_instance_uid = validate_file(
                path, self._request, file.dataset_offset, self._limits.max_instance_bytes
            )
            status = accept(
                ReceivedInstance(
                    path=path,
                    dataset_offset=file.dataset_offset,
                    sop_instance_uid=sop_instance_uid,
                    calling_ae=calling_ae,
                    called_ae=called_ae,
                    address=address,
                )
            )
        except InstanceRejectedError as error:
            self.discard_partial()
            return StoreResult.refused(error.reason)
        # After any error, the peer must not believe that the instance is stored.
        except Exception:
            self.discard_partial()
            return StoreResult.refused(RefusalReason.INTERNAL)
        if status != DimseStatus.SUCCESS:
            self.discard_partial()
            return StoreResult(status, RefusalReason.NOT_TAKEN)
        self._file = None
        return StoreResult(status)

    def discard_partial(self) -> None:
        """Remove what was received so far."""
        if self._file is not None:
            self._file.discard()
            self._file = None


class Part10Writer:
    """Writes a DICOM file whose data set arrives in pieces (PS3.10 7.1).

    The data set is written as it arrives, and never decoded or encoded again. The
    file gets a generated name in `folder`.

    Attributes
    ----------
    path : Path
        The file.
    dataset_offset : int
        Offset of the data set in the file, in bytes.

    Raises
    ------
    InstanceRejectedError
        If the file cannot be created.
    """

    def __init__(self, folder: Path, request: StoreRequest, limits: ScpLimits) -> None:
        self.path = folder / f"{_PREFIX}{uuid.uuid4().hex}{_SUFFIX}"
        self._limits = limits
        self._written = 0
        self._written_at_check = 0
        self._file: BinaryIO | None = None
        try:
            self._check_space()
            # Readable only by the owner, because it holds a patient's image.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(descriptor, "wb")
            self.dataset_offset = self._file.write(_file_head(request))
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
        InstanceRejectedError
            If the data set is too long or the disk too full. The file is removed.
        """
        self._written += len(piece)
        try:
            if self._written > self._limits.max_instance_bytes:
                raise InstanceRejectedError(RefusalReason.INSTANCE_TOO_LONG)
            if self._written - self._written_at_check >= _SPACE_CHECK_BYTES:
                self._check_space()
            self._opened.write(piece)
        except OSError:
            self.discard()
            raise InstanceRejectedError(RefusalReason.FULL) from None
        except InstanceRejectedError:
            self.discard()
            raise

    def finish(self) -> Path:
        """Close the file, which is complete but not flushed to the disk.

        Raises
        ------
        InstanceRejectedError
            If the disk is full. The file is removed.
        """
        try:
            self._opened.close()
        except OSError:
            self.discard()
            raise InstanceRejectedError(RefusalReason.FULL) from None
        return self.path

    def discard(self) -> None:
        """Remove the file, unless it was moved."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError:  # the rest could not be written, and is not needed
            pass
        finally:
            self.path.unlink(missing_ok=True)

    @property
    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("not opened")
        return self._file

    def _check_space(self) -> None:
        self._written_at_check = self._written
        if shutil.disk_usage(self.path.parent).free < self._limits.min_free_bytes:
            raise InstanceRejectedError(RefusalReason.FULL)


def remove_partial_files(folder: Path) -> None:
    """Remove the incomplete files of a killed process; no other process may use the folder.

    None of them was acknowledged, so the peers still have the instances.
    """
    for leftover in folder.glob(f"{_PREFIX}{'[0-9a-f]' * 32}{_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def is_uid(text: str) -> bool:
    """Tell whether a text is a UID (PS3.5 9.1) of at most 64 characters."""
    return len(text) <= _MAX_UID_LENGTH and _UID.fullmatch(text) is not None


def validate_file(path: Path, request: StoreRequest, dataset_offset: int, max_bytes: int) -> str:
    """Check that a received file is complete, and is the instance of the request.

    Parameters
    ----------
    path : Path
        A DICOM file.
    request : StoreRequest
        The instance that the peer announced.
    dataset_offset : int
        Offset of the data set in the file, in bytes.
    max_bytes : int
        Limit of the inflated data set, in bytes.

    Returns
    -------
    str
        SOP Instance UID of the data set.

    Raises
    ------
    InstanceRejectedError
        If the file is damaged or truncated, or another instance than announced.
    """
    try:
        check_structure(path, dataset_offset, request.transfer_syntax, max_bytes)
    except MemoryLimitError:
        raise InstanceRejectedError(RefusalReason.INSTANCE_TOO_LONG) from None
    except NotDicomError:
        raise InstanceRejectedError(RefusalReason.UNREADABLE) from None
    with _VALIDATION_LOCK:
        try:
            dataset = read_source(path, min_deferred_bytes=0).dataset
        except (UnreadableFileError, MemoryLimitError):
            raise InstanceRejectedError(RefusalReason.FULL) from None
        except CxrsrError:
            raise InstanceRejectedError(RefusalReason.UNREADABLE) from None
        sop_class, sop_instance = str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)
    if not is_uid(sop_class) or not is_uid(sop_instance):
        raise InstanceRejectedError(RefusalReason.ILLEGAL_UID)
    if (sop_class, sop_instance) != (request.sop_class, request.sop_instance):
        raise InstanceRejectedError(RefusalReason.UID_MISMATCH)
    return sop_instance


def _file_head(request: StoreRequest) -> bytes:
    """Return preamble, prefix and File Meta Information."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(request.sop_class)
    meta.MediaStorageSOPInstanceUID = UID(request.sop_instance)
    meta.TransferSyntaxUID = request.transfer_syntax
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    encoded = DicomBytesIO()
    write_file_meta_info(encoded, meta)
    return _PREAMBLE + encoded.getvalue()
