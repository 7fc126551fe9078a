"""What must be known of a file before it is offered to a peer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from cxrsr_cli.common.files import ensure_unchanged
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.connections.destination import SendOutcome, SendResult
from cxrsr_cli.dicom.source import LengthCheckedFile, read_source
from cxrsr_cli.errors import CxrsrError, NotDicomError, UnreadableFileError

FALLBACK_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
"""What any object can be converted to, the better first (PS3.5 10.1)."""

Context = tuple[UID, tuple[UID, ...]]
"""A SOP Class and the transfer syntaxes that it is offered in, in one presentation context."""

_SOP_INSTANCE_UID = 0x00080018
_SMALL = 4096
"""Bytes; longer values are left in the file."""


@dataclass(frozen=True, slots=True)
class FileHeader:
    """A file that can be offered.

    Attributes
    ----------
    path : Path
        The file.
    sop_class, sop_instance : pydicom.uid.UID
        Of its data set.
    syntax : pydicom.uid.UID or None
        Its transfer syntax; None for a bare data set, which is no file of
        PS3.10 and must be converted.
    """

    path: Path
    sop_class: UID
    sop_instance: UID
    syntax: UID | None

    @property
    def contexts(self) -> frozenset[Context]:
        """Presentation contexts to propose: its own syntax alone, and a fallback.

        A peer takes one syntax of each context (PS3.8 9.3.3.2): were its own among
        others, the peer might choose another although it takes its own.
        """
        fallback = (self.sop_class, FALLBACK_SYNTAXES)
        if self.syntax is None:
            return frozenset({fallback})
        return frozenset({fallback, (self.sop_class, (self.syntax,))})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read no more than the beginning of a file, but all of one that is deflated or bare.

        Raises
        ------
        NotReadableError
            If it cannot be read now.
        NotDicomError
            If it is no DICOM instance, or says two things of itself.
        """
        with ensure_unchanged(path), quiet_libraries():
            try:
                with LengthCheckedFile(path) as opened:
                    beginning = read_partial(opened, stop_when=_is_past, defer_size=_SMALL)
            except InvalidDicomError:
                return cls._of_bare(path)
            except OSError as error:
                raise UnreadableFileError(
                    f"cannot read the file ({error.strerror or 'I/O error'})"
                ) from None
            except CxrsrError:
                raise
            # A damaged file makes pydicom raise anything, with values in the text.
            except Exception as error:
                raise NotDicomError(f"damaged DICOM ({type(error).__name__})") from None
            return cls._of(path, beginning)

    @classmethod
    def _of(cls, path: Path, beginning: FileDataset) -> Self:
        meta = beginning.file_meta
        if meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            raise NotDicomError("a DICOMDIR, which lists instances and is none")
        sop_class, sop_instance, syntax = (
            UID(str(stated or ""))
            for stated in (
                beginning.get("SOPClassUID"),
                beginning.get("SOPInstanceUID"),
                meta.get("TransferSyntaxUID"),
            )
        )
        if not (sop_class.is_valid and sop_instance.is_valid and syntax.is_valid):
            raise NotDicomError("no valid SOP Class, SOP Instance and Transfer Syntax UID")
        announced = meta.get("MediaStorageSOPClassUID"), meta.get("MediaStorageSOPInstanceUID")
        if announced != (sop_class, sop_instance):
            raise NotDicomError("its meta information is of another instance than its data set")
        return cls(path, sop_class, sop_instance, syntax)

    @classmethod
    def _of_bare(cls, path: Path) -> Self:
        dataset = read_source(path).dataset
        found = cls(path, UID(dataset.SOPClassUID), UID(dataset.SOPInstanceUID), None)
        if not (found.sop_class.is_valid and found.sop_instance.is_valid):
            raise NotDicomError("no valid SOP Class and SOP Instance UID")
        return found


def _is_past(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > _SOP_INSTANCE_UID


def file_failure(path: Path, error: CxrsrError) -> SendResult:
    """Tell of a file that is itself the reason; one that cannot be read may be later."""
    later = isinstance(error, UnreadableFileError)
    return SendResult(
        path,
        SendOutcome.FAILED if later else SendOutcome.REFUSED,
        str(error),
        decided_by_peer=False,
    )
