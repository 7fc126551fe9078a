"""Storage commitment, push model, as its SCU (PS3.4 annex J)."""

import queue
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.uid import UID

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.connections.dimse_status import DimseStatus, describe_status
from cxrsr_cli.errors import CxrsrError, UsageError
from cxrsr_cli.send.association import (
    AssociationLostError,
    RemoteAE,
    accepted_syntaxes,
    make_ae,
)
from cxrsr_cli.send.file_header import FALLBACK_SYNTAXES, FileHeader

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event, EventHandlerType

_PUSH_MODEL = UID("1.2.840.10008.1.20.1")
_PUSH_MODEL_INSTANCE = UID("1.2.840.10008.1.20.1.1")
_REQUEST_ACTION = 1
"""Action Type ID "Request Storage Commitment" (PS3.4 J.3.2)."""
_MAX_REFERENCES = 10_000
"""Instances in one request, some 2 MB: archives have limits."""
_POLL_SECONDS = 0.1
_RELEASE_TIMEOUT = 5.0
"""Seconds in which the peer should release its own association."""


@dataclass(frozen=True, slots=True)
class CommitmentResult:
    """What the peer says about one instance.

    Attributes
    ----------
    committed : bool
        Whether it takes responsibility for keeping it.
    message : str
        Why not; free of patient data.
    reason : int or None
        Its Failure Reason (PS3.3 C.14.1.1).
    """

    committed: bool
    message: str = ""
    reason: int | None = None


@dataclass(frozen=True, slots=True)
class StorageCommitmentScu:
    """Requests storage commitment from a peer.

    Attributes
    ----------
    peer : RemoteAE
        The peer that stored the instances.
    port : int or None
        Local port where the peer may open an association for its result. Without it the
        result must come on our association, which stays open for it.
    timeout : float
        Seconds to wait for the result.
    """

    peer: RemoteAE
    port: int | None = None
    timeout: float = 60.0

    def check(self) -> None:
        """Check, before anything is sent, whether the peer could reach us.

        Raises
        ------
        UsageError
            If `port` is in use or not permitted, or a file of the peer's TLS is invalid.
        """
        if self.port is None:
            return
        if self.peer.tls:
            self.peer.tls.server_context()
        try:
            with socket.create_server(("", self.port)):
                pass
        except OSError as error:
            raise _cannot_listen(self.port, error) from None

    def request(self, headers: Sequence[FileHeader]) -> dict[UID, CommitmentResult]:
        """Request commitment for stored instances, and wait for the result of each.

        Returns
        -------
        dict of UID to CommitmentResult
            For each SOP Instance UID, whatever happens.
        """
        results: dict[UID, CommitmentResult] = {}
        with quiet_libraries():
            for start in range(0, len(headers), _MAX_REFERENCES):
                results |= self._request(headers[start : start + _MAX_REFERENCES])
        return results

    def _request(self, headers: Sequence[FileHeader]) -> dict[UID, CommitmentResult]:
        receiver = _ResultReceiver(UID(f"2.25.{uuid.uuid4().int}"))
        try:
            with ExitStack() as stack:
                if self.port is not None:
                    stack.enter_context(self._listening(self.port, receiver))
                association = stack.enter_context(
                    self.peer.association([(_PUSH_MODEL, FALLBACK_SYNTAXES)], receiver.handlers())
                )
                if not accepted_syntaxes(association, _PUSH_MODEL):
                    return _failed(headers, f"{self.peer} does not support storage commitment")
                action = _action_information(headers, receiver.transaction)
                status = self._send_action(association, action)
                if status is None:
                    return _failed(headers, f"{self.peer} did not answer the request")
                if status != DimseStatus.SUCCESS:
                    message = f"{self.peer}: {describe_status(status)}"
                    return _failed(headers, message, status)
                self._wait(receiver, association)
        # Also if the port is in use by now: the files are stored and need a result.
        except CxrsrError as error:
            return _failed(headers, str(error))
        if not receiver.is_complete.is_set():
            return _failed(headers, f"no result from {self.peer} in time")
        return _read_results(receiver.information, headers, self.peer)

    def _send_action(self, association: "Association", information: Dataset) -> int | None:
        try:
            response, _ = association.send_n_action(
                information, _REQUEST_ACTION, _PUSH_MODEL, _PUSH_MODEL_INSTANCE
            )
        except RuntimeError:  # pynetdicom's for an association that is not established
            raise AssociationLostError(f"{self.peer} ended the association") from None
        except queue.Full:
            raise AssociationLostError(f"{self.peer} accepts no more data") from None
        status: int | None = response.get("Status")
        return status

    def _wait(self, receiver: "_ResultReceiver", association: "Association") -> None:
        """Wait as long as the result can still come."""
        end = time.monotonic() + self.timeout
        while (left := end - time.monotonic()) > 0:
            if receiver.is_complete.wait(min(left, _POLL_SECONDS)):
                return
            if self.port is None and not association.is_established:
                return

    @contextmanager
    def _listening(self, port: int, receiver: "_ResultReceiver") -> Iterator[None]:
        """Accept the peer's association, only on the address that faces it."""
        ae = make_ae(self.peer.calling_ae, self.peer.timeout)
        # The peer associates as SCP (PS3.4 J.3.3), but some do not negotiate that role.
        ae.add_supported_context(_PUSH_MODEL, list(FALLBACK_SYNTAXES), scu_role=True, scp_role=True)
        tls = self.peer.tls
        try:
            server = ae.start_server(
                (self.peer.local_address(), port),
                block=False,
                ssl_context=tls.server_context() if tls else None,
                evt_handlers=receiver.handlers(),
            )
        except OSError as error:
            raise _cannot_listen(port, error) from None
        try:
            yield
            # The peer that reported its result also releases its association.
            end = time.monotonic() + _RELEASE_TIMEOUT
            while ae.active_associations and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)
        finally:
            if server is not None:
                ae.shutdown()


