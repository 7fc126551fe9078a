"""STOW-RS to Orthanc, and to a stub that gives every kind of response."""

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from cxrsr_cli.connections.destination import SendOutcome
from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.errors import UsageError
from cxrsr_cli.send.stow import StowDestination
from cxrsr_cli.send.stow_client import MultipartRelatedFile
from tests.conftest import EXAMPLE, small_chest
from tests.helpers.orthanc import free_port, running_orthanc
from tests.helpers.peers import Certificates, certificates, data_set
from tests.helpers.waiting import HANG_SECONDS

pytestmark = pytest.mark.peer


@dataclass
class Service:
    """A stub that gives a set response and records the requests."""

    port: int
    status: int = 200
    body: bytes = b""
    fields: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Root of the service."""
        return f"http://127.0.0.1:{self.port}/dicom-web"


@contextmanager
def service(context: ssl.SSLContext | None = None) -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            there.paths.append(self.path)
            there.fields.append(dict(self.headers))
            there.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(there.status)
            for name, value in there.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(there.body)))
            self.end_headers()
            self.wfile.write(there.body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        there = Service(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield there
        finally:
            server.shutdown()
            thread.join(timeout=20)


@pytest.fixture(scope="module")
def stub() -> Iterator[Service]:
    with service() as there:
        yield there


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


UID_OF_EXAMPLE = data_set(EXAMPLE)[0]


def response(uid: str = UID_OF_EXAMPLE, **attributes: object) -> bytes:
    """Write a Store Instances Response (PS3.18 I.2) in JSON."""
    tags = {"failed": "00081198", "otherwise": "0008119A", "stored": "00081199"}
    reasons = {"failed": "00081197", "otherwise": "00081197", "stored": "00081196"}
    content: dict[str, Any] = {}
    for name, reason in attributes.items():
        item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
        if reason is not None:
            item[reasons[name]] = {"vr": "US", "Value": [reason]}
        content[tags[name]] = {"vr": "SQ", "Value": [item]}
    return json.dumps(content).encode()


def test_orthanc_keeps_the_file_byte_for_byte(tmp_path: Path, shared: Path) -> None:
    """Nothing is encoded again: compressed pixels and illegal text are unchanged."""
    odd = tmp_path / "odd.dcm"
    small_chest(2, InstitutionName="illegal text").save_as(odd)
    odd.write_bytes(odd.read_bytes().replace(b"illegal text", b"ill\xe9gal t\xffxt"))
    # The fake one is another's twin by its SOP Instance UID.
    chests = (shared / "dicom" / "chest").glob("*.dcm")
    real = [path for path in chests if not path.name.startswith("Fake")]
    text = tmp_path / "text.dcm"
    text.write_text("not DICOM")
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        results = list(StowDestination(url=orthanc.dicomweb).send([odd, text, EXAMPLE, *real]))
        got = orthanc.files()
    assert [sent.outcome for sent in results if sent.path != text] == [SendOutcome.STORED] * (
        len(real) + 2
    )
    assert (results[1].outcome, results[1].decided_by_peer) == (SendOutcome.REFUSED, False)
    for path in (odd, EXAMPLE, *real):
        same = got[data_set(path)[0]] == path.read_bytes()
        assert same, path


def test_a_request_contains_one_file_unchanged(stub: Service) -> None:
    """As in PS3.18 10.5.1 and 8.6.1.2.1."""
    stub.status, stub.body = 200, b""
    for url in (stub.url, stub.url + "/", stub.url + "/studies", stub.url + "/studies/"):
        (sent,) = StowDestination(url=url).send([EXAMPLE])
        assert sent.outcome is SendOutcome.STORED
        assert stub.paths[-1] == "/dicom-web/studies"
    fields = stub.fields[-1]
    kind, form, boundary = fields["Content-Type"].split("; ")
    assert (kind, form) == ("multipart/related", 'type="application/dicom"')
    mark = boundary.removeprefix("boundary=").encode()
    assert stub.bodies[-1] == (
        b"--" + mark + b"\r\nContent-Type: application/dicom\r\n\r\n"
        + EXAMPLE.read_bytes() + b"\r\n--" + mark + b"--\r\n"
    )  # fmt: skip
    assert fields["Accept"] == "application/dicom+json"
    assert "Authorization" not in fields


SAYS_NOT = "it does not say whether it stored the file"
ANSWERS = [
    (200, response(stored=None), SendOutcome.STORED, ""),
    (200, b"", SendOutcome.STORED, ""),
    (200, b"<xml/>", SendOutcome.STORED, ""),
    (200, response(stored=0xB000), SendOutcome.WARNED, "elements were coerced (0xB000), HTTP 200"),
    (201, response(stored=None), SendOutcome.STORED, ""),
    (204, b"", SendOutcome.STORED, ""),
    (200, b"<html>log in</html>", SendOutcome.FAILED, f"{SAYS_NOT}, HTTP 200"),
    (200, b"\n<!DOCTYPE HTML><p>log in", SendOutcome.FAILED, f"{SAYS_NOT}, HTTP 200"),
    (200, b"<?xml version='1.0'?>\n<!DOCTYPE html>", SendOutcome.FAILED, f"{SAYS_NOT}, HTTP 200"),
    (200, b"OK", SendOutcome.FAILED, f"{SAYS_NOT}, HTTP 200"),
    (200, b'<x><DicomAttribute tag="0008119A"/></x>', SendOutcome.FAILED, f"{SAYS_NOT}, HTTP 200"),
    (200, b"{}", SendOutcome.FAILED, f"{SAYS_NOT}, HTTP 200"),
    (200, b"[]", SendOutcome.FAILED, f"{SAYS_NOT}, HTTP 200"),
    (200, b"null", SendOutcome.FAILED, f"{SAYS_NOT}, HTTP 200"),
    (200, b'"stored"', SendOutcome.FAILED, f"{SAYS_NOT}, HTTP 200"),
    (200, b'{"00081199": {"vr": "SQ"}}', SendOutcome.FAILED, f"{SAYS_NOT}, HTTP 200"),
    (200, b'{"00081199": {"Value": [{}]}}', SendOutcome.FAILED, f"{SAYS_NOT}, HTTP 200"),
    (200, response(uid="2.25.1", stored=None), SendOutcome.FAILED, f"{SAYS_NOT}, HTTP 200"),
    (200, response(uid="2.25.1", stored=0xB000), SendOutcome.FAILED, f"{SAYS_NOT}, HTTP 200"),
    (200, response(otherwise=0xA700), SendOutcome.FAILED, "out of resources (0xA700), HTTP 200"),
    (200, response(otherwise=0xC000), SendOutcome.REFUSED, "cannot understand the object (0xC000)"),
    (200, response(otherwise=None), SendOutcome.FAILED, "processing failure (0x0110), HTTP 200"),
    (200, response(failed=0x0111), SendOutcome.WARNED, "duplicate SOP Instance UID (0x0111)"),
    (409, response(failed=0x0111), SendOutcome.WARNED, "duplicate SOP Instance UID (0x0111)"),
    (409, response(stored=None), SendOutcome.REFUSED, "it refuses the file, HTTP 409"),
    (
        202,
        response(stored=0xB006),
        SendOutcome.WARNED,
        "elements were discarded (0xB006), HTTP 202",
    ),
    (202, response(stored=None), SendOutcome.STORED, ""),
    (202, response(failed=0xA700), SendOutcome.FAILED, "out of resources (0xA700), HTTP 202"),
    (
        202,
        response(failed=0x0122),
        SendOutcome.REFUSED,
        "SOP Class not supported (0x0122), HTTP 202",
    ),
    (202, b"", SendOutcome.FAILED, "does not say whether it stored the file, HTTP 202"),
    (200, response(failed=0xC122), SendOutcome.REFUSED, "transfer syntax not supported (0xC122)"),
    (200, response(failed=0x0000), SendOutcome.REFUSED, ""),
    (409, response(failed=0xA900), SendOutcome.REFUSED, "does not match its SOP Class (0xA900)"),
    (409, response(failed=0xA701), SendOutcome.FAILED, "out of resources (0xA701), HTTP 409"),
    (409, b"", SendOutcome.REFUSED, "it refuses the file, HTTP 409"),
    (400, b"", SendOutcome.REFUSED, "it refuses the file, HTTP 400"),
    (413, b"", SendOutcome.REFUSED, "it refuses the file, HTTP 413"),
    (415, b"", SendOutcome.REFUSED, "it refuses the file, HTTP 415"),
    (401, b"", SendOutcome.REFUSED, "it denies access"),
    (403, b"", SendOutcome.REFUSED, "it denies access"),
    (302, b"", SendOutcome.REFUSED, "it redirects"),
    (408, b"", SendOutcome.FAILED, "it is unavailable for now, HTTP 408"),
    (429, b"", SendOutcome.FAILED, "it is unavailable for now, HTTP 429"),
    (500, b"", SendOutcome.FAILED, "it is unavailable for now, HTTP 500"),
    (503, response(failed=0xC000), SendOutcome.FAILED, "it is unavailable for now, HTTP 503"),
]


@pytest.mark.parametrize(("status", "body", "outcome", "words"), ANSWERS)
def test_every_response_has_its_outcome(
    stub: Service, status: int, body: bytes, outcome: SendOutcome, words: str
) -> None:
    stub.status, stub.body, before = status, body, len(stub.paths)
    stub.headers = {"Location": f"http://127.0.0.1:{stub.port}/elsewhere"}
    (sent,) = StowDestination(url=stub.url).send([EXAMPLE])
    assert (sent.outcome, sent.status) == (outcome, status)
    assert words in sent.message
    assert len(stub.paths) == before + 1, "one request, and no redirection"


def test_a_login_page_by_its_content_type_is_not_a_success(stub: Service) -> None:
    stub.status, stub.body = 200, b"<div>log in</div>"
    stub.headers = {"Content-Type": "text/html; charset=utf-8"}
    (sent,) = StowDestination(url=stub.url).send([EXAMPLE])
    assert sent.outcome is SendOutcome.FAILED
    assert sent.message.endswith(f"{SAYS_NOT}, HTTP 200")


def test_sending_stops_after_the_current_file_if_asked(stub: Service) -> None:
    stub.status, stub.body, stub.headers = 200, b"", {}
    assert len(list(StowDestination(url=stub.url).send([EXAMPLE] * 3, lambda: True))) == 1


def test_a_refused_connection_is_a_failure() -> None:
    (sent,) = StowDestination(url=f"http://127.0.0.1:{free_port()}").send([EXAMPLE])
    assert sent.outcome is SendOutcome.FAILED
    assert sent.message.endswith("connection refused")


def test_secrets_are_read_from_files_and_appear_in_no_message(
    stub: Service, tmp_path: Path
) -> None:
    stub.status, stub.body, stub.headers = 401, b"", {}
    token, password = tmp_path / "token", tmp_path / "password"
    token.write_text("s3cret-token\n")
    password.write_text("s3cret-password\nand a note")
    (one,) = StowDestination(url=stub.url, token_file=token).send([EXAMPLE])
    assert stub.fields[-1]["Authorization"] == "Bearer s3cret-token"
    named = StowDestination(url=stub.url, username="me", password_file=password)
    (two,) = named.send([EXAMPLE])
    basic = stub.fields[-1]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(basic) == b"me:s3cret-password"
    assert "s3cret" not in f"{one} {two} {named}"


@pytest.mark.parametrize("content", ["", "\n", "not ASCII: ü", "\x07"])
def test_a_file_without_a_secret_is_named_but_not_quoted(tmp_path: Path, content: str) -> None:
    token = tmp_path / "token"
    token.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=f"first line of {token} is not a password") as caught:
        list(StowDestination(url="https://localhost", token_file=token).send([EXAMPLE]))
    assert "ü" not in str(caught.value)
    missing = StowDestination(url="https://localhost", token_file=tmp_path / "missing")
    with pytest.raises(UsageError, match="cannot read"):
        list(missing.send([EXAMPLE]))


SECRET = Path("secret")
WRONG = [
    ({"url": "https://me:hunter2@localhost"}, "not contain a user or password"),
    ({"url": "https://me@localhost"}, "not contain a user or password"),
    ({"url": "https://localhost/?token=hunter2"}, "end with its path"),
    ({"url": "ftp://localhost"}, "must begin with http"),
    ({"url": "localhost"}, "must begin with http"),
    ({"url": "http://[hunter2"}, "not a URL"),
    ({"url": "http://pacs.example", "token_file": SECRET}, "needs https"),
    ({"url": "http://pacs.example", "username": "a", "password_file": SECRET}, "needs https"),
    ({"url": "https://localhost", "username": "a"}, "given together"),
    ({"url": "https://localhost", "password_file": SECRET}, "given together"),
    (
        {"url": "https://l", "username": "a", "password_file": SECRET, "token_file": SECRET},
        "exclude each other",
    ),
    ({"url": "http://localhost", "tls": TlsConfig()}, "tls needs"),
    ({"url": "https://localhost", "timeout": 0.0}, "timeout"),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_invalid_options_are_refused_without_quoting_a_secret(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        StowDestination(**options)
    assert "hunter2" not in str(caught.value)


def test_tls_verifies_both_sides(secured: Certificates) -> None:
    with service(secured.server.server_context()) as there:
        url = there.url.replace("http://", "https://")
        outcomes = [
            next(StowDestination(url=url, tls=tls).send([EXAMPLE]))
            for tls in (
                secured.client,
                TlsConfig(ca_file=secured.stranger),
                TlsConfig(ca_file=secured.authority),
                None,
            )
        ]
    assert [sent.outcome for sent in outcomes] == [SendOutcome.STORED] + [SendOutcome.FAILED] * 3
    assert outcomes[1].message.endswith("its certificate is not trusted")
    assert outcomes[3].message.endswith("its certificate is not trusted")
    assert len(there.paths) == 1


def test_a_body_is_read_in_chunks(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    with MultipartRelatedFile(path) as body:
        pieces = list(iter(lambda: body.read(1000), b""))
        assert len(b"".join(pieces)) == len(body)
        assert max(map(len, pieces)) == 1000
        assert path.read_bytes() in b"".join(pieces)


def test_a_destination_is_read_from_a_configuration(tmp_path: Path) -> None:
    adapter = TypeAdapter(StowDestination)
    read = adapter.validate_python(
        {"url": "https://pacs/rs", "tls": {"ca_file": str(tmp_path / "a.pem")}, "timeout": 5}
    )
    assert read == StowDestination(
        url="https://pacs/rs", tls=TlsConfig(ca_file=tmp_path / "a.pem"), timeout=5.0
    )
    with pytest.raises(ValidationError, match="url must not contain a user"):
        adapter.validate_python({"url": "https://a:b@pacs"})
    with pytest.raises(ValidationError, match="password"):
        adapter.validate_python({"url": "https://pacs", "password": "hunter2"})


def test_a_service_that_does_not_answer_is_reported_as_a_timeout() -> None:
    """Before the response, and in the middle of its content."""
    heads = [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
    for head in heads:
        with socket.create_server(("127.0.0.1", 0)) as server:
            answering = threading.Thread(target=_answer_once, args=(server, head))
            answering.start()
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            (sent,) = StowDestination(url=url, timeout=0.5).send([EXAMPLE])
            answering.join(timeout=20)
        assert sent.outcome is SendOutcome.FAILED
        assert sent.message == f"{url}: no answer in time"


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX-A: b\r\n", b"HTTP/1.1 200 OK\r\n\r\n",
     b"HTTP/1.1 200 OK\r\n\r\n<NativeDicomModel>"],
    ids=["status", "field", "fields", "content"],
)  # fmt: skip
def test_an_answer_that_is_cut_off_is_no_success(head: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(head)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        answering = threading.Thread(target=answer)
        answering.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        (sent,) = StowDestination(url=url, timeout=HANG_SECONDS).send([EXAMPLE])
        answering.join(timeout=HANG_SECONDS)
    assert sent.outcome is SendOutcome.FAILED


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"],
    ids=["fields", "content"],
)
def test_an_answer_that_never_ends_is_bounded_by_the_timeout(head: bytes) -> None:
    """A byte comes again and again, so that no wait for one is long."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(head)
                while True:
                    connection.sendall(b"X")
                    time.sleep(0.1)

        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        (sent,) = StowDestination(url=url, timeout=1.0).send([EXAMPLE])
        answering.join(timeout=HANG_SECONDS)
        assert not answering.is_alive()
    assert (sent.outcome, sent.message) == (SendOutcome.FAILED, f"{url}: no answer in time")


def test_an_answer_of_deep_json_is_no_statement(stub: Service) -> None:
    stub.status, stub.body = 200, b"[" * 200_000
    (sent,) = StowDestination(url=stub.url).send([EXAMPLE])
    assert sent.outcome is SendOutcome.FAILED


def _answer_once(server: socket.socket, head: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(head)
        while connection.recv(1 << 16):
            pass
