"""Destinations by the URL that a user writes on the command line."""

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
    """Options for a destination; None for its defaults.

    Attributes
    ----------
    timeout : float or None
        Seconds to wait for connecting, sending and replies.
    tls : TlsConfig or None
        For ``dicoms`` and ``https``.
    calling_ae : str or None
        For C-STORE only, as are the options of storage commitment.
    storage_commitment : bool
        Whether storage commitment is requested.
    commitment_timeout : float or None
        Seconds to wait for its result.
    commitment_port : int or None
        Local port for its result.
    username, password_file, token_file
        For DICOMweb only, as in `StowDestination`.
    """

    timeout: float | None = None
    tls: TlsConfig | None = None
    calling_ae: str | None = None
    storage_commitment: bool = False
    commitment_timeout: float | None = None
    commitment_port: int | None = None
    username: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None


def parse_destination(url: str, options: SendOptions) -> Destination:
    """Return the destination at a URL.

    Parameters
    ----------
    url : str
        ``dicom://CALLED_AE@HOST:PORT``, ``dicoms://…`` for TLS, or the root of a
        DICOMweb service.
    options : SendOptions
        Options that the user gave.

    Raises
    ------
    UsageError
        If the URL has another form, or an option is not for it. The URL is not quoted,
        as it may contain a password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"DESTINATION is not {_FORMS}") from None
    try:
        if parts.scheme in ("dicom", "dicoms") and host and port:
            return _c_store_destination(parts, host, port, options)
        if parts.scheme in ("http", "https"):
            return _stow_destination(url, options)
    except ValueError as error:
        raise UsageError(f"DESTINATION: {error}") from None
    raise UsageError(f"DESTINATION is not {_FORMS}")


def _c_store_destination(
    parts: SplitResult, host: str, port: int, options: SendOptions
) -> CStoreDestination:
    if options.username or options.password_file or options.token_file:
        raise UsageError("user, password and token are for DICOMweb; dicoms:// has certificates")
    if not parts.username or parts.password is not None:
        raise UsageError(f"DESTINATION is not {_FORMS}")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError("DESTINATION must end with its port")
    is_secure = parts.scheme == "dicoms"
    if options.tls and not is_secure:
        raise UsageError("--cert, --key and --ca-file need dicoms://")
    if not options.storage_commitment and (
        options.commitment_timeout is not None or options.commitment_port is not None
    ):
        raise UsageError("--commitment-timeout and --commitment-port need --commitment")
    return CStoreDestination(
        host=host,
        port=port,
        called_ae=unquote(parts.username),
        tls=(options.tls or TlsConfig()) if is_secure else None,
        storage_commitment=options.storage_commitment,
        **_without_none(
            calling_ae=options.calling_ae,
            timeout=options.timeout,
            commitment_port=options.commitment_port,
            commitment_timeout=options.commitment_timeout,
        ),
    )


def _stow_destination(url: str, options: SendOptions) -> StowDestination:
    dimse_only = (options.calling_ae, options.commitment_timeout, options.commitment_port)
    if options.storage_commitment or dimse_only != (None, None, None):
        raise UsageError("AE titles and storage commitment are not for DICOMweb")
    return StowDestination(
        url=url,
        username=options.username,
        password_file=options.password_file,
        token_file=options.token_file,
        tls=options.tls,
        **_without_none(timeout=options.timeout),
    )


def _without_none(**options: object) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
