"""Destinations by the address that a user writes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from cxrsr_cli.connections.destination import Destination
from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.errors import UsageError
from cxrsr_cli.send.store import CStoreDestination
from cxrsr_cli.send.stow import StowDestination

_FORMS = "dicom://CALLED_AE@HOST:PORT, dicoms://CALLED_AE@HOST:PORT or https://HOST/ROOT"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """How a destination is spoken to; None for what is left to it.

    Attributes
    ----------
    timeout : float or None
        Seconds.
    tls : TlsFiles or None
        For ``dicoms`` and ``https``.
    calling_ae : str or None
        Of DICOM's network only, and so is `commitment`.
    commitment : bool
        Whether storage commitment is requested.
    commitment_timeout : float or None
        Seconds to wait for its result.
    commitment_port : int or None
        Where its answer may come to.
    username, password_file, token_file
        Of DICOMweb only, as `StowDestination`.
    """

    timeout: float | None = None
    tls: TlsConfig | None = None
    calling_ae: str | None = None
    commitment: bool = False
    commitment_timeout: float | None = None
    commitment_port: int | None = None
    username: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None


def parse_destination(address: str, manner: SendOptions) -> Destination:
    """Return the destination that an address names.

    Parameters
    ----------
    address : str
        ``dicom://CALLED_AE@HOST:PORT``, ``dicoms://…`` over TLS, or the root of
        a DICOMweb service.
    manner : Manner
        How it is spoken to.

    Raises
    ------
    UsageError
        If it is none of these, or something of `manner` is not for it. The
        address is not quoted: it may hold a password.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"DESTINATION is not {_FORMS}") from None
    try:
        if parts.scheme in ("dicom", "dicoms") and host and port:
            return _store_scp(parts, host, port, manner)
        if parts.scheme in ("http", "https"):
            return _stow_service(address, manner)
    except ValueError as error:
        raise UsageError(f"DESTINATION: {error}") from None
    raise UsageError(f"DESTINATION is not {_FORMS}")


def _store_scp(parts: SplitResult, host: str, port: int, manner: SendOptions) -> CStoreDestination:
    if manner.username or manner.password_file or manner.token_file:
        raise UsageError("user, password and token are for DICOMweb; dicoms:// has certificates")
    if not parts.username or parts.password is not None:
        raise UsageError(f"DESTINATION is not {_FORMS}")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError("DESTINATION must end with its port")
    secure = parts.scheme == "dicoms"
    if manner.tls and not secure:
        raise UsageError("certificate, key and authorities need dicoms://")
    timeout, port_for_result = manner.commitment_timeout, manner.commitment_port
    if not manner.commitment and (timeout, port_for_result) != (None, None):
        raise UsageError("--commitment-timeout and --commitment-port need --commitment")
    return CStoreDestination(
        host=host,
        port=port,
        called_ae=unquote(parts.username),
        tls=(manner.tls or TlsConfig()) if secure else None,
        commitment=manner.commitment,
        **_given(
            calling_ae=manner.calling_ae,
            timeout=manner.timeout,
            commitment_port=manner.commitment_port,
            commitment_timeout=manner.commitment_timeout,
        ),
    )


def _stow_service(address: str, manner: SendOptions) -> StowDestination:
    dimse_only = (manner.calling_ae, manner.commitment_timeout, manner.commitment_port)
    if manner.commitment or dimse_only != (None, None, None):
        raise UsageError("AE titles and storage commitment are not for DICOMweb")
    return StowDestination(
        url=address,
        username=manner.username,
        password_file=manner.password_file,
        token_file=manner.token_file,
        tls=manner.tls,
        **_given(timeout=manner.timeout),
    )


def _given(**options: object) -> dict[str, Any]:
    """Leave out what is left to the destination."""
    return {name: value for name, value in options.items() if value is not None}
