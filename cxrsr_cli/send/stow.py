"""STOW-RS as a user agent: files to a DICOMweb service (PS3.18 10.5)."""

import ipaddress
import json
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pydicom.uid import UID

from cxrsr_cli.batch.result import to_reportable_error
from cxrsr_cli.common.files import ensure_unchanged
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.common.validators import is_valid_host, validate_timeouts
from cxrsr_cli.connections.destination import (
    SendOutcome,
    SendResult,
    never_stop,
)
from cxrsr_cli.connections.dimse_status import DimseStatus, classify_status
from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.errors import (
    MissingExtraError,
    NetworkError,
    NotDicomError,
    UsageError,
)
from cxrsr_cli.send.file_header import FileHeader, file_failure

if TYPE_CHECKING:
    from requests import Response

    from cxrsr_cli.send.stow_client import StowClient

_STUDIES = "/studies"
_TRANSIENT_STATUSES = (408, 425, 429)
_ACCESS_DENIED_STATUSES = (401, 403)
_ACCEPTED, _CONFLICT = 202, 409

_FAILED_SEQUENCE, _OTHER_FAILURES_SEQUENCE = "00081198", "0008119A"
_REFERENCED_SEQUENCE, _REFERENCED_INSTANCE_UID = "00081199", "00081155"
_FAILURE_REASON, _WARNING_REASON = "00081197", "00081196"
"""Tags of the Store Instances Response (PS3.18 I.2), as in its JSON."""

_NO_STATEMENT = "it does not say whether it stored the file"


@dataclass(frozen=True, slots=True, kw_only=True)
class StowDestination:
    """A DICOMweb service that stores instances.

    Attributes
    ----------
    url : str
        Root of the service; ``/studies`` is added if the URL does not end with it.
    username : str or None
        For HTTP's Basic authentication.
    password_file : Path or None
        The first line is the password.
    token_file : Path or None
        The first line is a bearer token (RFC 6750); read again for each `send`.
    tls : TlsConfig or None
        For ``https``; by default the system's authorities and no certificate of ours.
    timeout : float
        Seconds to wait for connecting, sending a chunk and the response.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    url: str
    username: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    tls: TlsConfig | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        # Python's own messages would quote the URL, which may contain a password.
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError("url is not a URL") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError("url must begin with http:// or https:// and name a host")
        if not is_valid_host(host) or not self.url.isprintable() or " " in self.url:
            raise ValueError("url is not a URL")
        if parts.username is not None or parts.password is not None:
            raise ValueError("url must not contain a user or password; use a file")
        if parts.query or parts.fragment:
            raise ValueError("url must end with its path")
        if bool(self.username) != bool(self.password_file):
            raise ValueError("username and password_file must be given together")
        if self.token_file and self.password_file:
            raise ValueError("token_file and password_file exclude each other")
        if self.tls and parts.scheme == "http":
            raise ValueError("tls needs an https:// url")
        secret = self.token_file or self.password_file
        if secret and parts.scheme == "http" and not _is_loopback(host):
            raise ValueError("a password or token needs https://, except on this machine")
        validate_timeouts(timeout=self.timeout)

    def check(self) -> str:
        """Read the files of TLS, password and token; see `Destination.check`."""
        self._client().close()
        return ""

    @property
    def root(self) -> str:
        """The service's URL without ``/studies``."""
        return self.url.rstrip("/").removesuffix(_STUDIES)

    def send(
        self, files: Sequence[Path], stop: Callable[[], bool] = never_stop
    ) -> Generator[SendResult, None, None]:
        """Store each file's bytes unchanged in a request of its own; see `Destination.send`."""
        with closing(self._client()) as client:
            for file in files:
                # Not around the loop: the caller's own logs stay on while it works.
                with quiet_libraries():
                    result = self._store(client, file)
                yield result
                if stop():
                    return

    def _client(self) -> "StowClient":
        try:
            from cxrsr_cli.send.stow_client import StowClient
        except ImportError:
            raise MissingExtraError("STOW-RS needs pip install 'cxrsr[web]'") from None
        is_secure = urlsplit(self.url).scheme == "https"
        return StowClient(
            self.root + _STUDIES,
            timeout=self.timeout,
            context=(self.tls or TlsConfig()).client_context() if is_secure else None,
            token=_read_secret(self.token_file) if self.token_file else None,
            user=(self.username, _read_secret(self.password_file))
            if self.username and self.password_file
            else None,
        )

    def _store(self, client: "StowClient", file: Path) -> SendResult:
        from cxrsr_cli.send.stow_client import MultipartRelatedFile

        try:
            header = FileHeader.read(file)
            if header.syntax is None:
                raise NotDicomError("not in the DICOM File Format (PS3.10)")
            with ensure_unchanged(file), MultipartRelatedFile(file) as body:
                try:
                    with client.post(body) as response:
                        return self._classify_response(header, response)
                except NetworkError as error:
                    return SendResult(file, SendOutcome.FAILED, f"{self.root}: {error}")
        # A defect that one file or answer shows does not stop the others.
        except Exception as error:
            return file_failure(file, to_reportable_error(error))

    def _classify_response(self, header: FileHeader, response: "Response") -> SendResult:
        """Return the outcome of a response (PS3.18 table 10.5.3-1)."""
        from cxrsr_cli.send.stow_client import read_content

        status = response.status_code
        outcome, reason = _classify_http_status(status)
        if 200 <= status < 300 or status == _CONFLICT:
            content = read_content(response)
            statement = _read_statement(content, header.sop_instance)
            if statement is not None:
                outcome, reason = _classify_statement(statement, outcome, reason)
            elif outcome is SendOutcome.STORED and not _is_empty_or_xml(response, content):
                outcome, reason = SendOutcome.FAILED, _NO_STATEMENT
        message = f"{self.root}: {reason}, HTTP {status}" if reason else ""
        is_sender = status in _ACCESS_DENIED_STATUSES or 300 <= status < 400
        return SendResult(header.path, outcome, message, status, sender_rejected=is_sender)


