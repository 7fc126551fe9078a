"""Health and metrics over HTTP; metrics in the text format of Prometheus."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cxrsr_cli import __version__
from cxrsr_cli.errors import CxrsrError, NetworkError
from cxrsr_cli.serve.events import Event, EventKind
from cxrsr_cli.serve.queue import QueueView

_CLIENT_TIMEOUT = 5.0


@contextmanager
def health_server(
    address: str, port: int, is_healthy: Callable[[], bool], metrics: Callable[[], str]
) -> Iterator[int]:
    """Answer ``/health`` with 200 or 503, and ``/metrics``, while the block runs.

    Parameters
    ----------
    address : str
        Loopback address: there is neither encryption nor a password.
    port : int
        TCP port; 0 for any free port.
    is_healthy : callable
        Tells whether all parts run.
    metrics : callable
        Returns the text of the metrics.

    Yields
    ------
    int
        The port.

    Raises
    ------
    NetworkError
        If the port is not available.
    """

    class MonitoringHandler(BaseHTTPRequestHandler):
        timeout = _CLIENT_TIMEOUT

        def do_GET(self) -> None:
            status, text = HTTPStatus.OK, "ok\n"
            if self.path == "/metrics":
                try:
                    text = metrics()
                except CxrsrError:
                    status, text = HTTPStatus.SERVICE_UNAVAILABLE, "the queue cannot be read\n"
            elif self.path != "/health":
                status, text = HTTPStatus.NOT_FOUND, "/health or /metrics\n"
            elif not is_healthy():
                status, text = HTTPStatus.SERVICE_UNAVAILABLE, "not healthy\n"
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Log nothing: requests are not events of the node."""

    class MonitoringServer(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: object) -> None:
            """Log nothing: the client closed the connection."""

    try:
        server = MonitoringServer((address, port), MonitoringHandler)
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


_EVENTS = {
    EventKind.RECEIVED: "Instances acknowledged.",
    EventKind.DUPLICATE: "Instances received and acknowledged again.",
    EventKind.REFUSED: "Connections, associations and instances refused.",
    EventKind.IGNORED: "Instances dropped by a rule.",
    EventKind.UPSCALED: "Instances upscaled.",
    EventKind.SENT: "Outputs delivered to a destination.",
    EventKind.RETRY: "Failures that will be tried again.",
    EventKind.DEAD: "Failures that will not be tried again.",
    EventKind.ERROR: "Errors of the node itself.",
}


class Metrics:
    """Counts the events that any thread reports."""

    def __init__(self, view: QueueView) -> None:
        self._view = view
        self._lock = threading.Lock()
        self._counts: Counter[tuple[EventKind, str]] = Counter()
        self._seconds = 0.0

    def count(self, event: Event) -> None:
        """Count an event."""
        with self._lock:
            self._counts[event.kind, event.destination] += 1
            if event.kind is EventKind.UPSCALED:
                self._seconds += event.seconds or 0.0

    def text(self) -> str:
        """Return all metrics in the text format of Prometheus (version 0.0.4).

        Raises
        ------
        OutputError
            If the queue cannot be read.
        """
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        with self._lock:
            counts, seconds = self._counts.copy(), self._seconds
        yield from _head("cxrsr_info", "gauge", "This software.")
        yield f'cxrsr_info{{version="{__version__}"}} 1'
        for kind, meaning in _EVENTS.items():
            name = f"cxrsr_{kind.value}_total"
            yield from _head(name, "counter", meaning)
            found = {to: n for (counted, to), n in counts.items() if counted is kind}
            for destination, number in sorted((found or {"": 0}).items()):
                yield f"{name}{_label('destination', destination)} {number}"
        yield from _head("cxrsr_upscale_seconds_total", "counter", "Seconds spent upscaling.")
        yield f"cxrsr_upscale_seconds_total {seconds:.3f}"
        yield from _head("cxrsr_instances", "gauge", "Instances by state.")
        for state, number in self._view.counts().items():
            yield f"cxrsr_instances{_label('state', state.value)} {number}"
        yield from _head("cxrsr_pending_deliveries", "gauge", "Outputs waiting for a destination.")
        for destination, number in sorted(self._view.pending().items()):
            yield f"cxrsr_pending_deliveries{_label('destination', destination)} {number}"


def _head(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"


def _label(name: str, value: str) -> str:
    if not value:
        return ""
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{{{name}="{escaped}"}}'
