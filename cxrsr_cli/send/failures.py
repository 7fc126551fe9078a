"""How an association fails."""

from cxrsr_cli.errors import NetworkError, NotReadableError
from cxrsr_cli.send.destination import Outcome


class BrokenOffError(NetworkError):
    """The association ended before the peer answered."""


class HalfSentError(NotReadableError):
    """A file failed while it was under way: the association can carry nothing more."""


class NotAssociatedError(NetworkError):
    """There is no association; `outcome` is what that makes of the files."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome
