"""C-STORE as SCU (PS3.4 annex B): files to an archive, also after a lost association."""

import logging
import queue
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrsr_cli.batch.result import to_reportable_error
from cxrsr_cli.common.files import ensure_unchanged, scratch_folder
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.common.validators import (
    is_valid_host,
    validate_ae_titles,
    validate_port,
    validate_timeouts,
)
from cxrsr_cli.connections.destination import SendOutcome, SendResult, never_stop
from cxrsr_cli.connections.dimse_status import classify_status
from cxrsr_cli.errors import UnreadableFileError
from cxrsr_cli.send.association import (
    MAX_CONTEXTS,
    AssociationFailedError,
    AssociationLostError,
    RemoteAE,
    accepted_syntaxes,
    explain_rejected_context,
    make_ae,
)
from cxrsr_cli.send.file_header import FALLBACK_SYNTAXES, Context, FileHeader, file_failure
from cxrsr_cli.send.storage_commitment import StorageCommitmentScu
from cxrsr_cli.send.transcode import transcode

if TYPE_CHECKING:
    from pynetdicom.association import Association

_LOG = logging.getLogger(__name__)

_MAX_FILES_PER_ASSOCIATION = 1000
"""Files whose headers are read before their association is requested."""
_MAX_LOST_ASSOCIATIONS = 3
"""Associations that may be lost before the remaining files have failed."""
_MAX_MESSAGE_ID = 0xFFFF

_Item = FileHeader | SendResult
"""A file to send, or the result of one that cannot be sent."""


class PartialSendError(UnreadableFileError):
    """A file failed while its data set was being sent; the association cannot be used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CStoreDestination(RemoteAE):
    """A Storage SCP, to which files are sent by C-STORE.

    Attributes
    ----------
    storage_commitment : bool
        Request storage commitment (PS3.4 annex J). A file that the peer does not commit to
        keep has failed, and all results come at the end.
    commitment_port : int or None
        Local port for the peer's storage commitment result; without it the result must
        come on our association.
    commitment_timeout : float
        Seconds to wait for that result.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    storage_commitment: bool = False
    commitment_port: int | None = None
    commitment_timeout: float = 60.0

    def __post_init__(self) -> None:
        if not is_valid_host(self.host):
            raise ValueError("host must be a name or address")
        validate_port(self.port)
        validate_ae_titles(called_ae=self.called_ae, calling_ae=self.calling_ae)
        if self.commitment_port is not None:
            validate_port(self.commitment_port, "commitment_port")
        validate_timeouts(timeout=self.timeout, commitment_timeout=self.commitment_timeout)

    def check(self) -> str:
        """Read the files of TLS; see `Destination.check`."""
        make_ae(self.calling_ae, self.timeout)
        if self.tls:
            self.tls.client_context()
            if self.storage_commitment and self.commitment_port is not None:
                self.tls.server_context()
        return ""

    def send(
        self, files: Sequence[Path], stop: Callable[[], bool] = never_stop
    ) -> Generator[SendResult, None, None]:
        """Store files over as few associations as their presentation contexts allow.

        See `Destination.send`. A file's data set is sent byte for byte from the disk if the
        peer accepts its transfer syntax, else it is transcoded to an uncompressed one.
        """
        self.check()
        scu = StorageCommitmentScu(self, self.commitment_port, self.commitment_timeout)
        if self.storage_commitment:
            scu.check()
        with quiet_libraries():
            if self.storage_commitment:
                yield from self._send_with_commitment(files, scu, stop)
            else:
                yield from (result for result, _ in self._store(files, stop))

    def _send_with_commitment(
        self, files: Sequence[Path], scu: StorageCommitmentScu, stop: Callable[[], bool]
    ) -> Iterator[SendResult]:
        results = list(self._store(files, stop))
        stored = [header for result, header in results if result.is_stored and header]
        commitments = scu.request(stored) if stored else {}
        for result, header in results:
            if not (result.is_stored and header):
                yield result
                continue
            commitment = commitments[header.sop_instance]
            if commitment.committed:
                yield replace(result, committed=True)
            else:
                message = f"stored, but not committed: {commitment.message}"
                yield replace(
                    result, outcome=SendOutcome.FAILED, message=message, status=commitment.reason
                )

    def _store(
        self, files: Sequence[Path], stop: Callable[[], bool]
    ) -> Iterator[tuple[SendResult, FileHeader | None]]:
        for group in _group_by_association(files):
            # Closed early, it releases its association before commitment is requested.
            with closing(_StoreSession(self, group).run()) as session:
                for result in session:
                    yield result
                    if stop():
                        return


def _group_by_association(files: Sequence[Path]) -> Iterator[list[_Item]]:
    """Read the headers of files, in groups whose contexts fit into one association."""
    group: list[_Item] = []
    contexts: frozenset[Context] = frozenset()
    for path in files:
        item = _read_header(path)
        needed = item.contexts if isinstance(item, FileHeader) else frozenset()
        if len(contexts | needed) > MAX_CONTEXTS or len(group) == _MAX_FILES_PER_ASSOCIATION:
            yield group
            group, contexts = [], frozenset()
        group.append(item)
        contexts |= needed
    if group:
        yield group


