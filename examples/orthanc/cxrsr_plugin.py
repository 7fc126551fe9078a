"""Orthanc upscales each chest radiograph that it gets: a script for its Python plugin.

Install beside `cxrsr_series.py`, which says what is done and what happens on failure::

    install -m 644 cxrsr_plugin.py cxrsr_series.py /etc/orthanc/
    install -d -m 700 -o orthanc -g orthanc /var/lib/orthanc/cxrsr

and in Orthanc's configuration::

    "PythonScript": "/etc/orthanc/cxrsr_plugin.py",
    "Cxrsr": {"Command": "/opt/cxrsr/bin/cxrsr", "Options": "--scale 4"}

A series is taken when it is stable (Orthanc's StableAge). Orthanc's own threads only note its
name; the work is done in a thread of this script, by a process with a time-out.
"""

import json
import os
import threading

import orthanc
from cxrsr_series import GoneError, Settings, Worker

_NOT_THERE = {orthanc.ErrorCode.UNKNOWN_RESOURCE, orthanc.ErrorCode.INEXISTENT_ITEM}


class Inside:
    """The REST interface from inside Orthanc, without a user or a port."""

    def get(self, path: str) -> bytes:
        """Return what is at a path."""
        try:
            content: bytes = orthanc.RestApiGet(path)
        except orthanc.OrthancException as error:
            raise (GoneError if error.args[0] in _NOT_THERE else ValueError)(path) from None
        return content

    def post(self, path: str, body: bytes) -> bytes:
        """Return the answer to a body."""
        try:
            content: bytes = orthanc.RestApiPost(path, body)
        except orthanc.OrthancException:
            raise ValueError(path) from None
        return content


_configured = json.loads(orthanc.GetConfiguration()).get("Cxrsr", {})
_worker = Worker(
    Inside(),
    Settings.of(
        os.environ | {f"CXRSR_{key.upper()}": str(_configured[key]) for key in _configured}
    ),
    orthanc.LogWarning,
)
_came, _ended = threading.Event(), threading.Event()


def _work() -> None:
    while not _ended.is_set():
        _came.wait()
        _came.clear()
        try:
            _worker.drain()
        except Exception as error:  # its text might quote a patient
            orthanc.LogError(f"cxrsr: unexpected {type(error).__name__}; series wait on")


_thread = threading.Thread(target=_work, name="cxrsr", daemon=True)


def on_change(change: int, _level: int, resource: str) -> None:
    """Note what came."""
    if change == orthanc.ChangeType.ORTHANC_STARTED:
        _thread.start()
        _came.set()  # what was left of the last time
    elif change == orthanc.ChangeType.STABLE_SERIES:
        _worker.enqueue(resource)
        _came.set()
    elif change == orthanc.ChangeType.ORTHANC_STOPPED:
        _ended.set()
        _worker.stop()
        _came.set()
        _thread.join(10)


orthanc.RegisterOnChangeCallback(on_change)
