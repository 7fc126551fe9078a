"""Whether a received file is what was announced, before anybody relies on it."""

import re
import threading
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import UID

from cxrsr_cli.dicom.dataset_walker import check_structure
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import CxrsrError, MemoryLimitError, NotDicomError, UnreadableFileError
from cxrsr_cli.receive.refusal import InstanceRejectedError, RefusalReason

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_MAX_UID_LENGTH = 64

_READING = threading.Lock()
"""One file at a time: what is compressed is read whole, so many at once could fill the memory."""


def is_uid(text: str) -> bool:
    """Tell whether a text is a UID (PS3.5 9.1): no path, no letters, 64 characters at most."""
    return len(text) <= _MAX_UID_LENGTH and _UID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """An instance as its command has it.

    Attributes
    ----------
    sop_class, sop_instance : str
        As the peer wrote them, so perhaps no UIDs.
    transfer_syntax : UID
        Of the presentation context.
    """

    sop_class: str
    sop_instance: str
    transfer_syntax: UID


def validate_file(path: Path, announced: StoreRequest, *, begins: int, largest: int) -> str:
    """Check a received file.

    Parameters
    ----------
    path : Path
        A file of the DICOM File Format.
    announced : Announced
        What it should be.
    begins : int
        Offset of the data set.
    largest : int
        Bytes that it may inflate to.

    Returns
    -------
    str
        SOP Instance UID of the data set.

    Raises
    ------
    NotStoredError
        If it is damaged, cut off, or another instance than the one announced.
    """
    try:
        check_structure(path, begins, announced.transfer_syntax, largest)
    except MemoryLimitError:
        raise InstanceRejectedError(RefusalReason.INSTANCE_TOO_LONG) from None
    except NotDicomError:
        raise InstanceRejectedError(RefusalReason.UNREADABLE) from None
    with _READING:
        try:
            dataset = read_source(path, min_deferred_bytes=0).dataset
        except (UnreadableFileError, MemoryLimitError):
            raise InstanceRejectedError(RefusalReason.FULL) from None
        except CxrsrError:
            raise InstanceRejectedError(RefusalReason.UNREADABLE) from None
        sop_class, sop_instance = str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)
    if not is_uid(sop_class) or not is_uid(sop_instance):
        raise InstanceRejectedError(RefusalReason.ILLEGAL_UID)
    if (sop_class, sop_instance) != (announced.sop_class, announced.sop_instance):
        raise InstanceRejectedError(RefusalReason.UID_MISMATCH)
    return sop_instance
