"""What all associations of a node share."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from cxrsr_cli.receive.arrival import Arrival
from cxrsr_cli.receive.contexts import Supported
from cxrsr_cli.receive.listener import Listener
from cxrsr_cli.receive.pace import Pace
from cxrsr_cli.receive.refusal import Reason, Refusal, cleaned
from cxrsr_cli.receive.status import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node that receives.

    Attributes
    ----------
    listener : Listener
        Titles, peers and limits.
    folder : Path
        Where files are received.
    accept, said : callable
        Take instances and refusals.
    contexts : Supported
        What may be sent.
    pace : Pace
        Counts associations.
    stopping : Event
        Set when no new message is to be served.
    """

    listener: Listener
    folder: Path
    accept: Callable[[Arrival], Status]
    said: Callable[[Refusal], None]
    contexts: Supported
    pace: Pace
    stopping: Event

    def say(self, reason: Reason, address: str, title: str = "") -> None:
        """Tell of a refusal; nobody's trouble with it may reach a peer."""
        with suppress(Exception):
            self.said(Refusal(reason, address, cleaned(title)))