def _read_header(path: Path) -> _Item:
    try:
        return FileHeader.read(path)
    except Exception as error:
        return file_failure(path, to_reportable_error(error))


class _StoreSession:
    """Sends a group of files, over a new association each time one is lost.

    A file is tried on two associations and then fails, so that a file that crashes the peer
    does not stop the others.
    """

    def __init__(self, peer: RemoteAE, group: Sequence[_Item]) -> None:
        self._peer = peer
        self._pending = deque(group)
        self._in_flight: FileHeader | None = None
        self._suspect: FileHeader | None = None
        """The file that was in flight when the last association was lost."""
        self._message_numbers = count()

    def run(self) -> Generator[tuple[SendResult, FileHeader | None], None, None]:
        losses = 0
        while self._pending and losses < _MAX_LOST_ASSOCIATIONS:
            try:
                yield from self._associate()
            except AssociationFailedError as error:
                yield from self._give_up(error.outcome, str(error), sender_rejected=True)
            except PartialSendError:
                pass  # not the peer's fault, and the file has its result
            except AssociationLostError as error:
                losses += 1
                _LOG.info("the association with %s was lost: %s", self._peer, error)
                in_flight, self._in_flight = self._in_flight, None
                if in_flight is None:
                    continue
                if in_flight is self._suspect:
                    self._pending.popleft()
                    reason = f"the association with {self._peer} was lost: {error}"
                    yield SendResult(in_flight.path, SendOutcome.FAILED, reason), in_flight
                self._suspect = in_flight
        yield from self._give_up(
            SendOutcome.FAILED, f"too many associations with {self._peer} were lost"
        )

    def _give_up(
        self, outcome: SendOutcome, reason: str, *, sender_rejected: bool = False
    ) -> Iterator[tuple[SendResult, FileHeader | None]]:
        while self._pending:
            item = self._pending.popleft()
            if isinstance(item, SendResult):
                yield item, None
            else:
                result = SendResult(item.path, outcome, reason, sender_rejected=sender_rejected)
                yield result, item

    def _associate(self) -> Iterator[tuple[SendResult, FileHeader | None]]:
        while self._pending and isinstance(item := self._pending[0], SendResult):
            self._pending.popleft()
            yield item, None
        if not self._pending:
            return
        headers = [item for item in self._pending if isinstance(item, FileHeader)]
        contexts = frozenset[Context]().union(*(header.contexts for header in headers))
        with self._peer.association(sorted(contexts)) as association:
            while self._pending:
                item = self._pending[0]
                if isinstance(item, SendResult):
                    self._pending.popleft()
                    yield item, None
                    continue
                try:
                    result = self._send(association, item)
                except UnreadableFileError as error:
                    self._pending.popleft()
                    yield file_failure(item.path, error), item
                    if isinstance(error, PartialSendError):
                        raise
                    continue
                self._pending.popleft()
                yield result, item

    def _send(self, association: "Association", header: FileHeader) -> SendResult:
        """Send a file as it is if the peer accepts that, else uncompressed."""
        accepted = accepted_syntaxes(association, header.sop_class)
        if header.syntax in accepted:
            return self._store(association, header, header.path)
        fallback = next((syntax for syntax in FALLBACK_SYNTAXES if syntax in accepted), None)
        if fallback is None:
            reason = explain_rejected_context(association, header.sop_class)
            return SendResult(header.path, SendOutcome.REFUSED, f"{self._peer} {reason}")
        with scratch_folder("send") as folder:
            transcoded = folder / "transcoded.dcm"
            try:
                with ensure_unchanged(header.path):
                    try:
                        transcode(header.path, fallback, transcoded)
                    except OSError as error:
                        reason = f"cannot transcode it in {folder}: {error.strerror or 'I/O error'}"
                        return SendResult(
                            header.path, SendOutcome.FAILED, reason, decided_by_peer=False
                        )
            # A defect that one file shows does not stop the others.
            except Exception as error:
                result = file_failure(header.path, to_reportable_error(error))
                return replace(
                    result, message=f"{self._peer} accepts it only uncompressed: {error}"
                )
            return self._store(association, header, transcoded)

    def _store(self, association: "Association", header: FileHeader, encoded: Path) -> SendResult:
        from cxrsr_cli.send.pynetdicom_patches import send_file

        message_id = next(self._message_numbers) % _MAX_MESSAGE_ID + 1
        if not association.is_established:
            raise AssociationLostError("the peer ended it")
        with ensure_unchanged(encoded):
            self._in_flight = header
            try:
                status = send_file(association, encoded, message_id)
            except RuntimeError:  # pynetdicom's for an association that is not established
                self._in_flight = None
                raise AssociationLostError("the peer ended it") from None
            except queue.Full:
                raise AssociationLostError("the peer accepts no more data") from None
            except OSError as error:
                reason = error.strerror or "I/O error"
                raise PartialSendError(f"cannot read the file ({reason})") from None
        if status is None:
            raise AssociationLostError("no answer")
        self._in_flight = None
        outcome, reason = classify_status(status)
        message = f"{self._peer}: {reason}" if reason else ""
        return SendResult(header.path, outcome, message, status)
