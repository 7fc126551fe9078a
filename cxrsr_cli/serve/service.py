"""The node: an SCP, an upscaling worker and a delivery worker for each destination."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace

from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.common.files import remove_stale_temporaries
from cxrsr_cli.errors import CxrsrError, InternalError, OutputError
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import UpscaleOptions
from cxrsr_cli.receive.presentation_contexts import storage_classes
from cxrsr_cli.receive.refusal import RefusalEvent
from cxrsr_cli.receive.storage_scp import StorageScp
from cxrsr_cli.send.folder import Folder
from cxrsr_cli.serve.acceptor import InstanceAcceptor
from cxrsr_cli.serve.config import ServeConfig, check_environment
from cxrsr_cli.serve.events import Event, EventKind
from cxrsr_cli.serve.maintenance import (
    delete_history,
    give_up_removed_destination,
    reconcile,
    write_missing_dead_letters,
)
from cxrsr_cli.serve.monitoring import Metrics, health_server
from cxrsr_cli.serve.node_context import NodeContext
from cxrsr_cli.serve.processor import UpscaleWorker
from cxrsr_cli.serve.queue import Queue, QueueView
from cxrsr_cli.serve.sender import DeliveryWorker
from cxrsr_cli.serve.spool import Spool
from cxrsr_cli.upscaler import Upscaler

_LOG = logging.getLogger(__name__)

_WORK_POLL_SECONDS = 1.0
"""Wait before the queue is read again without a signal: for due retries and other processes."""
_ERROR_PAUSE_SECONDS = 5.0
"""Pause after an error of the node itself, such as a full disk."""
_STOP_TIMEOUT = 20.0
"""Seconds for receptions and deliveries in progress when the node stops."""
_MAINTENANCE_SECONDS = 3600.0
_STOP_POLL_SECONDS = 0.2
_UPSCALING = "upscaling"


class Node:
    """A node. Its threads call `on_event`."""

    def __init__(self, config: ServeConfig, on_event: Callable[[Event], None]) -> None:
        self._config = config
        self._spool = Spool(config.spool)
        self._queue = Queue(self._spool.ledger, max_delay=config.retry.max_delay)
        self._ledger = Ledger(self._spool.ledger)
        self._view = QueueView(self._spool.ledger)
        self._metrics = Metrics(self._view)
        self._on_event = on_event
        self._context = NodeContext(self._spool, self._queue, config.retry, self._report)
        self._failure: CxrsrError | None = None
        self._is_asked_to_stop = False
        self._maintenance_due = 0.0
        self._failing_parts: set[str] = set()
        """Names of parts whose last round failed."""

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Serve until `should_stop`, asked several times a second; finish the work in progress.

        Raises
        ------
        UsageError, MissingExtraError
            If a certificate, a secret or a library is missing.
        ModelError, DeviceError
            If the model of a rule cannot be loaded.
        NetworkError
            If a port is not available.
        OutputError
            If the spool cannot be used, or another node uses it.
        InternalError
            If a part of the node failed because of a defect.
        KeyboardInterrupt
            If it was raised. Threads may be left; end the process.
        """
        config = self._config
        for warning in check_environment(config):
            self._on_event(Event(kind=EventKind.ERROR, reason=warning))
        upscalers = load_upscalers(config)
        self._spool.make()
        with ExitStack() as stack:
            stack.enter_context(self._spool.locked())
            for file in (self._queue, self._ledger, self._view):
                stack.enter_context(closing(file))
            self._queue.check()
            self._ledger.check()
            found = reconcile(self._queue, self._spool)
            if found:
                reason = f"{found} files without a queue entry were queued again"
                self._report(Event(kind=EventKind.ERROR, reason=reason))
            scp = self._make_scp()
            if config.health:
                stack.enter_context(
                    health_server(
                        config.health.address,
                        config.health.port,
                        lambda: scp.is_alive and self._is_healthy,
                        self._metrics.text,
                    )
                )
            upscale_worker = UpscaleWorker(
                rules=config.rules,
                upscalers=upscalers,
                ledger=self._ledger,
                context=self._context,
            )
            with self._background_thread(_UPSCALING, upscale_worker.run_once), ExitStack() as rest:
                rest.enter_context(self._background_thread("maintenance", self._run_maintenance))
                for name, destination in config.destinations.items():
                    worker = DeliveryWorker(
                        name=name, destination=destination, context=self._context
                    )
                    rest.enter_context(self._background_thread(f"to {name}", worker.run_once))
                scp.start()
                timeout = 0.0
                try:
                    self._wait(scp, should_stop)
                    timeout = _STOP_TIMEOUT
                finally:
                    self._report(Event(kind=EventKind.STOPPING))
                    scp.stop(timeout)
        if self._failure:
            raise self._failure

    def _make_scp(self) -> StorageScp:
        config = self._config
        return StorageScp(
            config.scp,
            self._spool.incoming,
            InstanceAcceptor(self._context).accept,
            self._report_refusal,
            tls=config.tls.server_context() if config.tls else None,
            sop_classes=storage_classes(
                frozenset(override for rule in config.rules for override in rule.upscale.allow)
            ),
        )

    def _wait(self, scp: StorageScp, should_stop: Callable[[], bool]) -> None:
        config = self._config.scp
        self._report(
            Event(
                kind=EventKind.LISTENING,
                reason=f"{config.ae_title} on {config.address} port {scp.port}",
            )
        )
        while not (should_stop() or self._failure):
            if not scp.is_alive:
                self._failure = InternalError("the receiving thread ended; please report it")
            self._context.pause(_STOP_POLL_SECONDS)
        self._is_asked_to_stop = True

    @property
    def _is_healthy(self) -> bool:
        return not (self._failure or self._is_asked_to_stop or self._failing_parts)

    def _run_maintenance(self) -> bool:
        """Once an hour, delete old entries and repair what failed before.

        Not in the main thread, which a second signal could interrupt inside the queue.
        """
        if time.monotonic() < self._maintenance_due:
            return False
        self._maintenance_due = time.monotonic() + _MAINTENANCE_SECONDS
        delete_history(self._queue, self._ledger, self._spool, self._config.history_retention_days)
        write_missing_dead_letters(self._queue, self._view, self._spool)
        for name in self._view.pending():
            if name not in self._config.destinations:
                count = give_up_removed_destination(self._queue, self._spool, name)
                reason = f"gave up {count} outputs: the configuration has no destination '{name}'"
                self._report(Event(kind=EventKind.ERROR, reason=reason))
        for destination in self._config.destinations.values():
            if isinstance(destination, Folder):
                with suppress(OSError):  # its delivery worker reports an unavailable share
                    remove_stale_temporaries(destination.path)
        return False

    @contextmanager
    def _background_thread(self, name: str, run_once: Callable[[], bool]) -> Iterator[None]:
        """Repeat work in a thread until the block ends."""
        thread = threading.Thread(target=self._loop, args=(name, run_once), name=name, daemon=True)
        thread.start()
        try:
            yield
        except KeyboardInterrupt:
            # Does not wait: the next start finishes the work in progress.
            raise
        except BaseException:
            self._join(thread)
            raise
        self._join(thread)

    def _join(self, thread: threading.Thread) -> None:
        self._context.stop()
        # The upscaling worker ends by itself; a slow peer must not delay the end.
        thread.join(None if thread.name == _UPSCALING else _STOP_TIMEOUT)

    def _loop(self, name: str, run_once: Callable[[], bool]) -> None:
        context = self._context
        while not context.is_stopping():
            seen = context.work_count
            try:
                was_busy = run_once()
            except OutputError as error:
                # Temporary: a full disk may have space again later.
                self._failing_parts.add(name)
                self._report(Event(kind=EventKind.ERROR, reason=str(error)))
                context.pause(_ERROR_PAUSE_SECONDS)
                continue
            except CxrsrError as error:
                self._failure = error
                return
            except Exception as error:
                _LOG.debug("the part '%s' of the node failed", name, exc_info=error)
                self._failure = InternalError.of(error)
                return
            self._failing_parts.discard(name)
            if was_busy:
                context.announce_work()
            else:
                context.wait_for_work(seen, _WORK_POLL_SECONDS)

    def _report_refusal(self, refusal: RefusalEvent) -> None:
        peer = f"{refusal.calling_ae} {refusal.address}".strip()
        self._report(Event(kind=EventKind.REFUSED, peer=peer, reason=refusal.reason))

    def _report(self, event: Event) -> None:
        self._metrics.count(event)
        self._on_event(event)


def load_upscalers(config: ServeConfig) -> dict[UpscaleOptions, Upscaler]:
    """Load an upscaler for each set of options that the rules have.

    Raises
    ------
    ModelError, DeviceError
        As the command ``upscale``.
    """
    wanted = {rule.upscale for rule in config.rules if not rule.ignore}
    return {
        options: Upscaler.load(
            find_model(options.model, options.scale),
            replace(options, device=config.device, memory=config.memory),
        )
        for options in wanted
    }
