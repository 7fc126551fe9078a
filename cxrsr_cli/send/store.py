"""C-STORE as its user: files to an archive, each in its own transfer syntax (PS3.4 annex B)."""

import logging
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrsr_cli.common.files import ensure_unchanged
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.connections.destination import (
    SendOutcome,
    SendResult,
    _never_stop,
    is_valid_host,
    validate_timeouts,
)
from cxrsr_cli.connections.dimse_status import classify_status
from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.errors import CxrsrError, UnreadableFileError
from cxrsr_cli.send.association import (
    MAX_CONTEXTS,
    RemoteAE,
    accepted_syntaxes,
    check_ae_title,
    check_port,
    explain_rejected_context,
    make_ae,
)
from cxrsr_cli.send.file_header import FALLBACK_SYNTAXES, Context, FileHeader, file_failure
from cxrsr_cli.send.pynetdicom_patches import (
    AssociationFailedError,
    AssociationLostError,
    PartialSendError,
)
from cxrsr_cli.send.storage_commitment import SopReference, StorageCommitmentScu
from cxrsr_cli.send.transcode import transcode

if TYPE_CHECKING:
    from pynetdicom.association import Association

_LOG = logging.getLogger(__name__)

_MAX_FILES_PER_ASSOCIATION = 1000
"""Files whose beginnings are read before their association is requested."""
_MAX_LOST_ASSOCIATIONS = 3
"""Associations that may break off before what is left has failed."""
_MAX_MESSAGE_ID = 0xFFFF

_Item = FileHeader | SendResult
"""What is to be offered, or why it cannot be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CStoreDestination:
    """An application entity that stores.

    Attributes
    ----------
    host : str
        Name or address; with TLS its certificate must be for it.
    port : int
        Of TCP.
    called_ae, calling_ae : str
        Its Application Entity title, and ours.
    tls : TlsFiles or None
        None for no TLS.
    timeout : float
        Seconds in which it must answer, or take what is sent.
    commitment : bool
        Ask it to keep what it took (PS3.4 annex J). What it does not promise to
        keep has failed, and what became of the files is told at the end.
    commitment_port : int or None
        Where it may call us to answer that; else it must on our association.
    commitment_timeout : float
        Seconds in which it must answer that.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    host: str
    port: int
    called_ae: str
    calling_ae: str = "CXRSR"
    tls: TlsConfig | None = None
    timeout: float = 30.0
    commitment: bool = False
    commitment_port: int | None = None
    commitment_timeout: float = 60.0

    def __post_init__(self) -> None:
        if not is_valid_host(self.host):
            raise ValueError("host must be a name or address")
        check_port(self.port)
        check_ae_title(self.called_ae)
        check_ae_title(self.calling_ae)
        if self.commitment_port is not None:
            check_port(self.commitment_port)
        validate_timeouts(timeout=self.timeout, commitment_timeout=self.commitment_timeout)

    def check(self) -> str:
        """Read the files of TLS; as `Destination.check`."""
        make_ae(self.calling_ae, self.timeout)
        if self.tls:
            self.tls.client_context()
            if self.commitment and self.commitment_port is not None:
                self.tls.server_context()
        return ""

    def send(
        self, files: Sequence[Path], stop: Callable[[], bool] = _never_stop
    ) -> Iterator[SendResult]:
        """Store files, on as few associations as hold their presentation contexts.

        As `Destination.send`. A file goes byte for byte, from the disk, if the
        peer takes its transfer syntax; else uncompressed (`convert`), in memory.
        """
        self.check()
        service = StorageCommitmentScu(self._peer, self.commitment_port, self.commitment_timeout)
        if self.commitment:
            service.check()
        with quiet_libraries():
            if self.commitment:
                yield from self._committed(files, service, stop)
            else:
                yield from (sent for sent, _ in self._stored(files, stop))

    @property
    def _peer(self) -> RemoteAE:
        return RemoteAE(
            host=self.host,
            port=self.port,
            called_ae=self.called_ae,
            calling_ae=self.calling_ae,
            tls=self.tls,
            timeout=self.timeout,
        )

    def _committed(
        self, files: Sequence[Path], service: StorageCommitmentScu, stop: Callable[[], bool]
    ) -> Iterator[SendResult]:
        stored = list(self._stored(files, stop))
        references = [
            SopReference(instance.sop_class, instance.sop_instance)
            for sent, instance in stored
            if sent.is_stored and instance
        ]
        answers = service.request(references) if references else {}
        for sent, instance in stored:
            if not (sent.is_stored and instance):
                yield sent
                continue
            answer = answers[instance.sop_instance]
            if answer.committed:
                yield replace(sent, committed=True)
            else:
                message = f"stored, but not committed: {answer.message}"
                yield replace(
                    sent, outcome=SendOutcome.FAILED, message=message, status=answer.reason
                )

    def _stored(
        self, files: Sequence[Path], stop: Callable[[], bool]
    ) -> Iterator[tuple[SendResult, FileHeader | None]]:
        for group in _groups(files):
            # Closed early, it releases its association before commitment is asked for.
            with closing(_StoreSession(self._peer, group).run()) as sending:
                for told in sending:
                    yield told
                    if stop():
                        return


