"""HTTP requests of STOW-RS, whose bodies are read from the disk while they are sent."""

import io
import os
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from cxrsr_cli.errors import NetworkError

_READ_CHUNK_BYTES = 1 << 16
_MAX_RESPONSE_BYTES = 1 << 20

_LATE = "no answer in time"
_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((ssl.SSLCertVerificationError,), "its certificate is not trusted"),
    ((requests.exceptions.SSLError,), "no TLS version or cipher in common"),
    ((requests.Timeout, TimeoutError), _LATE),
    ((ConnectionRefusedError,), "connection refused"),
)
"""Why a request failed, by an error in the chain of causes; the first that matches."""


class MultipartRelatedFile:
    """A request's body: a multipart header, the bytes of one file, a closing boundary.

    The body has a length, so that the server need not support chunked transfers. It is
    read from the disk in pieces, so that memory does not depend on the size of the file.
    It has no ``tell``: requests would take the position for the end and send no bytes.

    The file is open until the end of the ``with`` block; raises OSError if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        # Random, so that no file can contain the boundary.
        self._boundary = uuid.uuid4().hex
        head = f"--{self._boundary}\r\nContent-Type: application/dicom\r\n\r\n"
        tail = f"\r\n--{self._boundary}--\r\n"
        self._file = path.open("rb")
        self._bytes_left = os.fstat(self._file.fileno()).st_size
        self._head, self._tail = io.BytesIO(head.encode()), io.BytesIO(tail.encode())
        self._length = len(head) + self._bytes_left + len(tail)

    @property
    def content_type(self) -> str:
        """Value of the header field Content-Type (PS3.18 8.6.1.2.1)."""
        return f'multipart/related; type="application/dicom"; boundary={self._boundary}'

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces; requests streams a body that is iterable."""
        return iter(lambda: self.read(_READ_CHUNK_BYTES), b"")

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes; empty at the end."""
        if size is None or size < 0:
            size = self._length
        if chunk := self._head.read(size):
            return chunk
        if self._bytes_left:
            chunk = self._file.read(min(size, self._bytes_left))
            if not chunk:
                raise OSError("the file became shorter")
            self._bytes_left -= len(chunk)
            return chunk
        return self._tail.read(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


class StowClient:
    """An HTTP session with a DICOMweb service.

    `url` is that of the service's studies resource (PS3.18 10.5.1), `token` a bearer token
    (RFC 6750), `user` name and password for HTTP's Basic authentication.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        context: ssl.SSLContext | None = None,
        token: str | None = None,
        user: tuple[str, str] | None = None,
    ) -> None:
        self._url, self._timeout = url, timeout
        self._watchdog = _Watchdog(timeout)
        self._session = requests.Session()
        # No proxy and no password of ~/.netrc that the user did not ask for.
        self._session.trust_env = False
        self._session.auth = user
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.mount("http://", _BoundedAdapter(self._watchdog))
        if context:
            self._session.mount("https://", _SslContextAdapter(self._watchdog, context))

    @contextmanager
    def post(self, body: MultipartRelatedFile) -> Iterator[requests.Response]:
        """Post a body; the response's content is not read yet.

        Raises
        ------
        NetworkError
            If there is no response, or its content cannot be read in the block. The message
            is free of the URL and of what the server sent.
        """
        try:
            with self._session.post(
                self._url,
                data=body,
                headers={"Content-Type": body.content_type, "Accept": "application/dicom+json"},
                timeout=self._timeout,
                # A redirected request would lose its body and could leak the token.
                allow_redirects=False,
                stream=True,
            ) as response:
                yield response
                # A connection that the watchdog ended may look like the end of the answer.
                if self._watchdog.has_fired:
                    raise NetworkError(_LATE)
        except requests.RequestException as error:
            raise NetworkError(_LATE if self._watchdog.has_fired else _explain(error)) from None
        finally:
            self._watchdog.stop()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def read_content(response: requests.Response) -> bytes:
    """Read a response's content, of which more than 1 MiB is cut off."""
    content = b""
    for chunk in response.iter_content(_READ_CHUNK_BYTES):
        content += chunk
        if len(content) > _MAX_RESPONSE_BYTES:
            break
    return content


def is_whole(response: requests.Response) -> bool:
    """Return whether the end of the content was stated, and not made by a lost connection."""
    encoding = response.headers.get("Transfer-Encoding", "")
    return "Content-Length" in response.headers or encoding.lower() == "chunked"


class _Watchdog:
    """Ends a connection whose answer is not there in time, in however many pieces it comes."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._timer: threading.Timer | None = None
        self.has_fired = False

    def start(self, connection: socket.socket) -> None:
        self.stop()
        self.has_fired = False
        self._timer = threading.Timer(self._timeout, self._fire, [connection])
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _fire(self, connection: socket.socket) -> None:
        self.has_fired = True
        with suppress(OSError):
            # The method of SSLSocket would drop the TLS session that the other thread uses.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _explain(error: BaseException | None) -> str:
    causes = []
    while error:
        causes.append(error)
        error = error.__cause__ or error.__context__
    for types, reason in _REASONS:
        if any(isinstance(cause, types) for cause in causes):
            return reason
    return "no connection, or it was lost"


class _BoundedAdapter(HTTPAdapter):
    """Starts the watchdog when a request was sent."""

    def __init__(self, watchdog: _Watchdog) -> None:
        self._watchdog = watchdog
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _watched(HTTPConnectionPool, self._watchdog),
            "https": _watched(HTTPSConnectionPool, self._watchdog),
        }


def _watched(pool: Any, watchdog: _Watchdog) -> Any:  # noqa: ANN401 - urllib3's are protocols
    """Return a class of pools whose connections start the watchdog before the answer."""

    class WatchedConnection(pool.ConnectionCls):  # type: ignore[misc] # a class of urllib3
        def getresponse(self) -> Any:  # noqa: ANN401
            watchdog.start(self.sock)
            return super().getresponse()

    class WatchedPool(pool):  # type: ignore[misc] # a class of urllib3
        ConnectionCls = WatchedConnection

    return WatchedPool


class _SslContextAdapter(_BoundedAdapter):
    """Verifies certificates by one SSL context; requests would trust certifi's list too."""

    def __init__(self, watchdog: _Watchdog, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(watchdog)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        super().init_poolmanager(*arguments, ssl_context=self._context, **options)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ANN401
        """Leave the context unchanged."""
