"""The data set of one C-STORE, and the status that it is answered with (PS3.4 B.2.3)."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from cxrsr_cli.receive.arrival import Arrival
from cxrsr_cli.receive.incoming import IncomingFile
from cxrsr_cli.receive.inspection import Announced, inspect
from cxrsr_cli.receive.listener import Limits
from cxrsr_cli.receive.refusal import STATUSES, NotStoredError, Reason
from cxrsr_cli.receive.status import Status

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


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


class Storing(BytesIO):
    """Takes the place of the memory in which pynetdicom would collect a data set.

    What is refused is refused at once, and the rest of its data set dropped as it
    comes: the association can go on with the next instance then.

    Parameters
    ----------
    announced : Announced
        What is to come.
    folder : Path
        Where its file is made.
    limits : Limits
        Of size and disk space.
    refused : Reason or None
        Why it is not wanted.
    """

    def __init__(
        self, announced: Announced, folder: Path, limits: Limits, refused: Reason | None
    ) -> None:
        super().__init__()
        self._announced = announced
        self._limits = limits
        self._file: IncomingFile | None = None
        self._refused = refused
        if refused is not None:
            return
        try:
            self._file = IncomingFile(
                folder,
                sop_class=announced.sop_class,
                sop_instance=announced.sop_instance,
                transfer_syntax=announced.transfer_syntax,
                largest=limits.instance_bytes,
                spare=limits.free_bytes,
            )
        except NotStoredError as error:
            self._refused = error.reason

    def write(self, piece: "ReadableBuffer", /) -> int:
        """Take a piece of the data set."""
        view = memoryview(piece)
        if self._file is not None:
            try:
                self._file.write(view)
            except NotStoredError as error:
                self._refused, self._file = error.reason, None
        return len(view)

    def end(
        self, accept: Callable[[Arrival], Status], *, calling_ae: str, called_ae: str, address: str
    ) -> Verdict:
        """Check the file, and hand it on.

        Parameters
        ----------
        accept : callable
            Takes an instance; the file is its own if it returns success.
        calling_ae, called_ae, address : str
            Who sent it.
        """
        if self._file is None:
            return Verdict.refused(self._refused or Reason.INTERNAL)
        file = self._file
        try:
            path = file.finish()
            sop_instance_uid = inspect(
                path,
                self._announced,
                begins=file.data_set_at,
                largest=self._limits.instance_bytes,
            )
            status = accept(
                Arrival(
                    path=path,
                    data_set_at=file.data_set_at,
                    sop_instance_uid=sop_instance_uid,
                    calling_ae=calling_ae,
                    called_ae=called_ae,
                    address=address,
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
