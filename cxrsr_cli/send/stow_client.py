"""dicomweb-client, which knows the service, with bodies of our own.

Its own `store_instances` encodes a parsed data set again and holds it twice; a
request that it repeats after HTTP 503 has lost its body.
"""

import io
import os
import ssl
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
from dicomweb_client.session_utils import create_session, create_session_from_user_pass
from dicomweb_client.web import DICOMwebClient, _Transaction
from requests.adapters import HTTPAdapter

_READ_CHUNK_BYTES = 1 << 16


class MultipartRelatedFile:
    """A request's body: a head, the bytes of a file, a tail.

    It has a length, so that no server has to understand chunks, and is read from
    the disk in pieces, so that memory does not depend on the file. It cannot
    tell where it stands, which requests would take for a length of 0.

    Parameters
    ----------
    path : Path
        Opened for reading only, until the end of the ``with`` block.

    Raises
    ------
    OSError
        If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        # Nobody can know it before, and so have it in a file.
        self._boundary = uuid.uuid4().hex
        head = f"--{self._boundary}\r\nContent-Type: application/dicom\r\n\r\n"
        tail = f"\r\n--{self._boundary}--\r\n"
        self._file = path.open("rb")
        self._left = os.fstat(self._file.fileno()).st_size
        self._head, self._tail = io.BytesIO(head.encode()), io.BytesIO(tail.encode())
        self._length = len(head) + self._left + len(tail)

    @property
    def content_type(self) -> str:
        """Value of the request's header field."""
        return f'multipart/related; type="application/dicom"; boundary={self._boundary}'

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        """Give the pieces; by this requests knows a stream."""
        return iter(lambda: self.read(_READ_CHUNK_BYTES), b"")

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes; nothing at the end."""
        if size is None or size < 0:
            size = self._length
        if piece := self._head.read(size):
            return piece
        if self._left:
            piece = self._file.read(min(size, self._left))
            if not piece:
                raise OSError("the file became shorter")
            self._left -= len(piece)
            return piece
        return self._tail.read(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


class StowClient(DICOMwebClient):
    """A client that stores files as they are.

    Parameters
    ----------
    url : str
        The service's root.
    timeout : float
        Seconds for each step.
    context : ssl.SSLContext or None
        For ``https``.
    token : str or None
        A bearer token.
    user : tuple or None
        Name and password.
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
        session = create_session_from_user_pass(*user) if user else create_session()
        # A proxy, or a password of ~/.netrc, must not come from where nobody looks.
        session.trust_env = False
        if context:
            session.mount("https://", _SslContextAdapter(context))
        headers = {"Authorization": f"Bearer {token}"} if token else None
        super().__init__(url, session, headers=headers, timeout=timeout)

    def store(self, body: MultipartRelatedFile) -> requests.Response:
        """Post a body; the answer's own is not read yet.

        Raises
        ------
        requests.RequestException
            If there is no answer.
        """
        answer: requests.Response = self._session.post(
            self._get_studies_url(_Transaction.STORE),
            data=body,
            headers={"Content-Type": body.content_type, "Accept": "application/dicom+json"},
            timeout=self._timeout,
            # A redirected request would lose its body, and could take a token elsewhere.
            allow_redirects=False,
            stream=True,
        )
        return answer

    def close(self) -> None:
        """End the connections."""
        self._session.close()


class _SslContextAdapter(HTTPAdapter):
    """Verifies by a given context alone; requests would trust certifi's authorities, too."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        super().init_poolmanager(*arguments, ssl_context=self._context, **options)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ANN401
        """Leave the context as it is."""
