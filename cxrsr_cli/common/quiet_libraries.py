"""Silence libraries whose log lines and warnings quote values of patients."""

import logging
import threading
import warnings
from contextlib import AbstractContextManager

_DICOM_LIBRARIES = ("pydicom", "pylibjpeg", "openjpeg", "highdicom", "pynetdicom", "urllib3")
_DASK_LIBRARIES = ("distributed", "dask", "tornado", "asyncio")
_SILENT = logging.CRITICAL + 1


class _Silence(AbstractContextManager[None]):
    """Silences libraries while at least one thread is inside.

    Levels and filters belong to the process. If each thread restored the state that it
    found, the first to leave would end the silence for the others.
    """

    def __init__(self, libraries: tuple[str, ...], warning_modules: str) -> None:
        self._libraries = libraries
        self._warning_modules = warning_modules
        self._lock = threading.Lock()
        self._inside = 0
        self._levels: dict[logging.Logger, int] = {}
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            # Child loggers can have levels of their own.
            known = {name for name in list(logging.root.manager.loggerDict)
                     if name.split(".")[0] in self._libraries}  # fmt: skip
            loggers = [logging.getLogger(name) for name in known.union(self._libraries)]
            self._levels = {logger: logger.level for logger in loggers}
            for logger in loggers:
                logger.setLevel(_SILENT)
            self._filters = warnings.catch_warnings()
            self._filters.__enter__()
            warnings.filterwarnings("ignore", module=self._warning_modules)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            self._filters.__exit__(None, None, None)
            for logger, level in self._levels.items():
                logger.setLevel(level)


_DICOM_SILENCE = _Silence(_DICOM_LIBRARIES, warning_modules="")
_DASK_SILENCE = _Silence(_DASK_LIBRARIES, warning_modules="(distributed|dask|tornado)")


def quiet_libraries() -> AbstractContextManager[None]:
    """Silence all warnings and the loggers of pydicom, its codecs and the network libraries."""
    return _DICOM_SILENCE


def quiet_dask() -> AbstractContextManager[None]:
    """Silence the loggers and warnings of Dask, once it is imported.

    cxrsr itself reports what matters to a user, such as a crashed worker.
    """
    return _DASK_SILENCE