@dataclass(frozen=True, slots=True)
class _StoreInstancesResponse:
    """What a Store Instances Response says about our instance: its reasons, if any."""

    failure: int | None
    warning: int | None
    is_referenced: bool
    """Whether the Referenced SOP Sequence lists the instance."""


def _classify_http_status(status: int) -> tuple[SendOutcome, str]:
    if status == _ACCEPTED:
        # Some instances were not stored, or with a warning; the status does not say which.
        return SendOutcome.FAILED, _NO_STATEMENT
    if status in _TRANSIENT_STATUSES or status >= 500:
        return SendOutcome.FAILED, "it is unavailable for now"
    if status in _ACCESS_DENIED_STATUSES:
        return SendOutcome.REFUSED, "it denies access; check user name, password or token"
    if 300 <= status < 400:
        return SendOutcome.REFUSED, "it redirects; use the URL that it redirects to"
    if 200 <= status < 300:
        return SendOutcome.STORED, ""
    return SendOutcome.REFUSED, "it refuses the file"


def _classify_statement(
    statement: _StoreInstancesResponse, outcome: SendOutcome, reason: str
) -> tuple[SendOutcome, str]:
    """Combine a Store Instances Response with what the HTTP status says."""
    if statement.failure is not None:
        outcome, reason = classify_status(statement.failure)
        if outcome is SendOutcome.FAILED or statement.failure == DimseStatus.DUPLICATE_SOP_INSTANCE:
            return outcome, reason
        # No other Failure Reason means success, whatever its number.
        return SendOutcome.REFUSED, reason
    if statement.warning is not None:
        _, reason = classify_status(statement.warning)
        return SendOutcome.WARNED, reason or "a warning (0x0000)"
    if statement.is_referenced and outcome is not SendOutcome.REFUSED:
        return SendOutcome.STORED, ""
    if outcome is SendOutcome.STORED:
        return SendOutcome.FAILED, _NO_STATEMENT
    return outcome, reason


def _read_statement(content: bytes, sop_instance: UID) -> _StoreInstancesResponse | None:
    """Read a Store Instances Response in JSON; None if the content is something else."""
    try:
        response = json.loads(content)
        response = response[0] if isinstance(response, list) and response else response or {}
        # The request held one instance, so every failure is about it.
        failed = _items(response, _FAILED_SEQUENCE) + _items(response, _OTHER_FAILURES_SEQUENCE)
        referenced = [
            item for item in _items(response, _REFERENCED_SEQUENCE) if _is_about(item, sop_instance)
        ]
        warnings = [
            _number(item, _WARNING_REASON) for item in referenced if _WARNING_REASON in item
        ]
        return _StoreInstancesResponse(
            failure=_number(failed[0], _FAILURE_REASON) if failed else None,
            warning=warnings[0] if warnings else None,
            is_referenced=bool(referenced),
        )
    # Not JSON, of another structure, or too deep.
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        return None


def _is_empty_or_xml(response: "Response", content: bytes) -> bool:
    """Whether a body is empty, or XML (PS3.18 I.2) that mentions no failure, and not HTML.

    It must be whole: a connection that was lost may have cut off the failure.
    """
    from cxrsr_cli.send.stow_client import is_whole

    if not is_whole(response):
        return False
    text = content.strip().lower()
    if not text:
        return True
    if "html" in response.headers.get("Content-Type", "").lower():
        return False
    failures = (_FAILED_SEQUENCE, _OTHER_FAILURES_SEQUENCE, "<html", "<!doctype")
    return text.startswith(b"<") and not any(word.lower().encode() in text for word in failures)


def _is_about(item: dict[str, Any], sop_instance: UID) -> bool:
    uids = item.get(_REFERENCED_INSTANCE_UID, {}).get("Value", [])
    return [str(uid).rstrip("\0 ") for uid in uids] == [sop_instance]


def _items(response: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    return list(response.get(tag, {}).get("Value", []))


def _number(item: dict[str, Any], tag: str) -> int:
    value: int = int(item.get(tag, {}).get("Value", [DimseStatus.PROCESSING_FAILURE])[0])
    return value


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_secret(path: Path) -> str:
    """Read a secret; no error quotes it."""
    try:
        line = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        line = ""
    if not line or not line.isprintable() or not line.isascii():
        raise UsageError(f"the first line of {path} is not a password or token in ASCII")
    return line
