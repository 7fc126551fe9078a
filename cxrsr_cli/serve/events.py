"""Events of a node, for log and metrics."""

from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    """What happened."""

    LISTENING = "listening"
    RECEIVED = "received"
    DUPLICATE = "duplicate"
    """The instance was received before; it was acknowledged, and nothing else is done."""
    REFUSED = "refused"
    """A connection, association or instance was refused; the peer was told."""
    IGNORED = "ignored"
    UPSCALED = "upscaled"
    SENT = "sent"
    RETRY = "retry"
    """A step failed and will be tried again."""
    DEAD = "dead"
    """A step failed and will not be tried again automatically."""
    ERROR = "error"
    """The node itself failed to do something."""
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a node.

    Attributes
    ----------
    kind : EventKind
        What happened.
    key : str
        Key of the instance; empty if the event is not about one.
    peer : str
        AE title and IP address of the sender.
    destination : str
        Name of the destination.
    rule : str
        Name of the rule.
    reason : str
        Reason or warnings; free of patient data.
    seconds : float or None
        Duration.
    """

    kind: EventKind
    key: str = ""
    peer: str = ""
    destination: str = ""
    rule: str = ""
    reason: str = ""
    seconds: float | None = None
