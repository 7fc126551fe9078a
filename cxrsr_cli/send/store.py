"""C-STORE as its user: files to an archive, each in its own transfer syntax (PS3.4 annex B)."""

import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrsr_cli.errors import CxrsrError, NotReadableError
from cxrsr_cli.read.fingerprint import kept_still
from cxrsr_cli.read.silence import quiet_pydicom
from cxrsr_cli.send.association import (
    MOST_CONTEXTS,
    Peer,
    accepted_syntaxes,
    application_entity,
    check_ae_title,
    check_port,
    why_not_taken,
)
from cxrsr_cli.send.commitment import CommitmentScp, Reference
from cxrsr_cli.send.conversion import convert
from cxrsr_cli.send.destination import Outcome, Sent, check_seconds, is_host, never
from cxrsr_cli.send.failures import BrokenOffError, HalfSentError, NotAssociatedError
from cxrsr_cli.send.instance import PLAIN, Context, Instance, unfit
from cxrsr_cli.send.status import judge
from cxrsr_cli.send.tls import TlsFiles

if TYPE_CHECKING:
    from pynetdicom.association import Association

_MOST_FILES = 1000
"""Files whose beginnings are read before their association is requested."""
_MOST_LOSSES = 3
"""Associations that may break off before what is left has failed."""
_HIGHEST_MESSAGE_ID = 0xFFFF

