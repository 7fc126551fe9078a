"""The UIDs of a file, which a peer needs before the file is sent."""

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
from cxrsr_cli.dicom.attributes import set_single_values
from cxrsr_cli.dicom.source import LengthCheckedFile, read_source
from cxrsr_cli.errors import CxrsrError, NotDicomError, UnreadableFileError

FALLBACK_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
"""Transfer syntaxes that any object can have, preferred first (PS3.5 10.1)."""

Context = tuple[UID, tuple[UID, ...]]
"""A presentation context to propose: a SOP Class and its transfer syntaxes."""

_SOP_INSTANCE_UID = 0x00080018
_DEFER_BYTES = 4096
"""Longer values stay in the file."""


@dataclass(frozen=True, slots=True)
class FileHeader:
    """A file that can be sent, and its UIDs.

    `syntax` is None for a data set without file meta information, which is not a file of
    PS3.10 and must be transcoded.
    """

    path: Path
    sop_class: UID
    sop_instance: UID
    syntax: UID | None

    @property
    def contexts(self) -> frozenset[Context]:
        """Presentation contexts to propose: the file's own syntax alone, and a fallback.

        A peer accepts one syntax of each context (PS3.8 9.3.3.2). If the file's own were
        one of several, the peer could choose another although it supports it.
        """
        fallback = (self.sop_class, FALLBACK_SYNTAXES)
        if self.syntax is None:
            return frozenset({fallback})
        return frozenset({fallback, (self.sop_class, (self.syntax,))})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the beginning of a file; all of it if it is deflated or has no meta information.

        Raises
        ------
        UnreadableFileError
            If it cannot be read now.
        NotDicomError
            If it is not a DICOM instance, or its UIDs contradict each other.
        """
        with ensure_unchanged(path), quiet_libraries():
            try:
                with LengthCheckedFile(path) as opened:
                    beginning = read_partial(
                        opened, stop_when=_is_past_uids, defer_size=_DEFER_BYTES
                    )
                    set_single_values(beginning)
                    return cls._of(path, beginning)
            except InvalidDicomError:
                return cls._of_data_set(path)
            except OSError as error:
                # pydicom raises OSError for a damaged sequence, too; a disk's error has a number.
                if error.errno is None:
                    raise NotDicomError("damaged DICOM: it is cut off") from None
                raise UnreadableFileError(f"cannot read the file ({error.strerror})") from None
            except CxrsrError:
                raise
            # pydicom can raise anything for a damaged file, with values in the text.
            except Exception as error:
                raise NotDicomError(f"damaged DICOM ({type(error).__name__})") from None

    @classmethod
    def _of(cls, path: Path, beginning: FileDataset) -> Self:
        meta = beginning.file_meta
        if meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            raise NotDicomError("a DICOMDIR, which is not an instance")
        sop_class, sop_instance, syntax = (
            UID(str(value or ""))
            for value in (
                beginning.get("SOPClassUID"),
                beginning.get("SOPInstanceUID"),
                meta.get("TransferSyntaxUID"),
            )
        )
        if not (sop_class.is_valid and sop_instance.is_valid and syntax.is_valid):
            raise NotDicomError("no valid SOP Class, SOP Instance and Transfer Syntax UID")
        meta_uids = meta.get("MediaStorageSOPClassUID"), meta.get("MediaStorageSOPInstanceUID")
        if meta_uids != (sop_class, sop_instance):
            raise NotDicomError("its meta information is of another instance than its data set")
        return cls(path, sop_class, sop_instance, syntax)

    @classmethod
    def _of_data_set(cls, path: Path) -> Self:
        dataset = read_source(path).dataset
        found = cls(path, UID(dataset.SOPClassUID), UID(dataset.SOPInstanceUID), None)
        if not (found.sop_class.is_valid and found.sop_instance.is_valid):
            raise NotDicomError("no valid SOP Class and SOP Instance UID")
        return found


def _is_past_uids(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > _SOP_INSTANCE_UID


def file_failure(path: Path, error: CxrsrError) -> SendResult:
    """Return the result of a file that cannot be sent; reading it may succeed later."""
    is_transient = isinstance(error, UnreadableFileError)
    outcome = SendOutcome.FAILED if is_transient else SendOutcome.REFUSED
    return SendResult(path, outcome, str(error), decided_by_peer=False)
