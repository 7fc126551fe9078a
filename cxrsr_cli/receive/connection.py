"""A connection: who is at its other end, and why it was ended if it was."""

import socket
import time
from contextlib import suppress

from cxrsr_cli.common.validators import is_valid_ae_title
from cxrsr_cli.receive.context import ScpContext
from cxrsr_cli.receive.refusal import RefusalReason


class PeerConnection:
    """A peer that connected.

    Parameters
    ----------
    node : Node
        What it called.
    address : str
        Its IP address.
    connection : socket.socket
        As accepted.
    unwelcome : Reason or None
        Why it is to be rejected, whatever it requests.

    Attributes
    ----------
    connection : socket.socket
        After the TLS handshake another one than at first.
    title, called : str
        AE titles: its own, and that which it called. Empty until it requests an association.
    began : float
        When it connected, by `time.monotonic`.
    is_over : bool
        Whether only last words are left, so that its place is free.
    cut : bool
        Whether nothing that it sent is to be looked at any more.
    reason : Reason or None
        Why its association was refused or ended; None if it was not, or ended well.
    """

    def __init__(
        self,
        node: ScpContext,
        address: str,
        connection: socket.socket,
        unwelcome: RefusalReason | None,
    ) -> None:
        self.node = node
        self.address = address
        self.connection = connection
        self.unwelcome = unwelcome
        self.title = self.called = ""
        self.began = time.monotonic()
        self.is_over = self.cut = False
        self.reason: RefusalReason | None = None

    def set_end_reason(self, reason: RefusalReason) -> None:
        """Keep why the association is ended: the first reason, as others follow from it."""
        if self.reason is None:
            self.reason = RefusalReason.STOPPING if self.cut else reason

    def report(self, reason: RefusalReason) -> None:
        """Tell of a refusal of something that it asked for."""
        self.node.report(reason, self.address, self.title)

    def rejection_reason(self, calling: str, called: str) -> RefusalReason | None:
        """Find why it may not have an association under these titles."""
        self.title, self.called = calling, called
        listener = self.node.config
        if self.unwelcome is not None:
            return self.unwelcome
        if not is_valid_ae_title(calling) or not listener.is_allowed(self.address, calling):
            return RefusalReason.CALLING_AE
        wrong = called != listener.ae_title and not listener.accept_any_called_ae
        if wrong or not is_valid_ae_title(called):
            return RefusalReason.CALLED_AE
        # A title that nobody listed could be another one each time.
        name = calling if listener.lists_ae_title(calling) else ""
        return None if self.node.rate_limiter.allow((self.address, name)) else RefusalReason.RATE

    def shut_down(self, how: int) -> None:
        """Shut the connection down, as of now; may be called from another thread.

        Parameters
        ----------
        how : int
            Of `socket.socket.shutdown`.
        """
        # What has come, and what still comes, could be read all the same (Linux).
        self.cut = True
        with suppress(OSError):
            # Not that of ssl, which drops the session that the other thread uses.
            socket.socket.shutdown(self.connection, how)
