"""Whether a received file is what was announced, before anybody relies on it."""

import re
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from cxrsr_cli.errors import CxrsrError, NotReadableError, TooLargeError
from cxrsr_cli.read.dataset import Source, read_source
from cxrsr_cli.serve.refusal import NotStoredError, Reason

_PIECE = 1 << 20
_META_INFORMATION = (b"\x02\x00", b"\x00\x02")

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_LONGEST_UID = 64

_READING = threading.Lock()
"""One file at a time: what is compressed is read whole, so many at once could fill the memory."""


def is_uid(text: str) -> bool:
    """Tell whether a text is a UID (PS3.5 9.1): no path, no letters, 64 characters at most."""
    return len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Announced:
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


def inspect(path: Path, announced: Announced, *, begins: int, largest: int) -> str:
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
    _check_start(path, announced.transfer_syntax, begins, largest)
    with _READING:
        try:
            source = read_source(path, leave_pixels=0)
        except (NotReadableError, TooLargeError):
            raise NotStoredError(Reason.FULL) from None
        except CxrsrError:
            raise NotStoredError(Reason.UNREADABLE) from None
        sop_class = str(source.dataset.SOPClassUID)
        sop_instance = str(source.dataset.SOPInstanceUID)
        _check_whole(path, source)
    if not is_uid(sop_class) or not is_uid(sop_instance):
        raise NotStoredError(Reason.ILLEGAL_UID)
    if (sop_class, sop_instance) != (announced.sop_class, announced.sop_instance):
        raise NotStoredError(Reason.UID_MISMATCH)
    return sop_instance


def _check_start(path: Path, transfer_syntax: UID, begins: int, largest: int) -> None:
    with path.open("rb") as opened:
        opened.seek(begins)
        # Would be read as meta information, with another transfer syntax perhaps.
        if opened.read(2) in _META_INFORMATION:
            raise NotStoredError(Reason.UNREADABLE)
        if transfer_syntax != DeflatedExplicitVRLittleEndian:
            return
        opened.seek(begins)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        inflated = 0
        try:
            while not inflater.eof and (piece := opened.read(_PIECE)):
                while piece and not inflater.eof:
                    inflated += len(inflater.decompress(piece, _PIECE))
                    piece = inflater.unconsumed_tail
                    if inflated > largest:
                        raise NotStoredError(Reason.INSTANCE_TOO_LONG)
        except zlib.error:
            raise NotStoredError(Reason.UNREADABLE) from None
        if not inflater.eof:
            raise NotStoredError(Reason.UNREADABLE)


def _check_whole(path: Path, source: Source) -> None:
    """Find what reading does not: pixels that were left in the file may not all be there."""
    if source.pixels_at is not None and source.pixels_at.stop > path.stat().st_size:
        raise NotStoredError(Reason.UNREADABLE)
