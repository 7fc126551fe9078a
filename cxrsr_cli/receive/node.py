"""What all associations of a node share."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from cxrsr_cli.receive.arrival import ReceivedInstance
from cxrsr_cli.receive.contexts import Supported
from cxrsr_cli.receive.listener import ScpConfig
from cxrsr_cli.receive.pace import RateLimiter
from cxrsr_cli.receive.refusal import RefusalEvent, RefusalReason, sanitize_ae_title
from cxrsr_cli.receive.status import DimseStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ScpContext:
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

    config: ScpConfig
    folder: Path
    accept: Callable[[ReceivedInstance], DimseStatus]
    on_refusal: Callable[[RefusalEvent], None]
    contexts: Supported
    rate_limiter: RateLimiter
    stopping: Event

    def report(self, reason: RefusalReason, address: str, title: str = "") -> None:
        """Tell of a refusal; nobody's trouble with it may reach a peer."""
        with suppress(Exception):
            self.on_refusal(RefusalEvent(reason, address, sanitize_ae_title(title)))
