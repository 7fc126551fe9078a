"""One connection: who is at the other end, whether it is accepted, and why it ended."""

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxrsr_cli.common.validators import is_valid_ae_title, sanitize_ae_title
from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.receive.config import ScpConfig
from cxrsr_cli.receive.refusal import RefusalEvent, RefusalReason
from cxrsr_cli.receive.store_sink import ReceivedInstance

if TYPE_CHECKING:
    from pynetdicom.presentation import PresentationContext

_LOG = logging.getLogger(__name__)

_RATE_WINDOW_SECONDS = 60.0
_MAX_TRACKED_PEERS = 1024


class RateLimiter:
    """Limits the associations that each peer may open in a minute; None for no limit."""

    def __init__(self, max_per_minute: int | None) -> None:
        self._max_per_minute = max_per_minute
        self._lock = threading.Lock()
        self._opened: dict[tuple[str, str], deque[float]] = {}

    def allow(self, peer: tuple[str, str]) -> bool:
        """Tell whether a peer may open another association now, and count it if so."""
        if self._max_per_minute is None:
            return True
        now = time.monotonic()
        with self._lock:
            if len(self._opened) > _MAX_TRACKED_PEERS:
                self._remove_expired(now)
            opened = self._opened.setdefault(peer, deque())
            while opened and opened[0] <= now - _RATE_WINDOW_SECONDS:
                opened.popleft()
            if len(opened) >= self._max_per_minute:
                return False
            opened.append(now)
            return True

    def _remove_expired(self, now: float) -> None:
        oldest = now - _RATE_WINDOW_SECONDS
        for peer in [peer for peer, opened in self._opened.items() if opened[-1] <= oldest]:
            del self._opened[peer]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScpContext:
    """What all associations of an SCP share.

    Attributes
    ----------
    config : ScpConfig
        AE titles, peers and limits.
    folder : Path
        Where files are received.
    accept, on_refusal : callable
        Callbacks for instances and refusals.
    presentation_contexts : list of PresentationContext
        Contexts that may be accepted.
    rate_limiter : RateLimiter
        Counts associations.
    stopping : threading.Event
        Set when no new message may begin.
    """

    config: ScpConfig
    folder: Path
    accept: Callable[[ReceivedInstance], DimseStatus]
    on_refusal: Callable[[RefusalEvent], None]
    presentation_contexts: "list[PresentationContext]"
    rate_limiter: RateLimiter
    stopping: threading.Event

    def report(self, reason: RefusalReason, address: str, calling_ae: str = "") -> None:
        """Report a refusal; errors of the callback are logged, and never reach a peer."""
        try:
            self.on_refusal(RefusalEvent(reason, address, sanitize_ae_title(calling_ae)))
        except Exception as error:
            _LOG.warning("the callback for refusals raised %s", type(error).__name__)


class PeerConnection:
    """A peer that connected.

    Parameters
    ----------
    context : ScpContext
        The SCP that the peer connected to.
    address : str
        IP address of the peer.
    socket_ : socket.socket
        The accepted socket.
    initial_rejection : RefusalReason or None
        Reason to reject the peer, whatever it requests.

    Attributes
    ----------
    socket : socket.socket
        The accepted socket; after the TLS handshake, the encrypted one.
    calling_ae, called_ae : str
        AE titles of the request; empty before it.
    connected_at : float
        Time of the connection, by `time.monotonic`.
    is_closing : bool
        Whether the last PDU was sent, so that the connection no longer counts.
    is_severed : bool
        Whether everything that the peer sends is discarded.
    end_reason : RefusalReason or None
        Why the association was refused or aborted; None if it was not.
    """

    def __init__(
        self,
        context: ScpContext,
        address: str,
        socket_: socket.socket,
        initial_rejection: RefusalReason | None,
    ) -> None:
        self.context = context
        self.address = address
        self.socket = socket_
        self.initial_rejection = initial_rejection
        self.calling_ae = self.called_ae = ""
        self.connected_at = time.monotonic()
        self.is_closing = self.is_severed = False
        self.end_reason: RefusalReason | None = None

    def set_end_reason(self, reason: RefusalReason) -> None:
        """Set why the association ends; the first reason counts, because it causes the others."""
        if self.end_reason is None:
            self.end_reason = RefusalReason.STOPPING if self.is_severed else reason

    def report(self, reason: RefusalReason) -> None:
        """Report that something which the peer asked for was refused."""
        self.context.report(reason, self.address, self.calling_ae)

    def rejection_reason(self, calling_ae: str, called_ae: str) -> RefusalReason | None:
        """Return why an association with these AE titles is rejected; None to accept it."""
        self.calling_ae, self.called_ae = calling_ae, called_ae
        config = self.context.config
        if self.initial_rejection is not None:
            return self.initial_rejection
        if not is_valid_ae_title(calling_ae) or not config.is_allowed(self.address, calling_ae):
            return RefusalReason.CALLING_AE
        is_ours = called_ae == config.ae_title or config.accept_any_called_ae
        if not is_ours or not is_valid_ae_title(called_ae):
            return RefusalReason.CALLED_AE
        # A peer can change an unlisted title with each call, so it is not part of the key.
        title = calling_ae if config.lists_ae_title(calling_ae) else ""
        is_within_rate = self.context.rate_limiter.allow((self.address, title))
        return None if is_within_rate else RefusalReason.RATE

    def shut_down(self, how: int) -> None:
        """Shut the socket down, as `socket.socket.shutdown`; another thread may use it."""
        # Linux still delivers what arrived before the shutdown, and what arrives after it.
        self.is_severed = True
        with suppress(OSError):
            # The method of SSLSocket would drop the TLS session that the other thread uses.
            socket.socket.shutdown(self.socket, how)
