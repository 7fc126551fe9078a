"""How an association fails."""

from cxrsr_cli.errors import NetworkError, UnreadableFileError
from cxrsr_cli.send.destination import SendOutcome


class AssociationLostError(NetworkError):
    """The association ended before the peer answered."""


class PartialSendError(UnreadableFileError):
    """A file failed while it was under way: the association can carry nothing more."""


class AssociationFailedError(NetworkError):
    """There is no association; `outcome` is what that makes of the files."""

    def __init__(self, outcome: SendOutcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome
