"""dicomweb-client, which knows the service, with bodies of our own.

Its own `store_instances` encodes a parsed data set again and holds it twice; a
request that it repeats after HTTP 503 has lost its body.
"""

import ssl
from typing import Any

import requests
from dicomweb_client.session_utils import create_session, create_session_from_user_pass
from dicomweb_client.web import DICOMwebClient, _Transaction
from requests.adapters import HTTPAdapter

from cxrsr_cli.send.multipart import MultipartRelatedFile


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
