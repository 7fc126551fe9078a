"""Silence libraries whose warnings quote patients' values."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Their children inherit the level.
_LOGGERS = (
    "pydicom",
    "pylibjpeg",
    "openjpeg",
    "highdicom",
    "pynetdicom",
    "urllib3",
)
_SILENT = logging.CRITICAL + 1


class _Silence:
    """Counts who needs it: levels and filters belong to the process, not to a thread.

    Were each thread to restore what it found, the first to leave would open
    the mouth of a library that another still works with.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._levels: list[int] = []
        self._filters = warnings.catch_warnings()

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            self._levels = [logging.getLogger(name).level for name in _LOGGERS]
            for name in _LOGGERS:
                logging.getLogger(name).setLevel(_SILENT)
            self._filters = warnings.catch_warnings()
            self._filters.__enter__()
            warnings.simplefilter("ignore")

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            self._filters.__exit__(None, None, None)
            for name, level in zip(_LOGGERS, self._levels, strict=True):
                logging.getLogger(name).setLevel(level)


_SILENCE = _Silence()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence pydicom and its codecs as long as any thread is inside."""
    _SILENCE.enter()
    try:
        yield
    finally:
        _SILENCE.leave()


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
