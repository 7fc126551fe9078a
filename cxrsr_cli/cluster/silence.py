"""Silence Dask: it writes about tasks and workers to stderr, in its own words."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("distributed", "dask", "tornado", "asyncio")
SILENT = logging.CRITICAL + 1


@contextmanager
def quiet_dask() -> Iterator[None]:
    """Silence Dask's loggers and warnings in this process.

    What matters to a user is said by whoever meets it: a worker that died, a
    scheduler that is gone.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(SILENT)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="(distributed|dask|tornado)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
