"""What the parts of a node that do the work have in common."""

from collections.abc import Callable
from dataclasses import dataclass

from cxrsr_cli.common.backoff import RetryPolicy
from cxrsr_cli.serve.events import Say
from cxrsr_cli.serve.queue import Queue
from cxrsr_cli.serve.spool import Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    """What worker and couriers work with.

    Attributes
    ----------
    spool, queue
        Where files and accounts are.
    retry : Retry
        When what failed is tried again.
    said : callable
        Told what happens.
    stop : callable
        Asked between files.
    """

    spool: Spool
    queue: Queue
    retry: RetryPolicy
    on_event: Say
    stop: Callable[[], bool]
