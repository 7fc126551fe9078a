"""What happens in a node, told to whoever listens: log and metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    """What happened."""

    LISTENING = "listening"
    RECEIVED = "received"
    DUPLICATE = "duplicate"
    """The same instance came before; acknowledged, and nothing else."""
    REFUSED = "refused"
    """A connection, association or instance was turned away; its sender was told."""
    IGNORED = "ignored"
    UPSCALED = "upscaled"
    SENT = "sent"
    RETRY = "retry"
    """It failed, and will be tried again."""
    DEAD = "dead"
    """It failed, and will not be tried again by itself."""
    ERROR = "error"
    """The node itself could not do something."""
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes
    ----------
    kind : EventKind
        What.
    key : str
        Of the instance, if it is about one.
    peer : str
        Whom it came from: title and address.
    destination : str
        Where it goes.
    rule : str
        That was followed.
    reason : str
        Why, or with what reserve; free of patient data.
    seconds : float or None
        How long it took.
    """

    kind: EventKind
    key: str = ""
    peer: str = ""
    destination: str = ""
    rule: str = ""
    reason: str = ""
    seconds: float | None = None


Say = Callable[[Event], None]
