"""The node: network, worker and couriers side by side, until told to stop."""

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
from cxrsr_cli.serve.events import Event, EventKind, Say
from cxrsr_cli.serve.maintenance import (
    delete_history,
    give_up_removed_destination,
    reconcile,
    write_missing_dead_letters,
)
from cxrsr_cli.serve.monitoring import Metrics, health_server
from cxrsr_cli.serve.node_context import NodeContext
from cxrsr_cli.serve.processor import UpscaleWorker
from cxrsr_cli.serve.queue import Queue
from cxrsr_cli.serve.queue_view import QueueView
from cxrsr_cli.serve.sender import DeliveryWorker
from cxrsr_cli.serve.spool import Spool
from cxrsr_cli.upscaler import Upscaler

_LOG = logging.getLogger(__name__)

_POLL = 1.0
"""Seconds between looks at the queue when nobody wakes: for what is due, or was revived."""
_PAUSE = 5.0
"""Seconds after the node's own trouble, such as a full disk."""
_PATIENCE = 20.0
"""Seconds that receptions, and what is being sent, get to end when the node stops."""
_HOUR = 3600.0
_GLANCE = 0.2
"""Seconds between two looks whether it is time to stop."""
_WORKER = "worker"


class Node:
    """A node.

    Parameters
    ----------
    config : ServeConfig
        What it does.
    said : callable
        Told what happens, by any thread.
    """

    def __init__(self, config: ServeConfig, said: Say) -> None:
        self._config = config
        self._spool = Spool(config.spool)
        self._queue = Queue(self._spool.ledger, longest=config.retry.max_delay)
        self._ledger = Ledger(self._spool.ledger)
        self._survey = QueueView(self._spool.ledger)
        self._metrics = Metrics(self._survey)
        self._said = said
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._failure: CxrsrError | None = None
        self._is_asked_to_stop = False
        self._tidy_due = 0.0
        self._failing_parts: set[str] = set()
        """Names of parts whose last round failed."""

    def run(self, asked_to_stop: Callable[[], bool]) -> None:
        """Serve until asked to stop; what is in hand is finished first.

        Parameters
        ----------
        asked_to_stop : callable
            Asked some times a second.

        Raises
        ------
        UsageError, MissingExtraError
            If a certificate, a secret or a library is not there.
        ModelError, DeviceError
            If a rule's model cannot be loaded.
        NetworkError
            If a port cannot be had.
        OutputError
            If the spool cannot be used, or another node uses it.
        UnexpectedError
            If a part of the node failed over a defect.
        KeyboardInterrupt
            If it came; threads are left that should be ended with the process.
        """
        config = self._config
        for warning in check_environment(config):
            self._said(Event(kind=EventKind.ERROR, reason=warning))
        upscalers = load_upscalers(config)
        self._spool.make()
        with ExitStack() as stack:
            stack.enter_context(self._spool.held())
            for account in (self._queue, self._ledger, self._survey):
                stack.enter_context(closing(account))
            self._queue.check()
            self._ledger.check()
            found = reconcile(self._queue, self._spool)
            if found:
                reason = f"{found} files without an entry in the queue are taken in anew"
                self._report(Event(kind=EventKind.ERROR, reason=reason))
            means = NodeContext(
                spool=self._spool,
                queue=self._queue,
                retry=config.retry,
                on_event=self._report,
                stop=self._stopping.is_set,
            )
            worker = UpscaleWorker(
                rules=config.rules, upscalers=upscalers, ledger=self._ledger, context=means
            )
            couriers = [
                DeliveryWorker(name=name, destination=destination, context=means)
                for name, destination in config.destinations.items()
            ]
            intake = InstanceAcceptor(self._spool, self._queue, self._report, self._wake.set)
            receiver = StorageScp(
                config.scp,
                self._spool.incoming,
                intake.accept,
                self._refused,
                tls=config.tls.server_context() if config.tls else None,
                sop_classes=storage_classes(
                    frozenset(allowed for rule in config.rules for allowed in rule.upscale.allow)
                ),
            )
            if config.health:
                stack.enter_context(
                    health_server(
                        config.health.address,
                        config.health.port,
                        lambda: receiver.is_alive and self._is_well,
                        self._metrics.text,
                    )
                )
            with self._background_thread(_WORKER, worker.run_once), ExitStack() as sending:
                sending.enter_context(
                    self._background_thread("housekeeping", self._run_maintenance)
                )
                for courier in couriers:
                    sending.enter_context(
                        self._background_thread(f"to {courier.name}", courier.run_once)
                    )
                receiver.start()
                patience = 0.0
                try:
                    self._wait(receiver, asked_to_stop)
                    patience = _PATIENCE
                finally:
                    self._report(Event(kind=EventKind.STOPPING))
                    receiver.stop(patience)
        if self._failure:
            raise self._failure

    def _wait(self, receiver: StorageScp, asked_to_stop: Callable[[], bool]) -> None:
        listen = self._config.scp
        self._report(
            Event(
                kind=EventKind.LISTENING,
                reason=f"{listen.ae_title} on {listen.address} port {receiver.port}",
            )
        )
        while not (asked_to_stop() or self._failure):
            if not receiver.is_alive:
                self._failure = InternalError("the receiving thread ended; please report it")
            self._stopping.wait(_GLANCE)
        self._is_asked_to_stop = True

    @property
    def _is_well(self) -> bool:
        return not (self._failure or self._is_asked_to_stop or self._failing_parts)

    def _run_maintenance(self) -> bool:
        """Do once an hour what time asks for.

        Not in the main thread: a second signal interrupts it, perhaps with the queue in hand.
        """
        if time.monotonic() < self._tidy_due:
            return False
        self._tidy_due = time.monotonic() + _HOUR
        delete_history(self._queue, self._ledger, self._spool, self._config.history_retention_days)
        write_missing_dead_letters(self._queue, self._survey, self._spool)
        for name in self._survey.pending():
            if name not in self._config.destinations:
                lost = give_up_removed_destination(self._queue, self._spool, name)
                reason = f"{lost} outputs were for '{name}', which is no destination any more"
                self._report(Event(kind=EventKind.ERROR, reason=reason))
        for destination in self._config.destinations.values():
            if isinstance(destination, Folder):
                with suppress(OSError):  # a share that is away is its courier's to say
                    remove_stale_temporaries(destination.path)
        return False

    @contextmanager
    def _background_thread(self, name: str, work: Callable[[], bool]) -> Iterator[None]:
        """Repeat work in a thread until the node stops."""
        thread = threading.Thread(target=self._loop, args=(name, work), name=name, daemon=True)
        thread.start()
        try:
            yield
        except KeyboardInterrupt:
            # In a hurry: what is in hand is done by the next start.
            raise
        except BaseException:
            self._end(thread)
            raise
        self._end(thread)

    def _end(self, thread: threading.Thread) -> None:
        self._stopping.set()
        self._wake.set()
        # A peer that takes a byte a minute must not hold up the end. The worker is waited for.
        thread.join(None if thread.name == _WORKER else _PATIENCE)

    def _loop(self, name: str, work: Callable[[], bool]) -> None:
        while not self._stopping.is_set():
            try:
                something = work()
                self._failing_parts.discard(name)
                if something:
                    self._wake.set()
                    continue
            except OutputError as error:
                # A full disk can have room again.
                self._failing_parts.add(name)
                self._report(Event(kind=EventKind.ERROR, reason=str(error)))
                self._stopping.wait(_PAUSE)
                continue
            except CxrsrError as error:
                self._failure = error
                return
            except Exception as error:
                _LOG.debug("the part '%s' of the node failed", name, exc_info=error)
                self._failure = InternalError.of(error)
                return
            self._wake.wait(_POLL)
            self._wake.clear()

    def _refused(self, refusal: RefusalEvent) -> None:
        peer = f"{refusal.calling_ae} {refusal.address}".strip()
        self._report(Event(kind=EventKind.REFUSED, peer=peer, reason=refusal.reason))

    def _report(self, event: Event) -> None:
        self._metrics.count(event)
        self._said(event)


def load_upscalers(config: ServeConfig) -> dict[UpscaleOptions, Upscaler]:
    """Load what the rules ask for, once for each way of upscaling.

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
