"""A port on loopback that tells whether the node lives, and its counts."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cxrsr_cli.errors import CxrsrError, NetworkError

_PATIENCE = 5.0
"""Seconds that a client may be silent."""


@contextmanager
def health_server(
    address: str, port: int, healthy: Callable[[], bool], metrics: Callable[[], str]
) -> Iterator[int]:
    """Answer ``/health`` with 200 or 503, and ``/metrics``, while the block runs.

    Parameters
    ----------
    address : str
        An address of loopback: there is neither encryption nor a password.
    port : int
        0 for any.
    healthy : callable
        Tells whether all parts run.
    metrics : callable
        Gives the text.

    Yields
    ------
    int
        The port.

    Raises
    ------
    NetworkError
        If the port cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE

        def do_GET(self) -> None:
            status, text = HTTPStatus.OK, "ok\n"
            if self.path == "/metrics":
                try:
                    text = metrics()
                except CxrsrError:
                    status, text = HTTPStatus.SERVICE_UNAVAILABLE, "the queue cannot be read\n"
            elif self.path != "/health":
                status, text = HTTPStatus.NOT_FOUND, "/health or /metrics\n"
            elif not healthy():
                status, text = HTTPStatus.SERVICE_UNAVAILABLE, "not healthy\n"
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing: requests are no events of the node."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: object) -> None:
            """Say nothing: who asked is gone."""

    try:
        server = Server((address, port), Handler)
    except OSError as error:
        raise NetworkError(
            f"cannot listen on {address} port {port} for health: {error.strerror}"
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
