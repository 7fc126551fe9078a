"""Where files are sent, and the outcome of each file."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


def never_stop() -> bool:
    """Return False: nobody asks to stop."""
    return False


class SendOutcome(StrEnum):
    """What a destination did with a file."""

    STORED = "stored"
    WARNED = "stored with a warning"
    """The peer has the file, but changed or doubts something (PS3.4 B.2.3)."""
    REFUSED = "refused"
    """The same file would be refused again."""
    FAILED = "failed"
    """Sending may succeed later: no connection, a busy or full peer, a timeout."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """The outcome of one file.

    Attributes
    ----------
    path : Path
        The file.
    outcome : SendOutcome
        What the destination did with it.
    message : str
        The reason of a failure or warning, free of patient data and of the peer's own text.
    status : int or None
        The peer's DIMSE or HTTP status, if it gave one.
    decided_by_peer : bool
        Whether the network or the peer is the reason, not the file itself.
    sender_rejected : bool
        Whether the peer rejects us and would reject any file: an unknown AE title, a wrong
        password, an address that has moved.
    committed : bool
        Whether the peer took responsibility for keeping the instance (PS3.4 annex J).
    """

    path: Path
    outcome: SendOutcome
    message: str = ""
    status: int | None = None
    decided_by_peer: bool = True
    sender_rejected: bool = False
    committed: bool = False

    @property
    def is_stored(self) -> bool:
        """Whether the destination has the file."""
        return self.outcome in (SendOutcome.STORED, SendOutcome.WARNED)


class Destination(Protocol):
    """A place that takes files."""

    def check(self) -> str:
        """Check, without using the network, whether files could be sent.

        Returns
        -------
        str
            A problem that may be temporary, such as a share that is not mounted; else empty.

        Raises
        ------
        MissingExtraError, UsageError
            As `send`.
        """

    def send(
        self, files: Sequence[Path], stop: Callable[[], bool] = never_stop
    ) -> Generator[SendResult, None, None]:
        """Send files, and yield the result of each in the order of `files`.

        Parameters
        ----------
        files : sequence of Path
            DICOM files; opened for reading only.
        stop : callable
            Called after each file; if it returns True, the remaining files are not sent. Files
            that were sent still get a result.

        Yields
        ------
        SendResult
            One for each file that was tried. A problem with the network or a file is an
            outcome, not an exception.

        Raises
        ------
        MissingExtraError
            If a library is not installed.
        UsageError
            If the destination itself is wrong, such as a certificate that is missing.
        """
