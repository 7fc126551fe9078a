"""One C-STORE, from its command to the status of its response (PS3.7 9.1.1, PS3.4 B.2.3)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cxrsr_cli.serve.arrival import Arrival
from cxrsr_cli.serve.command import Command, Field, is_uid
from cxrsr_cli.serve.contexts import Accepted
from cxrsr_cli.serve.incoming import IncomingFile
from cxrsr_cli.serve.inspection import inspect
from cxrsr_cli.serve.listener import Limits
from cxrsr_cli.serve.refusal import STATUSES, NotStoredError, Reason
from cxrsr_cli.serve.status import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sends.

    Attributes
    ----------
    calling_ae, called_ae : str
        Application Entity titles of the association.
    address : str
        IP address.
    """

    calling_ae: str
    called_ae: str
    address: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a C-STORE is answered.

    Attributes
    ----------
    status : Status
        Of the response.
    reason : Reason or None
        Why not; None if the instance was taken.
    """

    status: Status
    reason: Reason | None = None

    @classmethod
    def refused(cls, reason: Reason) -> "Verdict":
        """Give the status that tells a reason."""
        return cls(STATUSES[reason], reason)


class Storing:
    """Takes the data set of a request, and decides what it is answered with.

    What is refused is refused at once, and the rest of its data set dropped as it
    comes: the association can go on with the next instance then.

    Parameters
    ----------
    command : Command
        The request; of any kind that has a data set.
    context : Accepted
        Presentation context of its message.
    sender : Sender
        Who sends it.
    folder : Path
        Where its file is made.
    limits : Limits
        Of size and disk space.
    """

    def __init__(
        self, command: Command, context: Accepted, sender: Sender, folder: Path, limits: Limits
    ) -> None:
        self._command = command
        self._context = context
        self._sender = sender
        self._limits = limits
        self._file: IncomingFile | None = None
        self._refused: Reason | None = None
        try:
            self._check_command()
            self._file = IncomingFile(
                folder,
                sop_class=command.sop_class,
                sop_instance=command.sop_instance,
                transfer_syntax=context.transfer_syntax,
                largest=limits.instance_bytes,
                spare=limits.free_bytes,
            )
        except NotStoredError as error:
            self._refused = error.reason

    def _check_command(self) -> None:
        if self._command.field != Field.C_STORE:
            raise NotStoredError(Reason.OPERATION)
        if not self._command.has_data_set:
            raise NotStoredError(Reason.NO_DATA_SET)
        if not is_uid(self._command.sop_class) or not is_uid(self._command.sop_instance):
            raise NotStoredError(Reason.ILLEGAL_UID)
        if self._command.sop_class != self._context.abstract_syntax:
            raise NotStoredError(Reason.SOP_CLASS)

    def take(self, piece: memoryview) -> None:
        """Take a piece of the data set."""
        if self._file is None:
            return
        try:
            self._file.write(piece)
        except NotStoredError as error:
            self._refused, self._file = error.reason, None

    def end(self, accept: Callable[[Arrival], Status]) -> Verdict:
        """Check the file, and hand it on.

        Parameters
        ----------
        accept : callable
            Takes an instance; the file is its own if it returns success.
        """
        if self._file is None:
            return Verdict.refused(self._refused or Reason.INTERNAL)
        file = self._file
        try:
            path = file.finish()
            sop_instance_uid = inspect(
                path,
                self._command,
                self._context.transfer_syntax,
                begins=file.data_set_at,
                largest=self._limits.instance_bytes,
            )
            status = accept(
                Arrival(
                    path=path,
                    sop_instance_uid=sop_instance_uid,
                    calling_ae=self._sender.calling_ae,
                    called_ae=self._sender.called_ae,
                    address=self._sender.address,
                )
            )
        except NotStoredError as error:
            self.abandon()
            return Verdict.refused(error.reason)
        # Whatever it is, the peer must not take the instance for stored.
        except Exception:
            self.abandon()
            return Verdict.refused(Reason.INTERNAL)
        if status != Status.SUCCESS:
            self.abandon()
            return Verdict(status, Reason.NOT_TAKEN)
        self._file = None
        return Verdict(status)

    def abandon(self) -> None:
        """Remove what was received so far."""
        if self._file is not None:
            self._file.discard()
            self._file = None