class _ResultReceiver:
    """Receives the N-EVENT-REPORT of one transaction (PS3.4 J.3.3).

    `information` is the Event Information, empty until it came; `is_complete` is set when
    our response to it was sent.
    """

    def __init__(self, transaction: UID) -> None:
        self.transaction = transaction
        self.information = Dataset()
        self.is_complete = threading.Event()

    def handlers(self) -> "list[EventHandlerType]":
        from pynetdicom import evt

        return [(evt.EVT_N_EVENT_REPORT, self._on_report), (evt.EVT_PDU_SENT, self._on_pdu_sent)]

    def _on_report(self, event: "Event") -> tuple[int, None]:
        information = event.event_information
        if information.get("TransactionUID") != self.transaction:
            return DimseStatus.INVALID_ARGUMENT_VALUE, None
        self.information = self.information or information  # the first report counts
        return DimseStatus.SUCCESS, None

    def _on_pdu_sent(self, _: "Event") -> None:
        # To release the association before our response was sent would lose the response.
        if self.information:
            self.is_complete.set()


def _cannot_listen(port: int, error: OSError) -> UsageError:
    return UsageError(f"cannot listen on port {port}: {error.strerror}")


def _action_information(headers: Sequence[FileHeader], transaction: UID) -> Dataset:
    """Build the Action Information (PS3.4 table J.3-1)."""
    information = Dataset()
    information.TransactionUID = transaction
    information.ReferencedSOPSequence = [_item(header) for header in headers]
    return information


def _item(header: FileHeader) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = header.sop_class
    item.ReferencedSOPInstanceUID = header.sop_instance
    return item


def _failed(
    headers: Sequence[FileHeader], message: str, reason: int | None = None
) -> dict[UID, CommitmentResult]:
    result = CommitmentResult(committed=False, message=message, reason=reason)
    return {header.sop_instance: result for header in headers}


def _read_results(
    information: Dataset, headers: Sequence[FileHeader], peer: RemoteAE
) -> dict[UID, CommitmentResult]:
    """Read the Event Information (PS3.4 table J.3-2); what it does not list is not committed."""
    results = _failed(headers, f"{peer} does not mention it in its result")

    def put(item: Dataset, result: CommitmentResult) -> None:
        uid = UID(str(item.get("ReferencedSOPInstanceUID")))
        if uid in results:
            results[uid] = result

    try:
        for item in information.get("ReferencedSOPSequence") or ():
            put(item, CommitmentResult(committed=True))
        for item in information.get("FailedSOPSequence") or ():
            reason = int(item.get("FailureReason") or DimseStatus.PROCESSING_FAILURE)
            message = f"{peer}: {describe_status(reason)}"
            put(item, CommitmentResult(committed=False, message=message, reason=reason))
    # What a peer sends can make pydicom raise anything, with values in the text.
    except Exception as error:
        message = f"the result of {peer} cannot be read ({type(error).__name__})"
        return _failed(headers, message)
    return results
