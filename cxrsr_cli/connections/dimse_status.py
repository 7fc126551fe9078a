"""DIMSE status codes, and what they mean for the file that was sent."""

from enum import IntEnum
from typing import Self

from cxrsr_cli.connections.destination import SendOutcome


class DimseStatus(IntEnum):
    """Status of a response, Failure Reason or Warning Reason.

    PS3.7 annex C, PS3.4 table B.2-1, PS3.3 C.14.1.1 and PS3.18 table I.2-2.

    Attributes
    ----------
    outcome : SendOutcome
        Of a file that was answered with it.
    meaning : str
        In the standard's words.
    """

    outcome: SendOutcome
    meaning: str

    def __new__(cls, code: int, outcome: SendOutcome, meaning: str) -> Self:
        """Make a member whose value is the code alone."""
        status = int.__new__(cls, code)
        status._value_ = code
        status.outcome, status.meaning = outcome, meaning
        return status

    SUCCESS = 0x0000, SendOutcome.STORED, "success"
    """As our own answer: the instance is flushed to the disk."""
    NO_OPTIONAL_ATTRIBUTES = 0x0001, SendOutcome.WARNED, "optional attributes not supported"
    NO_SUCH_ATTRIBUTE = 0x0105, SendOutcome.REFUSED, "no such attribute"
    INVALID_ATTRIBUTE_VALUE = 0x0106, SendOutcome.REFUSED, "invalid attribute value"
    ATTRIBUTE_LIST_ERROR = 0x0107, SendOutcome.WARNED, "attributes it does not know"
    PROCESSING_FAILURE = 0x0110, SendOutcome.FAILED, "processing failure"
    DUPLICATE_SOP_INSTANCE = 0x0111, SendOutcome.WARNED, "duplicate SOP Instance UID"
    NO_SUCH_SOP_INSTANCE = 0x0112, SendOutcome.REFUSED, "no such SOP Instance"
    NO_SUCH_EVENT_TYPE = 0x0113, SendOutcome.REFUSED, "no such event type"
    NO_SUCH_ARGUMENT = 0x0114, SendOutcome.REFUSED, "no such argument"
    INVALID_ARGUMENT_VALUE = 0x0115, SendOutcome.REFUSED, "invalid argument value"
    VALUE_OUT_OF_RANGE = 0x0116, SendOutcome.WARNED, "attribute value out of range"
    INVALID_SOP_INSTANCE = 0x0117, SendOutcome.REFUSED, "invalid SOP Instance"
    NO_SUCH_SOP_CLASS = 0x0118, SendOutcome.REFUSED, "no such SOP Class"
    CLASS_INSTANCE_CONFLICT = (
        0x0119,
        SendOutcome.REFUSED,
        "SOP Class and Instance do not belong together",
    )
    MISSING_ATTRIBUTE = 0x0120, SendOutcome.REFUSED, "missing attribute"
    MISSING_ATTRIBUTE_VALUE = 0x0121, SendOutcome.REFUSED, "missing attribute value"
    SOP_CLASS_NOT_SUPPORTED = 0x0122, SendOutcome.REFUSED, "SOP Class not supported"
    NO_SUCH_ACTION = 0x0123, SendOutcome.REFUSED, "no such action"
    NOT_AUTHORISED = 0x0124, SendOutcome.REFUSED, "not authorised"
    DUPLICATE_TRANSACTION = 0x0131, SendOutcome.REFUSED, "duplicate Transaction UID"
    DUPLICATE_INVOCATION = 0x0210, SendOutcome.REFUSED, "duplicate invocation"
    UNRECOGNISED_OPERATION = 0x0211, SendOutcome.REFUSED, "unrecognised operation"
    MISTYPED_ARGUMENT = 0x0212, SendOutcome.REFUSED, "mistyped argument"
    RESOURCE_LIMITATION = 0x0213, SendOutcome.FAILED, "resource limitation"
    OUT_OF_RESOURCES = 0xA700, SendOutcome.FAILED, "out of resources"
    DATA_SET_MISMATCH = 0xA900, SendOutcome.REFUSED, "the data set does not match its SOP Class"
    ELEMENTS_COERCED = 0xB000, SendOutcome.WARNED, "elements were coerced"
    ELEMENTS_DISCARDED = 0xB006, SendOutcome.WARNED, "elements were discarded"
    DATA_SET_MISMATCH_WARNING = (
        0xB007,
        SendOutcome.WARNED,
        "the data set does not match its SOP Class",
    )
    CANNOT_UNDERSTAND = 0xC000, SendOutcome.REFUSED, "it cannot understand the object"
    TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122, SendOutcome.REFUSED, "transfer syntax not supported"


def classify_status(status: int) -> tuple[SendOutcome, str]:
    """Return the outcome and a description of a C-STORE status or a STOW-RS reason.

    Parameters
    ----------
    status : int
        Any code from 0x0000 to 0xFFFF.

    Returns
    -------
    tuple of SendOutcome and str
        The description has the number in hexadecimal; it is empty for success.
    """
    outcome, meaning = _look_up(status)
    return outcome, f"{meaning} (0x{status:04X})" if status else ""


def describe_status(status: int) -> str:
    """Return the meaning of a status with its number in hexadecimal."""
    return f"{_look_up(status)[1]} (0x{status:04X})"


def _look_up(status: int) -> tuple[SendOutcome, str]:
    if status in _BY_CODE:
        known = _BY_CODE[status]
    elif status >> 8 == 0xA7:
        known = DimseStatus.OUT_OF_RESOURCES
    elif status >> 8 == 0xA9:
        known = DimseStatus.DATA_SET_MISMATCH
    elif status >> 12 == 0xC:
        known = DimseStatus.CANNOT_UNDERSTAND
    elif status >> 12 == 0xB:
        return SendOutcome.WARNED, "a warning"
    else:
        return SendOutcome.REFUSED, "a failure"
    return known.outcome, known.meaning


_BY_CODE = {int(status): status for status in DimseStatus}
