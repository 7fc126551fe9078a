"""STOW-RS as its client: files to a DICOMweb service (PS3.18 10.5)."""

import ipaddress
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pydicom.uid import UID

from cxrsr_cli.common.files import ensure_unchanged
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.connections.destination import (
    SendOutcome,
    SendResult,
    _never_stop,
    is_valid_host,
    validate_timeouts,
)
from cxrsr_cli.connections.dimse_status import DUPLICATE, classify_status
from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.errors import CxrsrError, MissingExtraError, NotDicomError, UsageError
from cxrsr_cli.send.file_header import FileHeader, file_failure
from cxrsr_cli.send.stow_client import MultipartRelatedFile

if TYPE_CHECKING:
    from requests import Response

    from cxrsr_cli.send.stow_client import StowClient

_STUDIES = "/studies"
_MAX_RESPONSE_BYTES = 1 << 20
_READ_CHUNK_BYTES = 1 << 16
_LATER = (408, 425, 429)
_NOT_LET_IN = (401, 403)
_ACCEPTED, _CONFLICT = 202, 409

_FAILED, _FAILED_OTHERWISE, _REFERENCED = "00081198", "0008119A", "00081199"
_REFERENCED_INSTANCE = "00081155"
_FAILURE_REASON, _WARNING_REASON = "00081197", "00081196"
"""Tags of the Store Instances Response (PS3.18 I.2), as in its JSON."""


_SAYS_NOT = "it does not say whether it has the file"


@dataclass(frozen=True, slots=True, kw_only=True)
class StowDestination:
    """A DICOMweb service that stores.

    Attributes
    ----------
    url : str
        Its root, to which ``/studies`` is added if it is not there.
    username : str or None
        For HTTP's Basic authentication.
    password_file : Path or None
        Its first line is the password.
    token_file : Path or None
        Its first line is a bearer token (RFC 6750); read anew for each `send`.
    tls : TlsFiles or None
        For ``https``; by default the system's authorities, no certificate.
    timeout : float
        Seconds in which it must connect, take a piece, or begin to answer.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    url: str
    username: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    tls: TlsConfig | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        # Python's own complaints would quote what might be a password.
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError("url is no URL") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError("url must begin with http:// or https:// and name a host")
        if not is_valid_host(host) or not self.url.isprintable() or " " in self.url:
            raise ValueError("url is no URL")
        if parts.username is not None or parts.password is not None:
            raise ValueError("url must hold no user or password; give a file")
        if parts.query or parts.fragment:
            raise ValueError("url must end with its path")
        if bool(self.username) != bool(self.password_file):
            raise ValueError("username and password_file belong together")
        if self.token_file and self.password_file:
            raise ValueError("token_file and password_file exclude each other")
        if self.tls and parts.scheme == "http":
            raise ValueError("tls needs an https:// url")
        secret = self.token_file or self.password_file
        if secret and parts.scheme == "http" and not _is_loopback(host):
            raise ValueError("a password or token goes over https:// only, or to this machine")
        validate_timeouts(timeout=self.timeout)

    def check(self) -> str:
        """Read the files of TLS, password and token; as `Destination.check`."""
        self._client().close()
        return ""

    @property
    def root(self) -> str:
        """The service's URL without ``/studies``."""
        return self.url.rstrip("/").removesuffix(_STUDIES)

    def send(
        self, files: Sequence[Path], stop: Callable[[], bool] = _never_stop
    ) -> Iterator[SendResult]:
        """Store files, each in a request of its own, as the bytes they are.

        As `Destination.send`.
        """
        with closing(self._client()) as client:
            for file in files:
                # Not around all: nobody is silenced while the caller works.
                with quiet_libraries():
                    sent = self._store(client, file)
                yield sent
                if stop():
                    return

    def _client(self) -> "StowClient":
        try:
            from cxrsr_cli.send.stow_client import StowClient
        except ImportError:
            raise MissingExtraError("STOW-RS needs pip install 'cxrsr[web]'") from None
        secure = urlsplit(self.url).scheme == "https"
        return StowClient(
            self.root,
            timeout=self.timeout,
            context=(self.tls or TlsConfig()).client_context() if secure else None,
            token=_secret(self.token_file) if self.token_file else None,
            user=(self.username, _secret(self.password_file))
            if self.username and self.password_file
            else None,
        )

    def _store(self, client: "StowClient", file: Path) -> SendResult:
        from requests import RequestException

        try:
            instance = FileHeader.read(file)
            if instance.syntax is None:
                raise NotDicomError("not in the DICOM File Format (PS3.10)")
            with ensure_unchanged(file), MultipartRelatedFile(file) as body:
                try:
                    with client.store(body) as answer:
                        return self._classify_response(instance, answer)
                except RequestException as error:
                    # Its text holds the URL and more; its kind says enough.
                    return SendResult(file, SendOutcome.FAILED, f"{self.root}: {_why(error)}")
        except CxrsrError as error:
            return file_failure(file, error)

    def _classify_response(self, instance: FileHeader, answer: "Response") -> SendResult:
        """Tell what an answer means (PS3.18 table 10.5.3-1)."""
        status = answer.status_code
        outcome, words = _by_status(status)
        if 200 <= status < 300 or status == _CONFLICT:
            content = _content(answer)
            reasons = _reasons(content, instance.sop_instance)
            if reasons is not None:
                outcome, words = _by_reasons(reasons, outcome, words)
            elif outcome is SendOutcome.STORED and not _may_be_a_response(answer, content):
                outcome, words = SendOutcome.FAILED, _SAYS_NOT
        message = f"{self.root}: {words}, HTTP {status}" if words else ""
        about_us = status in _NOT_LET_IN or 300 <= status < 400
        return SendResult(instance.path, outcome, message, status, sender_rejected=about_us)