def _groups(files: Sequence[Path]) -> Iterator[list[_Item]]:
    """Read the beginnings of files, in groups that an association can hold."""
    group: list[_Item] = []
    contexts: frozenset[Context] = frozenset()
    for path in files:
        item = _read(path)
        needed = item.contexts if isinstance(item, FileHeader) else frozenset()
        if len(contexts | needed) > MAX_CONTEXTS or len(group) == _MAX_FILES_PER_ASSOCIATION:
            yield group
            group, contexts = [], frozenset()
        group.append(item)
        contexts |= needed
    if group:
        yield group


def _read(path: Path) -> _Item:
    try:
        return FileHeader.read(path)
    except CxrsrError as error:
        return file_failure(path, error)


class _StoreSession:
    """Sends a group of files, over another association when one breaks off.

    A file is tried on two of them: what it does to the peer must not befall the others.
    """

    def __init__(self, peer: RemoteAE, group: Sequence[_Item]) -> None:
        self._peer = peer
        self._waiting = deque(group)
        self._offered: FileHeader | None = None
        self._suspect: FileHeader | None = None
        self._numbers = count()

    def run(self) -> Generator[tuple[SendResult, FileHeader | None], None, None]:
        losses = 0
        while self._waiting and losses < _MAX_LOST_ASSOCIATIONS:
            try:
                yield from self._associate()
            except AssociationFailedError as error:
                yield from self._give_up(error.outcome, str(error), about_us=True)
            except PartialSendError:
                pass  # no loss of the peer's: each such file has been told
            except AssociationLostError as error:
                losses += 1
                _LOG.info("the association with %s was lost: %s", self._peer, error)
                offered, self._offered = self._offered, None
                if offered is None:
                    continue
                if offered is self._suspect:
                    self._waiting.popleft()
                    reason = f"{self._peer} broke off: {error}"
                    yield SendResult(offered.path, SendOutcome.FAILED, reason), offered
                self._suspect = offered
        yield from self._give_up(SendOutcome.FAILED, f"{self._peer} broke off too often")

    def _give_up(
        self, outcome: SendOutcome, reason: str, *, about_us: bool = False
    ) -> Iterator[tuple[SendResult, FileHeader | None]]:
        while self._waiting:
            item = self._waiting.popleft()
            if isinstance(item, SendResult):
                yield item, None
            else:
                yield SendResult(item.path, outcome, reason, sender_rejected=about_us), item

    def _associate(self) -> Iterator[tuple[SendResult, FileHeader | None]]:
        while self._waiting and isinstance(item := self._waiting[0], SendResult):
            self._waiting.popleft()
            yield item, None
        if not self._waiting:
            return
        instances = [item for item in self._waiting if isinstance(item, FileHeader)]
        contexts = frozenset[Context]().union(*(instance.contexts for instance in instances))
        with self._peer.association(sorted(contexts)) as association:
            while self._waiting:
                item = self._waiting[0]
                if isinstance(item, SendResult):
                    self._waiting.popleft()
                    yield item, None
                    continue
                try:
                    sent = self._offer(association, item)
                except UnreadableFileError as error:
                    self._waiting.popleft()
                    yield file_failure(item.path, error), item
                    if isinstance(error, PartialSendError):
                        raise
                    continue
                self._waiting.popleft()
                yield sent, item

    def _offer(self, association: "Association", instance: FileHeader) -> SendResult:
        """Send a file as it is if the peer takes it so, else uncompressed."""
        taken = accepted_syntaxes(association, instance.sop_class)
        if instance.syntax in taken:
            return self._store(association, instance, instance.path)
        plain = next((syntax for syntax in FALLBACK_SYNTAXES if syntax in taken), None)
        if plain is None:
            reason = explain_rejected_context(association, instance.sop_class)
            return SendResult(instance.path, SendOutcome.REFUSED, f"{self._peer} {reason}")
        with tempfile.TemporaryDirectory(prefix="cxrsr-") as folder:
            converted = Path(folder, "converted.dcm")
            try:
                with ensure_unchanged(instance.path):
                    try:
                        transcode(instance.path, plain, converted)
                    except OSError as error:
                        reason = f"cannot convert it in {folder}: {error.strerror or 'I/O error'}"
                        return SendResult(
                            instance.path, SendOutcome.FAILED, reason, decided_by_peer=False
                        )
            except CxrsrError as error:
                sent = file_failure(instance.path, error)
                return replace(sent, message=f"{self._peer} takes it uncompressed only: {error}")
            return self._store(association, instance, converted)

    def _store(self, association: "Association", instance: FileHeader, encoded: Path) -> SendResult:
        number = next(self._numbers) % _MAX_MESSAGE_ID + 1
        if not association.is_established:
            raise AssociationLostError("it ended the association")
        with ensure_unchanged(encoded):
            self._offered = instance
            try:
                answer = association.send_c_store(encoded, number, 0)
            except RuntimeError:  # so pynetdicom says that it is gone
                self._offered = None
                raise AssociationLostError("it ended the association") from None
            except OSError as error:
                reason = error.strerror or "I/O error"
                raise PartialSendError(f"cannot read the file ({reason})") from None
        status = answer.get("Status")
        if status is None:
            raise AssociationLostError("no answer")
        self._offered = None
        outcome, reason = classify_status(status)
        message = f"{self._peer}: {reason}" if reason else ""
        return SendResult(instance.path, outcome, message, status)
