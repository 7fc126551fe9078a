"""Associations as their requestor (PS3.8 7), with what pynetdicom leaves to its callers."""

import re
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
from cxrsr_cli.errors import MissingExtraError
from cxrsr_cli.send.file_header import Context
from cxrsr_cli.send.pynetdicom_patches import AssociationFailedError

if TYPE_CHECKING:
    from pynetdicom.ae import ApplicationEntity
    from pynetdicom.association import Association
    from pynetdicom.events import EventHandlerType
    from pynetdicom.pdu_primitives import A_ASSOCIATE, SCP_SCU_RoleSelectionNegotiation

MAX_CONTEXTS = 128
"""Their identifiers are the odd numbers of a byte (PS3.8 9.3.2.2)."""

_AE_TITLE = re.compile(r"[ !-\[\]-~]{1,16}")
"""PS3.5 6.2: no backslash, no control character."""
_REASONS = {
    (1, 2): "it does not support DICOM's application context",
    (1, 3): "it does not know the calling AE title",
    (1, 7): "it does not know the called AE title",
    (2, 2): "it does not support the protocol's version",
    (3, 1): "it is congested",
    (3, 2): "it serves as many associations as it can",
}
"""By source and reason (PS3.8 table 9-21)."""


def check_ae_title(title: str) -> None:
    """Refuse what is no Application Entity title.

    Raises
    ------
    ValueError
        If it is none.
    """
    if not _AE_TITLE.fullmatch(title) or not title.strip():
        raise ValueError("an AE title has 1 to 16 ASCII characters, no backslash, not only blanks")


def check_port(port: int) -> None:
    """Refuse what is no TCP port; raises ValueError."""
    if not 0 < port < 1 << 16:
        raise ValueError("a port is a number from 1 to 65535")


def make_ae(title: str, timeout: float) -> "ApplicationEntity":
    """Return ours, patient to `timeout` seconds.

    Raises
    ------
    MissingExtraError
        If pynetdicom is not installed.
    """
    try:
        from cxrsr_cli.send.pynetdicom_patches import PatchedAE
    except ImportError:
        raise MissingExtraError("DICOM's network needs pip install 'cxrsr[net]'") from None
    entity = PatchedAE(title)
    # pynetdicom would give its own name.
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = timeout
    entity.network_timeout = None
    return entity


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAE:
    """An application entity that we call.

    Attributes
    ----------
    host : str
        Name or address.
    port : int
        Of TCP.
    called_ae, calling_ae : str
        Its Application Entity title, and ours.
    tls : TlsFiles or None
        None for no TLS.
    timeout : float
        Seconds in which it must answer, or take what is sent.
    """

    host: str
    port: int
    called_ae: str
    calling_ae: str
    tls: TlsConfig | None = None
    timeout: float = 30.0

    def __str__(self) -> str:
        return f"{self.called_ae} at {self.host}:{self.port}"

    @contextmanager
    def association(
        self,
        contexts: Iterable[Context],
        *,
        roles: "Sequence[SCP_SCU_RoleSelectionNegotiation]" = (),
        handlers: "Sequence[EventHandlerType]" = (),
    ) -> "Iterator[Association]":
        """Associate; release at the block's end, abort if it fails.

        Parameters
        ----------
        contexts : iterable
            To propose, `MAX_CONTEXTS` at most.
        roles, handlers : sequence
            As `pynetdicom.AE.associate` takes them.

        Yields
        ------
        pynetdicom.association.Association
            Not established if the peer accepted none of the contexts.

        Raises
        ------
        NotAssociatedError
            If the peer cannot be reached, rejects or breaks off.
        UsageError
            If a file of `tls` is not what it should be.
        MissingExtraError
            If pynetdicom is not installed.
        """
        entity = make_ae(self.calling_ae, self.timeout)
        from pynetdicom import evt
        from pynetdicom.presentation import build_context

        from cxrsr_cli.send.pynetdicom_patches import (
            abort_association,
            drop_pending_pdus,
            harden_association,
        )

        context = self.tls.client_context() if self.tls else None
        connected: list[object] = []
        try:
            association = entity.associate(
                self.host,
                self.port,
                [build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in contexts],
                self.called_ae,
                ext_neg=list(roles),
                tls_args=(context, self.host) if context else None,
                evt_handlers=[
                    (evt.EVT_CONN_OPEN, connected.append),
                    (evt.EVT_CONN_CLOSE, drop_pending_pdus),
                    *handlers,
                ],
            )
        except OSError as error:  # the host's name is unknown
            raise AssociationFailedError(
                SendOutcome.FAILED, f"cannot find {self.host}: {error.strerror}"
            ) from None
        if association.is_established:
            harden_association(association, self.timeout)
        elif not connected:
            raise AssociationFailedError(
                SendOutcome.FAILED, f"no connection to {self}: {self._diagnose_connection(context)}"
            )
        elif association.is_rejected:
            raise self._rejection(association)
        elif not association.rejected_contexts:
            raise AssociationFailedError(
                SendOutcome.FAILED, f"{self} broke off before an association"
            )
        try:
            yield association
        except GeneratorExit:  # nobody wants the rest
            association.release()
            raise
        except BaseException:
            abort_association(association)
            raise
        association.release()

    def _rejection(self, association: "Association") -> AssociationFailedError:
        """Put an A-ASSOCIATE-RJ in words (PS3.8 9.3.4)."""
        answer = cast("A_ASSOCIATE", association.acceptor.primitive)
        reason = _REASONS.get(
            (answer.result_source or 0, answer.diagnostic or 0), "no reason given"
        )
        if answer.result == 1:
            return AssociationFailedError(
                SendOutcome.REFUSED, f"{self} rejects the association: {reason}"
            )
        return AssociationFailedError(
            SendOutcome.FAILED, f"{self} rejects the association for the moment: {reason}"
        )

    def _diagnose_connection(self, context: ssl.SSLContext | None) -> str:
        """Connect once more for the reason, which pynetdicom only logs."""
        try:
            with socket.create_connection((self.host, self.port), self.timeout) as plain:
                if context:
                    context.wrap_socket(plain, server_hostname=self.host).close()
        except ssl.SSLCertVerificationError as error:
            return f"its certificate is not to be trusted ({error.verify_message})"
        except ssl.SSLError:
            return "no common TLS"
        except TimeoutError:
            return "no answer"
        except OSError as error:
            return error.strerror or "I/O error"
        return "broken off"


def accepted_syntaxes(association: "Association", sop_class: UID) -> frozenset[UID]:
    """Return the transfer syntaxes in which the peer takes instances of a SOP Class."""
    return frozenset(
        context.transfer_syntax[0]
        for context in association.accepted_contexts
        if context.abstract_syntax == sop_class and context.as_scu
    )


def explain_rejected_context(association: "Association", sop_class: UID) -> str:
    """Tell whether it is the SOP Class or its encodings (PS3.8 table 9-18)."""
    results = {
        context.result
        for context in association.rejected_contexts
        if context.abstract_syntax == sop_class
    }
    if 4 in results:
        return "takes neither its transfer syntax nor an uncompressed one"
    if 3 in results:
        return "does not take its SOP Class"
    return "accepts no presentation context for it"
