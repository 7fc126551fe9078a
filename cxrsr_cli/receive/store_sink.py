"""The data set of one C-STORE, and the status that it is answered with (PS3.4 B.2.3)."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.receive.config import ScpLimits
from cxrsr_cli.receive.context import ReceivedInstance
from cxrsr_cli.receive.part10_writer import Part10Writer
from cxrsr_cli.receive.refusal import STATUSES, InstanceRejectedError, RefusalReason
from cxrsr_cli.receive.validation import StoreRequest, validate_file

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@dataclass(frozen=True, slots=True)
class StoreResult:
    """How a C-STORE is answered.

    Attributes
    ----------
    status : Status
        Of the response.
    reason : Reason or None
        Why not; None if the instance was taken.
    """

    status: DimseStatus
    reason: RefusalReason | None = None

    @classmethod
    def refused(cls, reason: RefusalReason) -> "StoreResult":
        """Give the status that tells a reason."""
        return cls(STATUSES[reason], reason)


class StoreSink(BytesIO):
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
        self,
        announced: StoreRequest,
        folder: Path,
        limits: ScpLimits,
        refused: RefusalReason | None,
    ) -> None:
        super().__init__()
        self._announced = announced
        self._limits = limits
        self._file: Part10Writer | None = None
        self._refused = refused
        if refused is not None:
            return
        try:
            self._file = Part10Writer(
                folder,
                sop_class=announced.sop_class,
                sop_instance=announced.sop_instance,
                transfer_syntax=announced.transfer_syntax,
                largest=limits.max_instance_bytes,
                spare=limits.min_free_bytes,
            )
        except InstanceRejectedError as error:
            self._refused = error.reason

    def write(self, piece: "ReadableBuffer", /) -> int:
        """Take a piece of the data set."""
        view = memoryview(piece)
        if self._file is not None:
            try:
                self._file.write(view)
            except InstanceRejectedError as error:
                self._refused, self._file = error.reason, None
        return len(view)

    def end(
        self,
        accept: Callable[[ReceivedInstance], DimseStatus],
        *,
        calling_ae: str,
        called_ae: str,
        address: str,
    ) -> StoreResult:
        """Check the file, and hand it on.

        Parameters
        ----------
        accept : callable
            Takes an instance; the file is its own if it returns success.
        calling_ae, called_ae, address : str
            Who sent it.
        """
        if self._file is None:
            return StoreResult.refused(self._refused or RefusalReason.INTERNAL)
        file = self._file
        try:
            path = file.finish()
            sop_instance_uid = validate_file(
                path,
                self._announced,
                begins=file.data_set_at,
                largest=self._limits.max_instance_bytes,
            )
            status = accept(
                ReceivedInstance(
                    path=path,
                    dataset_offset=file.data_set_at,
                    sop_instance_uid=sop_instance_uid,
                    calling_ae=calling_ae,
                    called_ae=called_ae,
                    address=address,
                )
            )
        except InstanceRejectedError as error:
            self.discard_partial()
            return StoreResult.refused(error.reason)
        # Whatever it is, the peer must not take the instance for stored.
        except Exception:
            self.discard_partial()
            return StoreResult.refused(RefusalReason.INTERNAL)
        if status != DimseStatus.SUCCESS:
            self.discard_partial()
            return StoreResult(status, RefusalReason.NOT_TAKEN)
        self._file = None
        return StoreResult(status)

    def discard_partial(self) -> None:
        """Remove what was received so far."""
        if self._file is not None:
            self._file.discard()
            self._file = None