@dataclass(frozen=True, slots=True)
class _StoreInstancesResponse:
    """Of the instance in a Store Instances Response: why not, or why with a warning."""

    failure: int | None
    warning: int | None
    stored: bool


def _by_status(status: int) -> tuple[SendOutcome, str]:
    if status == _ACCEPTED:
        # Some were not stored, or with a warning; which, it does not say.
        return SendOutcome.FAILED, _SAYS_NOT
    if status in _LATER or status >= 500:
        return SendOutcome.FAILED, "it cannot now"
    if status in _NOT_LET_IN:
        return SendOutcome.REFUSED, "it does not let us in; look at user, password or token"
    if 300 <= status < 400:
        return SendOutcome.REFUSED, "it is elsewhere; give the URL it redirects to"
    if 200 <= status < 300:
        return SendOutcome.STORED, ""
    return SendOutcome.REFUSED, "it does not take the file"


def _by_reasons(
    reasons: _StoreInstancesResponse, outcome: SendOutcome, words: str
) -> tuple[SendOutcome, str]:
    if reasons.failure is not None:
        outcome, words = classify_status(reasons.failure)
        if outcome is SendOutcome.FAILED or reasons.failure == DUPLICATE:
            return outcome, words
        # No other failure reason means success, whatever its number.
        return SendOutcome.REFUSED, words
    if reasons.warning is not None:
        _, words = classify_status(reasons.warning)
        return SendOutcome.WARNED, words or "a warning (0x0000)"
    if reasons.stored and outcome is not SendOutcome.REFUSED:
        return SendOutcome.STORED, ""
    return (SendOutcome.FAILED, _SAYS_NOT) if outcome is SendOutcome.STORED else (outcome, words)


def _reasons(content: bytes, sop_instance: UID) -> _StoreInstancesResponse | None:
    """Read a Store Instances Response in JSON; None if there is none that can be read."""
    try:
        told = json.loads(content)
        told = told[0] if isinstance(told, list) and told else told or {}
        # The request held one instance: every failure is of it.
        failed = _items(told, _FAILED) + _items(told, _FAILED_OTHERWISE)
        stored = [item for item in _items(told, _REFERENCED) if _is_of(item, sop_instance)]
        warnings = [_number(item, _WARNING_REASON) for item in stored if _WARNING_REASON in item]
        return _StoreInstancesResponse(
            failure=_number(failed[0], _FAILURE_REASON) if failed else None,
            warning=warnings[0] if warnings else None,
            stored=bool(stored),
        )
    # No JSON, or of another form.
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return None


def _may_be_a_response(answer: "Response", content: bytes) -> bool:
    """Tell whether a body is none, or XML as in PS3.18 I.2 that speaks of no failure."""
    text = content.strip().lower()
    if not text:
        return True
    failures = (_FAILED, _FAILED_OTHERWISE, "<html", "<!doctype")
    if "html" in answer.headers.get("Content-Type", "").lower():
        return False
    return text.startswith(b"<") and not any(word.lower().encode() in text for word in failures)


def _is_of(item: dict[str, Any], sop_instance: UID) -> bool:
    stated = item.get(_REFERENCED_INSTANCE, {}).get("Value", [])
    return [str(uid).rstrip("\0 ") for uid in stated] == [sop_instance]


def _content(answer: "Response") -> bytes:
    content = b""
    for piece in answer.iter_content(_READ_CHUNK_BYTES):
        content += piece
        if len(content) > _MAX_RESPONSE_BYTES:
            break
    return content


def _items(told: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return list(told.get(tag, {}).get("Value", []))


def _number(item: dict[str, Any], tag: str) -> int:
    value: int = int(item.get(tag, {}).get("Value", [0x0110])[0])
    return value


def _why(error: Exception) -> str:
    import requests

    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is not to be trusted"
    if isinstance(error, requests.exceptions.SSLError):
        return "no common TLS"
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return "no answer in time"
    if "refused" in text:
        return "connection refused"
    return "no connection, or it broke off"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _secret(path: Path) -> str:
    """Read a secret; no error quotes it."""
    try:
        line = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        line = ""
    if not line or not line.isprintable() or not line.isascii():
        raise UsageError(f"the first line of {path} is no password or token of ASCII characters")
    return line
