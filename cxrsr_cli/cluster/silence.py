"""Silence Dask: it writes about tasks and workers to stderr, in its own words."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LIBRARIES = ("distributed", "dask", "tornado", "asyncio")
_DASK_LEVEL = logging.CRITICAL + 1


@contextmanager
def quiet_dask() -> Iterator[None]:
    """Silence the loggers and warnings of Dask, once it is imported, in this process.

    What matters to a user is said by whoever meets it: a worker that died, a
    scheduler that is gone.
    """
    # Dask gives many of its loggers levels of their own.
    known = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in _LIBRARIES]
    loggers = [logging.getLogger(name) for name in {*_LIBRARIES, *known}]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(_DASK_LEVEL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="(distributed|dask|tornado)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
