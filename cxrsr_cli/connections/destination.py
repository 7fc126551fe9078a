"""Where files are sent, and what became of each."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

_MAX_TIMEOUT_SECONDS = 1e9
"""Seconds that sockets can wait."""


def validate_timeouts(**times: float) -> None:
    """Refuse what nobody can wait.

    Raises
    ------
    ValueError
        Naming what is not above 0 and finite.
    """
    for name, seconds in times.items():
        if not 0 < seconds <= _MAX_TIMEOUT_SECONDS:
            raise ValueError(f"{name} must be above 0 and finite")


def is_valid_host(text: str) -> bool:
    """Tell whether a text can be a name or address; Python fails over some that cannot."""
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return text.isprintable() and not set(text) <= {"."} and " " not in text


def _never_stop() -> bool:
    """Tell that nobody asks for an end."""
    return False


class SendOutcome(StrEnum):
    """What a destination made of a file."""

    STORED = "stored"
    WARNED = "stored with a warning"
    """The peer has it, and changed or doubts something (PS3.4 B.2.3)."""
    REFUSED = "refused"
    """The same file would be refused again."""
    FAILED = "failed"
    """It may succeed later: no connection, a busy or full peer, a time-out."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of a file.

    Attributes
    ----------
    path : Path
        The file.
    outcome : Outcome
        Whether the destination has it now.
    message : str
        Why not, or why with a warning; free of patient data, and of the peer's own words.
    status : int or None
        The peer's DIMSE or HTTP status, if it gave one.
    by_peer : bool
        Whether the network or the peer decided; else the file itself did.
    about_us : bool
        Whether it is us that are refused, whatever the file: an AE title that the peer does
        not know, a password that it does not take, an address that has moved.
    committed : bool
        Whether the peer took responsibility for keeping it (PS3.4 annex J).
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
        """Look, without a word to the network, whether files could be sent.

        Returns
        -------
        str
            What is amiss but can pass, such as a share that is not mounted; else empty.

        Raises
        ------
        MissingExtraError, UsageError
            As `send`.
        """

    def send(
        self, files: Sequence[Path], stop: Callable[[], bool] = _never_stop
    ) -> Generator[SendResult, None, None]:
        """Send files, and tell of each in order as it ends.

        Parameters
        ----------
        files : sequence of Path
            DICOM files; opened for reading only.
        stop : callable
            Asked after each file whether to leave the rest; of what was sent is still told.

        Yields
        ------
        Sent
            One for each file that is come to, whatever happens: trouble with the network
            or a file is an outcome, not an exception.

        Raises
        ------
        MissingExtraError
            If a library is not installed.
        UsageError
            If the destination itself cannot be right, such as a certificate that is no file.
        """
