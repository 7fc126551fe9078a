"""Where an instance stands between its arrival and its last destination."""

from dataclasses import dataclass
from enum import StrEnum


class ItemState(StrEnum):
    """Of an instance."""

    RECEIVED = "received"
    """Acknowledged; to be upscaled."""
    SENDING = "sending"
    """Upscaled; not at every destination yet."""
    DONE = "done"
    """At every destination; its files are gone."""
    IGNORED = "ignored"
    """By a rule, for want of one, or because this program made it; its file is gone."""
    DEAD = "dead"
    """It will not be tried again unless asked to; its files are kept, and the reason."""


FINAL = (ItemState.DONE, ItemState.IGNORED)
"""States that need no files."""


class DeliveryState(StrEnum):
    """Of an instance on its way to one destination."""

    PENDING = "waiting"
    SENT = "sent"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueItem:
    """An instance as the queue knows it.

    Attributes
    ----------
    key : str
        32 hexadecimal digits, made of the instance; its files are named by it.
    state : State
        Where it stands.
    calling_ae, called_ae, address : str
        Whom it came from, and under which title.
    begun : int
        How often its upscaling was begun and not seen to end: the process was killed.
    attempts : int
        How often its upscaling failed, and is to be tried again.
    due : float
        Seconds since 1970 before which it is left alone.
    rule : str
        Name of the rule that was followed, once there was one.
    reason : str
        Why it stands where it stands.
    arrived : float
        Seconds since 1970.
    """

    key: str
    state: ItemState
    calling_ae: str
    called_ae: str
    address: str
    crash_count: int
    attempts: int
    due: float
    rule: str
    reason: str
    arrived: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An output on its way to one destination.

    Attributes
    ----------
    key : str
        Of the instance.
    destination : str
        Its name in the configuration.
    attempts : int
        How often it was tried.
    """

    key: str
    destination: str
    attempts: int
