"""Associations as their requestor (PS3.8 7.1)."""

import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from pydicom.uid import UID

from cxrsr_cli.connections.destination import SendOutcome
from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.dicom.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from cxrsr_cli.errors import MissingExtraError, NetworkError
from cxrsr_cli.send.file_header import Context

if TYPE_CHECKING:
    from pynetdicom.ae import ApplicationEntity
    from pynetdicom.association import Association
    from pynetdicom.events import EventHandlerType
    from pynetdicom.pdu_primitives import A_ASSOCIATE

MAX_CONTEXTS = 128
"""Presentation contexts of an association: IDs are the odd numbers of a byte (PS3.8 9.3.2.2)."""

_REJECTION_REASONS = {
    (1, 2): "it does not support DICOM's application context",
    (1, 3): "it does not know the calling AE title",
    (1, 7): "it does not know the called AE title",
    (2, 2): "it does not support the protocol version",
    (3, 1): "it is congested",
    (3, 2): "it has reached its limit of associations",
}
"""By source and diagnostic (PS3.8 table 9-21)."""
_PERMANENT = 1
"""Result of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
_ABSTRACT_SYNTAX_NOT_SUPPORTED, _TRANSFER_SYNTAXES_NOT_SUPPORTED = 3, 4
"""Results of a presentation context (PS3.8 table 9-18)."""


class AssociationLostError(NetworkError):
    """The association ended before the peer answered; the message says why."""


class AssociationFailedError(NetworkError):
    """There is no association; `outcome` is that of the files."""

    def __init__(self, outcome: SendOutcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


def make_ae(title: str, timeout: float) -> "ApplicationEntity":
    """Return our application entity, which waits `timeout` seconds for the peer.

    Raises
    ------
    MissingExtraError
        If pynetdicom is not installed.
    """
    try:
        from cxrsr_cli.send.pynetdicom_patches import PatchedAE
    except ImportError:
        raise MissingExtraError("C-STORE needs pip install 'cxrsr[net]'") from None
    ae = PatchedAE(title)
    # The defaults are pynetdicom's own.
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = timeout
    ae.network_timeout = None
    return ae


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAE:
    """An application entity that we call.

    Attributes
    ----------
    host : str
        Name or address; with TLS its certificate must be for it.
    port : int
        TCP port.
    called_ae, calling_ae : str
        Its Application Entity title, and ours.
    tls : TlsConfig or None
        None for no TLS.
    timeout : float
        Seconds to wait for connecting, sending and replies.
    """

    host: str
    port: int
    called_ae: str
    calling_ae: str = "CXRSR"
    tls: TlsConfig | None = None
    timeout: float = 30.0

    def __str__(self) -> str:
        return f"{self.called_ae} at {self.host}:{self.port}"

    @contextmanager
    def association(
        self, contexts: Iterable[Context], handlers: "Sequence[EventHandlerType]" = ()
    ) -> "Iterator[Association]":
        """Open an association; the end of the block releases it, an exception aborts it.

        Parameters
        ----------
        contexts : iterable of Context
            Presentation contexts to propose, `MAX_CONTEXTS` at most.
        handlers : sequence
            As `pynetdicom.AE.associate` takes them.

        Yields
        ------
        pynetdicom.association.Association
            Not established if the peer accepted no presentation context.

        Raises
        ------
        AssociationFailedError
            If the peer cannot be reached, rejects or closes the connection.
        UsageError
            If a file of `tls` is missing or invalid.
        MissingExtraError
            If pynetdicom is not installed.
        """
        ae = make_ae(self.calling_ae, self.timeout)
        from pynetdicom import evt
        from pynetdicom.presentation import build_context

        from cxrsr_cli.send.pynetdicom_patches import (
            abort_association,
            drop_pending_pdus,
            harden_association,
            release_association,
        )

        context = self.tls.client_context() if self.tls else None
        connections: list[object] = []
        try:
            association = ae.associate(
                self.host,
                self.port,
                [build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in contexts],
                self.called_ae,
                tls_args=(context, self.host) if context else None,
                evt_handlers=[
                    (evt.EVT_CONN_OPEN, connections.append),
                    (evt.EVT_CONN_CLOSE, drop_pending_pdus),
                    *handlers,
                ],
            )
        except OSError as error:
            raise self._unknown_host(error) from None
        if association.is_established:
            harden_association(association, self.timeout)
        elif not connections:
            reason = self._diagnose_connection(context)
            raise AssociationFailedError(SendOutcome.FAILED, f"no connection to {self}: {reason}")
        elif association.is_rejected:
            raise self._rejection(association)
        elif not association.rejected_contexts:
            raise AssociationFailedError(
                SendOutcome.FAILED, f"{self} closed the connection instead of answering"
            )
        try:
            yield association
            association.release()
        except GeneratorExit:  # the caller needs no more results
            release_association(association)
            raise
        except BaseException:
            abort_association(association)
            raise

    def local_address(self) -> str:
        """Return the address of this machine that faces the peer; nothing is sent."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)
            family, *_, address = found[0]
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(address)
                local: str = probe.getsockname()[0]
        except OSError as error:
            raise self._unknown_host(error) from None
        return local

    def _unknown_host(self, error: OSError) -> AssociationFailedError:
        message = f"cannot find {self.host}: {error.strerror}"
        return AssociationFailedError(SendOutcome.FAILED, message)

    def _rejection(self, association: "Association") -> AssociationFailedError:
        """Describe an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
        answer = cast("A_ASSOCIATE", association.acceptor.primitive)
        reason = _REJECTION_REASONS.get(
            (answer.result_source or 0, answer.diagnostic or 0), "no reason given"
        )
        if answer.result == _PERMANENT:
            return AssociationFailedError(
                SendOutcome.REFUSED, f"{self} rejects the association: {reason}"
            )
        return AssociationFailedError(
            SendOutcome.FAILED, f"{self} rejects the association for now: {reason}"
        )

    def _diagnose_connection(self, context: ssl.SSLContext | None) -> str:
        """Connect once more to get the reason, which pynetdicom only logs."""
        try:
            with socket.create_connection((self.host, self.port), self.timeout) as plain:
                if context:
                    context.wrap_socket(plain, server_hostname=self.host).close()
        except ssl.SSLCertVerificationError as error:
            return f"its certificate is not trusted ({error.verify_message})"
        except ssl.SSLError:
            return "no TLS version or cipher in common"
        except TimeoutError:
            return "no answer"
        except OSError as error:
            return error.strerror or "I/O error"
        return "it closed the connection"


def accepted_syntaxes(association: "Association", sop_class: UID) -> frozenset[UID]:
    """Return the transfer syntaxes in which the peer takes instances of a SOP Class."""
    return frozenset(
        context.transfer_syntax[0]
        for context in association.accepted_contexts
        if context.abstract_syntax == sop_class and context.as_scu
    )


def explain_rejected_context(association: "Association", sop_class: UID) -> str:
    """Return whether the peer rejects the SOP Class or its transfer syntaxes."""
    results = {
        context.result
        for context in association.rejected_contexts
        if context.abstract_syntax == sop_class
    }
    if _TRANSFER_SYNTAXES_NOT_SUPPORTED in results:
        return "accepts neither its transfer syntax nor an uncompressed one"
    if _ABSTRACT_SYNTAX_NOT_SUPPORTED in results:
        return "does not accept its SOP Class"
    return "accepts no presentation context for it"
