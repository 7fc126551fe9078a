"""Storage commitment, push model, as its user (PS3.4 annex J)."""

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
from cxrsr_cli.connections.destination import SendOutcome
from cxrsr_cli.connections.dimse_status import describe_status
from cxrsr_cli.errors import CxrsrError, UsageError
from cxrsr_cli.send.association import (
    RemoteAE,
    accepted_syntaxes,
    make_ae,
)
from cxrsr_cli.send.file_header import FALLBACK_SYNTAXES
from cxrsr_cli.send.pynetdicom_patches import AssociationFailedError, AssociationLostError

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event, EventHandlerType

_PUSH_MODEL = UID("1.2.840.10008.1.20.1")
_PUSH_MODEL_INSTANCE = UID("1.2.840.10008.1.20.1.1")
_REQUEST = 1
_SUCCESS = 0x0000
_INVALID_ARGUMENT = 0x0115
_PROCESSING_FAILURE = 0x0110
_MAX_REFERENCES = 10_000
"""Instances in a request, some 2 MB: archives have limits."""
_POLL_SECONDS = 0.1
_RELEASE_TIMEOUT = 5.0
"""Seconds between looks at an association, and until it is ended."""


@dataclass(frozen=True, slots=True)
class SopReference:
    """An instance by its SOP Class and SOP Instance UID."""

    sop_class: UID
    sop_instance: UID


@dataclass(frozen=True, slots=True)
class CommitmentResult:
    """What the peer says of an instance.

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
    """An application entity that promises to keep what it stores.

    Attributes
    ----------
    peer : Peer
        Where it is.
    port : int or None
        Where it may call us for its answer (an association of its own); else it
        must answer on ours, which stays open for it.
    timeout : float
        Seconds in which it must answer.
    """

    peer: RemoteAE
    port: int | None = None
    timeout: float = 60.0

    def check(self) -> None:
        """Look whether we could be called, before anything is sent.

        Raises
        ------
        UsageError
            If `port` cannot be listened on, or a file of the peer's TLS is not
            what it should be.
        """
        if self.port is None:
            return
        if self.peer.tls:
            self.peer.tls.server_context()
        try:
            with socket.create_server(("", self.port)):
                pass
        except OSError as error:
            raise UsageError(f"cannot listen on port {self.port}: {error.strerror}") from None

    def request(self, references: Sequence[SopReference]) -> dict[UID, CommitmentResult]:
        """Ask, and wait for the answer.

        Parameters
        ----------
        references : sequence of Reference
            Instances that it has stored.

        Returns
        -------
        dict
            For each SOP Instance UID, whatever happens.

        """
        answers: dict[UID, CommitmentResult] = {}
        with quiet_libraries():
            for start in range(0, len(references), _MAX_REFERENCES):
                answers |= self._request(references[start : start + _MAX_REFERENCES])
        return answers

    def _request(self, references: Sequence[SopReference]) -> dict[UID, CommitmentResult]:
        from pynetdicom import evt

        transaction = UID(f"2.25.{uuid.uuid4().int}")
        asked = _what(references, transaction)
        told: list[Dataset] = []
        answered = threading.Event()

        def take(event: "Event") -> tuple[int, None]:
            """Take an N-EVENT-REPORT, if it is the one we wait for."""
            information = event.event_information
            if information.get("TransactionUID") != transaction:
                return _INVALID_ARGUMENT, None
            told.append(information)
            return _SUCCESS, None

        def note(_: "Event") -> None:
            """Let the answer count once our response to it has left."""
            if told:
                answered.set()

        handlers: list[EventHandlerType] = [
            (evt.EVT_N_EVENT_REPORT, take),
            (evt.EVT_PDU_SENT, note),
        ]
        try:
            with ExitStack() as opened:
                if self.port is not None:
                    opened.enter_context(self._listening(self.port, handlers))
                association = opened.enter_context(
                    self.peer.association([(_PUSH_MODEL, FALLBACK_SYNTAXES)], handlers=handlers)
                )
                if not accepted_syntaxes(association, _PUSH_MODEL):
                    return _all(references, f"{self.peer} does no storage commitment")
                try:
                    response, _ = association.send_n_action(
                        asked, _REQUEST, _PUSH_MODEL, _PUSH_MODEL_INSTANCE
                    )
                except RuntimeError:  # so pynetdicom says that it is gone
                    raise AssociationLostError(f"{self.peer} ended the association") from None
                status = response.get("Status")
                if status is None:
                    return _all(references, f"{self.peer} did not answer the request")
                if status != _SUCCESS:
                    return _all(references, f"{self.peer}: {describe_status(status)}", status)
                self._wait(answered, association)
        # A port that is taken meanwhile, too: what was stored must be told.
        except CxrsrError as error:
            return _all(references, str(error))
        if not answered.is_set():
            return _all(references, f"no answer from {self.peer} in time")
        return _read(told[0], references, self.peer)

    def _wait(self, answered: threading.Event, association: "Association") -> None:
        """Wait as long as the answer can still come."""
        end = time.monotonic() + self.timeout
        while (left := end - time.monotonic()) > 0 and not answered.wait(min(left, _POLL_SECONDS)):
            if self.port is None and not association.is_established:
                return

    @contextmanager
    def _listening(self, port: int, handlers: "list[EventHandlerType]") -> Iterator[None]:
        """Accept the peer's association on the address that faces it."""
        entity = make_ae(self.peer.calling_ae, self.peer.timeout)
        # The peer associates as the service's provider (PS3.4 J.3.3); some do not say so.
        entity.add_supported_context(
            _PUSH_MODEL, list(FALLBACK_SYNTAXES), scu_role=True, scp_role=True
        )
        tls = self.peer.tls
        try:
            server = entity.start_server(
                (_local_address_towards(self.peer.host, self.peer.port), port),
                block=False,
                ssl_context=tls.server_context() if tls else None,
                evt_handlers=handlers,
            )
        except OSError as error:
            raise UsageError(f"cannot listen on port {port}: {error.strerror}") from None
        try:
            yield
            # Who has answered releases the association himself.
            end = time.monotonic() + _RELEASE_TIMEOUT
            while entity.active_associations and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)
        finally:
            if server is not None:
                entity.shutdown()