_Item = Instance | Sent
"""What is to be offered, or why it cannot be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreScp:
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
    tls: TlsFiles | None = None
    timeout: float = 30.0
    commitment: bool = False
    commitment_port: int | None = None
    commitment_timeout: float = 60.0

    def __post_init__(self) -> None:
        if not is_host(self.host):
            raise ValueError("host must be a name or address")
        check_port(self.port)
        check_ae_title(self.called_ae)
        check_ae_title(self.calling_ae)
        if self.commitment_port is not None:
            check_port(self.commitment_port)
        check_seconds(timeout=self.timeout, commitment_timeout=self.commitment_timeout)

    def check(self) -> str:
        """Read the files of TLS; as `Destination.check`."""
        application_entity(self.calling_ae, self.timeout)
        if self.tls:
            self.tls.client_context()
            if self.commitment and self.commitment_port is not None:
                self.tls.server_context()
        return ""

    def send(self, files: Sequence[Path], stop: Callable[[], bool] = never) -> Iterator[Sent]:
        """Store files, on as few associations as hold their presentation contexts.

        As `Destination.send`. A file goes byte for byte, from the disk, if the
        peer takes its transfer syntax; else uncompressed (`convert`), in memory.
        """
        self.check()
        service = CommitmentScp(self._peer, self.commitment_port, self.commitment_timeout)
        if self.commitment:
            service.check()
        with quiet_pydicom():
            if self.commitment:
                yield from self._committed(files, service, stop)
            else:
                yield from (sent for sent, _ in self._stored(files, stop))

    @property
    def _peer(self) -> Peer:
        return Peer(
            host=self.host,
            port=self.port,
            called_ae=self.called_ae,
            calling_ae=self.calling_ae,
            tls=self.tls,
            timeout=self.timeout,
        )

    def _committed(
        self, files: Sequence[Path], service: CommitmentScp, stop: Callable[[], bool]
    ) -> Iterator[Sent]:
        stored = list(self._stored(files, stop))
        references = [
            Reference(instance.sop_class, instance.sop_instance)
            for sent, instance in stored
            if sent.arrived and instance
        ]
        answers = service.request(references) if references else {}
        for sent, instance in stored:
            if not (sent.arrived and instance):
                yield sent
                continue
            answer = answers[instance.sop_instance]
            if answer.committed:
                yield replace(sent, committed=True)
            else:
                message = f"stored, but not committed: {answer.message}"
                yield replace(sent, outcome=Outcome.FAILED, message=message, status=answer.reason)

    def _stored(
        self, files: Sequence[Path], stop: Callable[[], bool]
    ) -> Iterator[tuple[Sent, Instance | None]]:
        for group in _groups(files):
            # Closed early, it releases its association before commitment is asked for.
            with closing(_Sending(self._peer, group).run()) as sending:
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
        needed = item.contexts if isinstance(item, Instance) else frozenset()
        if len(contexts | needed) > MOST_CONTEXTS or len(group) == _MOST_FILES:
            yield group
            group, contexts = [], frozenset()
        group.append(item)
        contexts |= needed
    if group:
        yield group


def _read(path: Path) -> _Item:
    try:
        return Instance.read(path)
    except CxrsrError as error:
        return unfit(path, error)


class _Sending:
    """Sends a group of files, over another association when one breaks off.

    A file is tried on two of them: what it does to the peer must not befall the others.
    """

    def __init__(self, peer: Peer, group: Sequence[_Item]) -> None:
        self._peer = peer
        self._waiting = deque(group)
        self._offered: Instance | None = None
        self._suspect: Instance | None = None
        self._numbers = count()

    def run(self) -> Generator[tuple[Sent, Instance | None], None, None]:
        losses = 0
        while self._waiting and losses < _MOST_LOSSES:
            try:
                yield from self._associate()
            except NotAssociatedError as error:
                yield from self._give_up(error.outcome, str(error), about_us=True)
            except HalfSentError:
                pass  # no loss of the peer's: each such file has been told
            except BrokenOffError as error:
                losses += 1
                offered, self._offered = self._offered, None
                if offered is None:
                    continue
                if offered is self._suspect:
                    self._waiting.popleft()
                    reason = f"{self._peer} broke off: {error}"
                    yield Sent(offered.path, Outcome.FAILED, reason), offered
                self._suspect = offered
        yield from self._give_up(Outcome.FAILED, f"{self._peer} broke off too often")

    def _give_up(
        self, outcome: Outcome, reason: str, *, about_us: bool = False
    ) -> Iterator[tuple[Sent, Instance | None]]:
        while self._waiting:
            item = self._waiting.popleft()
            if isinstance(item, Sent):
                yield item, None
            else:
                yield Sent(item.path, outcome, reason, about_us=about_us), item

    def _associate(self) -> Iterator[tuple[Sent, Instance | None]]:
        while self._waiting and isinstance(item := self._waiting[0], Sent):
            self._waiting.popleft()
            yield item, None
        if not self._waiting:
            return
        instances = [item for item in self._waiting if isinstance(item, Instance)]
        contexts = frozenset[Context]().union(*(instance.contexts for instance in instances))
        with self._peer.association(sorted(contexts)) as association:
            while self._waiting:
                item = self._waiting[0]
                if isinstance(item, Sent):
                    self._waiting.popleft()
                    yield item, None
                    continue
                try:
                    sent = self._offer(association, item)
                except NotReadableError as error:
                    self._waiting.popleft()
                    yield unfit(item.path, error), item
                    if isinstance(error, HalfSentError):
                        raise
                    continue
                self._waiting.popleft()
                yield sent, item

    def _offer(self, association: "Association", instance: Instance) -> Sent:
        """Send a file as it is if the peer takes it so, else uncompressed."""
        taken = accepted_syntaxes(association, instance.sop_class)
        if instance.syntax in taken:
            return self._store(association, instance, instance.path)
        plain = next((syntax for syntax in PLAIN if syntax in taken), None)
        if plain is None:
            reason = why_not_taken(association, instance.sop_class)
            return Sent(instance.path, Outcome.REFUSED, f"{self._peer} {reason}")
        with tempfile.TemporaryDirectory(prefix="cxrsr-") as folder:
            converted = Path(folder, "converted.dcm")
            try:
                with kept_still(instance.path):
                    try:
                        convert(instance.path, plain, converted)
                    except OSError as error:
                        reason = f"cannot convert it in {folder}: {error.strerror or 'I/O error'}"
                        return Sent(instance.path, Outcome.FAILED, reason, by_peer=False)
            except CxrsrError as error:
                sent = unfit(instance.path, error)
                return replace(sent, message=f"{self._peer} takes it uncompressed only: {error}")
            return self._store(association, instance, converted)

    def _store(self, association: "Association", instance: Instance, encoded: Path) -> Sent:
        number = next(self._numbers) % _HIGHEST_MESSAGE_ID + 1
        if not association.is_established:
            raise BrokenOffError("it ended the association")
        with kept_still(encoded):
            self._offered = instance
            try:
                answer = association.send_c_store(encoded, number, 0)
            except RuntimeError:  # so pynetdicom says that it is gone
                self._offered = None
                raise BrokenOffError("it ended the association") from None
            except OSError as error:
                reason = error.strerror or "I/O error"
                raise HalfSentError(f"cannot read the file ({reason})") from None
        status = answer.get("Status")
        if status is None:
            raise BrokenOffError("no answer")
        self._offered = None
        outcome, reason = judge(status)
        message = f"{self._peer}: {reason}" if reason else ""
        return Sent(instance.path, outcome, message, status)
