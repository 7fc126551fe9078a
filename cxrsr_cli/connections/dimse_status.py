"""What a peer's status means for the file it was given."""

from enum import IntEnum

from cxrsr_cli.connections.destination import SendOutcome

_MEANINGS = {
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0107: "attributes it does not know",
    0x0110: "processing failure",
    0x0111: "duplicate SOP Instance UID",
    0x0112: "no such SOP Instance",
    0x0113: "no such event type",
    0x0114: "no such argument",
    0x0115: "invalid argument value",
    0x0116: "attribute value out of range",
    0x0117: "invalid SOP Instance",
    0x0118: "no such SOP Class",
    0x0119: "SOP Class and Instance do not belong together",
    0x0120: "missing attribute",
    0x0121: "missing attribute value",
    0x0122: "SOP Class not supported",
    0x0123: "no such action",
    0x0124: "not authorised",
    0x0131: "duplicate Transaction UID",
    0x0210: "duplicate invocation",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
    0xB000: "elements were coerced",
    0xB006: "elements were discarded",
    0xB007: "the data set does not match its SOP Class",
    0xC122: "transfer syntax not supported",
}
"""PS3.7 annex C, PS3.4 table B.2-1, PS3.3 C.14.1.1 and PS3.18 table I.2-2."""

DUPLICATE = 0x0111
"""The peer has one of this SOP Instance UID already."""
_TRANSIENT = (0x0110, 0x0213)
_WARNINGS = (0x0001, 0x0107, DUPLICATE, 0x0116)
"""Beside 0xBxxx (PS3.7 annex C)."""


def classify_status(status: int) -> tuple[SendOutcome, str]:
    """Tell what a status of C-STORE, or a reason of STOW-RS, makes of a file.

    Parameters
    ----------
    status : int
        PS3.4 table B.2-1, PS3.7 annex C, or PS3.18 table I.2-2.

    Returns
    -------
    tuple
        The outcome, and the meaning with its number; empty for success.
    """
    if status == 0:
        return SendOutcome.STORED, ""
    if status >> 12 == 0xB or status in _WARNINGS:
        outcome = SendOutcome.WARNED
    elif status >> 8 == 0xA7 or status in _TRANSIENT:
        outcome = SendOutcome.FAILED
    else:
        outcome = SendOutcome.REFUSED
    return outcome, describe_status(status)


def describe_status(status: int) -> str:
    """Return the standard's words for a status, with its number in hexadecimal digits."""
    words = _MEANINGS.get(status) or _family(status)
    return f"{words} (0x{status:04X})"


def _family(status: int) -> str:
    if status >> 8 == 0xA7:
        return "out of resources"
    if status >> 8 == 0xA9:
        return "the data set does not match its SOP Class"
    if status >> 12 == 0xC:
        return "it cannot understand the object"
    return "a warning" if status >> 12 == 0xB else "a failure"


class DimseStatus(IntEnum):
    """DIMSE status of a response (PS3.4 table B.2-1, PS3.7 annex C)."""

    SUCCESS = 0x0000
    """The instance is ours now: on the disk, and not lost by a power cut."""
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORISED = 0x0124
    UNRECOGNISED_OPERATION = 0x0211
    OUT_OF_RESOURCES = 0xA700
    """The same instance may be taken later."""
    DATA_SET_MISMATCH = 0xA900
    """The data set is not what its command announced."""
    CANNOT_UNDERSTAND = 0xC000
    """The data set is damaged."""