def _local_address_towards(host: str, port: int) -> str:
    """Return the address by which this machine reaches a peer; nothing is sent."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.connect(address)
            ours: str = asked.getsockname()[0]
    except OSError as error:
        raise AssociationFailedError(
            SendOutcome.FAILED, f"cannot find {host}: {error.strerror}"
        ) from None
    return ours


def _what(references: Sequence[SopReference], transaction: UID) -> Dataset:
    """Build the Action Information (PS3.4 table J.3-1)."""
    information = Dataset()
    information.TransactionUID = transaction
    information.ReferencedSOPSequence = [_item(reference) for reference in references]
    return information


def _item(reference: SopReference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class
    item.ReferencedSOPInstanceUID = reference.sop_instance
    return item


def _all(
    references: Sequence[SopReference], message: str, reason: int | None = None
) -> dict[UID, CommitmentResult]:
    return {
        reference.sop_instance: CommitmentResult(committed=False, message=message, reason=reason)
        for reference in references
    }


def _read(
    information: Dataset, references: Sequence[SopReference], peer: RemoteAE
) -> dict[UID, CommitmentResult]:
    """Read the Event Information (PS3.4 table J.3-2); what it does not mention is not committed."""
    answers = _all(references, f"{peer} does not mention it in its answer")
    try:
        for item in information.get("ReferencedSOPSequence") or ():
            _put(answers, item, CommitmentResult(committed=True))
        for item in information.get("FailedSOPSequence") or ():
            reason = int(item.get("FailureReason") or _PROCESSING_FAILURE)
            message = f"{peer}: {describe_status(reason)}"
            _put(answers, item, CommitmentResult(committed=False, message=message, reason=reason))
    # What a peer sends can make pydicom raise anything, with values in the text.
    except Exception as error:
        message = f"the answer of {peer} cannot be read ({type(error).__name__})"
        return _all(references, message)
    return answers


def _put(answers: dict[UID, CommitmentResult], item: Dataset, answer: CommitmentResult) -> None:
    uid = UID(str(item.get("ReferencedSOPInstanceUID")))
    if uid in answers:
        answers[uid] = answer
