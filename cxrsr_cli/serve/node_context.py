"""What the parts of a node share: spool, queue, observer, and the signals to work and to stop."""

import threading
from collections.abc import Callable

from cxrsr_cli.common.backoff import RetryPolicy
from cxrsr_cli.serve.events import Event
from cxrsr_cli.serve.queue import Queue
from cxrsr_cli.serve.spool import Spool


class NodeContext:
    """Shared by the acceptor and the workers of a node; any thread may call `on_event`."""

    def __init__(
        self,
        spool: Spool,
        queue: Queue,
        retry: RetryPolicy,
        on_event: Callable[[Event], None],
    ) -> None:
        self.spool = spool
        self.queue = queue
        self.retry = retry
        self.report = on_event
        self._changed = threading.Condition()
        self._work_count = 0
        self._is_stopping = False
        self.is_abandoning = False
        """Whether the image in progress is left to the next start."""

    def is_stopping(self) -> bool:
        """Tell whether workers must end after the file in progress."""
        return self._is_stopping

    def stop(self) -> None:
        """Tell all workers to end."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Tell all workers to end, and to leave the image in progress to the next start."""
        self.is_abandoning = True
        self.stop()

    def raise_if_abandoned(self, _: float) -> None:
        """Raise KeyboardInterrupt after `abandon`; called as an image makes progress."""
        if self.is_abandoning:
            raise KeyboardInterrupt

    @property
    def work_count(self) -> int:
        """How often `announce_work` was called."""
        return self._work_count

    def announce_work(self) -> None:
        """Wake all workers, because the queue changed."""
        with self._changed:
            self._work_count += 1
            self._changed.notify_all()

    def wait_for_work(self, seen: int, timeout: float) -> None:
        """Wait until work is announced or the node stops, at most `timeout` seconds.

        `seen` is the `work_count` that the worker read before it looked at the queue:
        work announced after that ends the wait at once.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping or self._work_count != seen, timeout)

    def pause(self, seconds: float) -> None:
        """Wait some seconds, or until the node stops."""
        with self._changed:
            self._changed.wait_for(self.is_stopping, seconds)
