"""TLS for clients and servers, from PEM files (PS3.15 B.12: the BCP 195 profile)."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cxrsr_cli.errors import UsageError

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2, as RFC 9325 4.2 recommends; all ciphers of TLS 1.3 are allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Our certificate, and the authorities that we trust.

    Attributes
    ----------
    certificate : Path or None
        PEM: our certificate, then intermediate certificates.
    key : Path or None
        PEM, not encrypted; by default in the file of the certificate.
    ca_file : Path or None
        PEM: certificate authorities to trust instead of the system's.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    certificate: Path | None = None
    key: Path | None = None
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        if self.key and not self.certificate:
            raise ValueError("a TLS key needs a certificate")

    def client_context(self) -> ssl.SSLContext:
        """Return a context that verifies the server and its name, and presents our certificate.

        Raises
        ------
        UsageError
            Naming a file that is missing or invalid.
        """
        # Not create_default_context: it writes session keys to a file named by SSLKEYLOGFILE.
        context = _context(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca_file:
            _trust(context, self.ca_file)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if self.certificate:
            _present(context, self.certificate, self.key)
        return context

    def server_context(self) -> ssl.SSLContext:
        """Return a context that presents our certificate.

        With `ca_file`, clients need a certificate from one of its authorities.

        Raises
        ------
        UsageError
            If there is no certificate, or a file is missing or invalid.
        """
        if not self.certificate:
            raise UsageError("a TLS server needs a certificate and its key")
        context = _context(ssl.PROTOCOL_TLS_SERVER)
        _present(context, self.certificate, self.key)
        if self.ca_file:
            _trust(context, self.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    return context


def _trust(context: ssl.SSLContext, ca_file: Path) -> None:
    _check(ca_file, _CERTIFICATE, "certificate")
    try:
        context.load_verify_locations(ca_file)
    except ssl.SSLError:
        raise UsageError(f"{ca_file} contains a damaged certificate") from None


def _present(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    _check(certificate, _CERTIFICATE, "certificate")
    _check(key or certificate, _KEY, "private key")
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except ssl.SSLError:
        raise UsageError(
            f"the key in {key or certificate} is encrypted or damaged, "
            f"or does not belong to the certificate in {certificate}"
        ) from None


def _check(path: Path, marker: bytes, what: str) -> None:
    try:
        found = marker in path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    if not found:
        raise UsageError(f"{path} contains no {what} in PEM format")
