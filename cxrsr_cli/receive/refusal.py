"""Reasons to refuse a peer, and the answers that it gets."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.errors import NetworkError


class RefusalReason(StrEnum):
    """Why a connection, association or instance was refused."""

    # The connection is closed.
    ADDRESS = "address not allowed"
    CROWDED = "too many connections"
    TLS = "no TLS, or no certificate that is trusted"
    # The association is rejected.
    LIMIT = "too many associations"
    RATE = "too many associations a minute"
    CALLING_AE = "calling AE title not known"
    CALLED_AE = "called AE title is not ours"
    VERSION = "another version of the protocol"
    APPLICATION = "another application context"
    STOPPING = "the node is stopping"
    # The association is aborted.
    NOT_DICOM = "not a PDU of DICOM"
    UNEXPECTED = "a PDU or message out of turn"
    TOO_LONG = "a PDU or command set beyond its limit"
    MALFORMED = "a PDU or command set that cannot be decoded"
    SLOW = "too little came in time"
    BROKEN_OFF = "the peer broke off"
    INTERNAL = "an error of ours"
    # The request is answered with a failure status.
    FULL = "too little free disk space"
    INSTANCE_TOO_LONG = "instance beyond the limit"
    ILLEGAL_UID = "illegal UID"
    UID_MISMATCH = "data set and command differ in UID"
    SOP_CLASS = "SOP Class is not that of the context"
    NO_DATA_SET = "no data set"
    UNREADABLE = "damaged data set"
    NOT_TAKEN = "not accepted now"
    OPERATION = "operation not supported"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Fields of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""

    result: int
    source: int
    diagnostic: int


REJECTIONS: dict[RefusalReason, Rejection] = {
    RefusalReason.LIMIT: Rejection(2, 3, 2),  # transient, presentation, local limit exceeded
    RefusalReason.RATE: Rejection(2, 3, 1),  # transient, presentation, temporary congestion
    RefusalReason.STOPPING: Rejection(2, 3, 1),
    RefusalReason.CALLING_AE: Rejection(1, 1, 3),
    RefusalReason.CALLED_AE: Rejection(1, 1, 7),
    RefusalReason.APPLICATION: Rejection(1, 1, 2),
    RefusalReason.VERSION: Rejection(1, 2, 2),
    RefusalReason.INTERNAL: Rejection(2, 1, 1),
}
"""Answer to an association request, by reason."""


class AbortReason(IntEnum):
    """Reason of an A-ABORT by the service provider (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PARAMETER_VALUE = 6


ABORTS: dict[RefusalReason, AbortReason] = {
    RefusalReason.NOT_DICOM: AbortReason.UNRECOGNIZED_PDU,
    RefusalReason.UNEXPECTED: AbortReason.UNEXPECTED_PDU,
    RefusalReason.TOO_LONG: AbortReason.INVALID_PARAMETER_VALUE,
    RefusalReason.MALFORMED: AbortReason.INVALID_PARAMETER_VALUE,
    RefusalReason.SLOW: AbortReason.NOT_SPECIFIED,
    RefusalReason.STOPPING: AbortReason.NOT_SPECIFIED,
    RefusalReason.BROKEN_OFF: AbortReason.NOT_SPECIFIED,
    RefusalReason.INTERNAL: AbortReason.NOT_SPECIFIED,
}
"""Reason in the A-ABORT, by our reason."""

STATUSES: dict[RefusalReason, DimseStatus] = {
    RefusalReason.FULL: DimseStatus.OUT_OF_RESOURCES,
    RefusalReason.INSTANCE_TOO_LONG: DimseStatus.OUT_OF_RESOURCES,
    RefusalReason.INTERNAL: DimseStatus.OUT_OF_RESOURCES,
    RefusalReason.ILLEGAL_UID: DimseStatus.CANNOT_UNDERSTAND,
    RefusalReason.UNREADABLE: DimseStatus.CANNOT_UNDERSTAND,
    RefusalReason.NO_DATA_SET: DimseStatus.CANNOT_UNDERSTAND,
    RefusalReason.UID_MISMATCH: DimseStatus.DATA_SET_MISMATCH,
    RefusalReason.SOP_CLASS: DimseStatus.SOP_CLASS_NOT_SUPPORTED,
    RefusalReason.OPERATION: DimseStatus.UNRECOGNISED_OPERATION,
}
"""Status of the response, by reason. For other reasons, `accept` returns the status."""


@dataclass(frozen=True, slots=True)
class RefusalEvent:
    """A refusal, for log and metrics. A peer cannot forge its content.

    Attributes
    ----------
    reason : RefusalReason
        Why.
    address : str
        IP address of the peer.
    calling_ae : str
        AE title of the peer, sanitized; empty if it sent no association request.
    """

    reason: RefusalReason
    address: str
    calling_ae: str = ""


class ProtocolViolationError(NetworkError):
    """The association must be aborted."""

    def __init__(self, reason: RefusalReason) -> None:
        super().__init__(f"association ended: {reason}")
        self.reason = reason


class InstanceRejectedError(NetworkError):
    """An instance is refused; the association continues."""

    def __init__(self, reason: RefusalReason) -> None:
        super().__init__(f"instance not taken: {reason}")
        self.reason = reason
