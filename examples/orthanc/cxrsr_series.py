"""A series of Orthanc's: out, through ``cxrsr upscale``, and the results in again.

`cxrsr_plugin.py` uses it inside Orthanc; `cxrsr_rule.lua` starts it as a process of its own::

    cxrsr_series.py SERIES      upscale a series, by Orthanc's identifier, and all that wait
    cxrsr_series.py             all that wait

It needs Python 3.11 and nothing else; cxrsr is a command, which may have another Python.

A series waits as a file of its name in SPOOL/waiting, so that neither a restart of Orthanc nor a
power cut loses one. One is worked on at a time. Its images lie in SPOOL/work meanwhile, under
numbers, readable for Orthanc's user only, and are removed in every case, after a crash when the
next series comes. Only CR and DX are taken; a series that cxrsr made never is, so that nothing
goes round.

On failure: results that were made are imported, the series moves to SPOOL/failed with a JSON of
exit code, time-out and cxrsr's messages, and the next goes on. What to do again, move back to
waiting. If Orthanc cannot be reached, or at a stop, the series waits on. A series imported twice
has the same UIDs, and is there once.

Environment, or for the plugin Orthanc's configuration, ``"Cxrsr": {"Command": ...}``:

===================  =============  ================================================
``CXRSR_COMMAND``    ``Command``    the command (cxrsr)
``CXRSR_OPTIONS``    ``Options``    more options of upscale, quoted as in a shell
``CXRSR_TIMEOUT``    ``Timeout``    seconds for a series (3600)
``CXRSR_SPOOL``      ``Spool``      a folder of Orthanc's user (/var/lib/orthanc/cxrsr)
===================  =============  ================================================

and for the process only ``ORTHANC_URL`` (http://127.0.0.1:8042; the rule knows the port),
``ORTHANC_USERNAME`` and ``ORTHANC_PASSWORD``.

Logs hold Orthanc's identifiers, numbers and exit codes; nothing of a patient.
"""

import base64
import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

MODALITIES = {"CR", "DX"}
_CONTRIBUTING_EQUIPMENT, _MODEL_NAME = "0018,a001", "0008,1090"
_PATIENCE = 300
"""Seconds for an answer of Orthanc's."""
_LONGEST_MESSAGE = 4000
_NOTHING_TO_DO = 3
"""Exit code if no instance of the series is a chest radiograph."""


class GoneError(LookupError):
    """What was asked for is not in Orthanc."""


class Rest(Protocol):
    """Orthanc's REST interface.

    `OSError` if Orthanc is not there, `GoneError` if the path is not, `ValueError` if it refuses.
    """

    def get(self, path: str) -> bytes:
        """Return what is at a path."""
        ...

    def post(self, path: str, body: bytes) -> bytes:
        """Return the answer to a body."""
        ...


@dataclass(frozen=True, slots=True)
class Http:
    """The interface over HTTP."""

    url: str
    username: str = ""
    password: str = ""

    def get(self, path: str) -> bytes:
        """Return what is at a path."""
        return self._ask(path, None)

    def post(self, path: str, body: bytes) -> bytes:
        """Return the answer to a body."""
        return self._ask(path, body)

    def _ask(self, path: str, body: bytes | None) -> bytes:
        request = urllib.request.Request(self.url + path, body)  # noqa: S310
        if self.username:
            token = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_PATIENCE) as answer:
                content: bytes = answer.read()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in {401, 403}:
                raise PermissionError(error.code, "Orthanc wants another user") from None
            raise (GoneError if error.code == 404 else ValueError)(error.code) from None
        return content


@dataclass(frozen=True, slots=True)
class Settings:
    """What an installation chooses."""

    command: str
    options: tuple[str, ...]
    timeout: float
    spool: Path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the environment; `ValueError` if it cannot be meant."""
        return cls(
            environment.get("CXRSR_COMMAND") or "cxrsr",
            tuple(shlex.split(environment.get("CXRSR_OPTIONS", ""))),
            float(environment.get("CXRSR_TIMEOUT") or 3600),
            Path(environment.get("CXRSR_SPOOL") or "/var/lib/orthanc/cxrsr"),
        )


class Worker:
    """Upscales the series that wait, one after the other."""

    def __init__(self, rest: Rest, settings: Settings, log: Callable[[str], None]) -> None:
        self._rest, self._settings, self._log = rest, settings, log
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        spool = settings.spool
        self._waiting, self._failed, self._work = (
            spool / name for name in ("waiting", "failed", "work")
        )
        for folder in (self._waiting, self._failed):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def enqueue(self, series: str) -> None:
        """Let a series wait."""
        (self._waiting / series).touch()

    def drain(self) -> None:
        """Do all that wait, unless another process is at it, which then does."""
        # Looked for again after the lock is free: who came meanwhile relied on its holder.
        while any(self._waiting.iterdir()) and not self._stopping.is_set():
            with self._lock() as held:
                if not held:
                    return
                for waiting in sorted(self._waiting.iterdir()):
                    try:
                        self._do(waiting)
                    except OSError as error:
                        # Orthanc went away, or the disk is full: not the series' fault.
                        self._log(f"cxrsr: {type(error).__name__}; series wait on")
                        return

    def stop(self) -> None:
        """End the work in hand; the series waits on."""
        self._stopping.set()
        self._kill()

    def _do(self, waiting: Path) -> None:
        series, since = waiting.name, waiting.stat().st_mtime_ns
        messages, imported = "", 0
        try:
            instances = self._wanted(series)
            shutil.rmtree(self._work, ignore_errors=True)
            self._work.mkdir(mode=0o700)
            (self._work / "in").mkdir()
            for number, instance in enumerate(instances):
                content = self._rest.get(f"/instances/{instance}/file")
                (self._work / "in" / f"{number:04}.dcm").write_bytes(content)
            code = self._upscale() if instances else 0
            if self._stopping.is_set():
                return
            for path in sorted((self._work / "out").glob("*.dcm")):
                self._rest.post("/instances", path.read_bytes())
                imported += 1
            messages = self._messages()
        except OSError:
            raise
        except Exception as error:  # named, but not quoted: its text might be a patient's
            code, instances, messages = 1, [], type(error).__name__
        finally:
            shutil.rmtree(self._work, ignore_errors=True)
        if instances or code:
            self._log(
                f"cxrsr: series {series}: exit code {code}, "
                f"{imported} of {len(instances)} instances imported"
            )
        if code not in (0, _NOTHING_TO_DO):
            told = {"exit_code": code, "imported": imported, "messages": messages.splitlines()}
            (self._failed / series).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        # Did an image come meanwhile? Then once more.
        if waiting.stat().st_mtime_ns == since:
            waiting.unlink()

    def _wanted(self, series: str) -> list[str]:
        """Return a series' instances; none if it is not to be upscaled, or gone."""
        try:
            told = json.loads(self._rest.get(f"/series/{series}"))
        except GoneError:
            return []
        if told["MainDicomTags"].get("Modality") not in MODALITIES:
            return []
        instances: list[str] = told["Instances"]
        for instance in instances:
            if is_own(json.loads(self._rest.get(f"/instances/{instance}/tags?short"))):
                self._log(f"cxrsr: series {series}: made by cxrsr, left alone")
                return []
        return instances

    def _upscale(self) -> int:
        """Run the command; return its exit code, or 124 if it took too long."""
        # Another Python's modules are not cxrsr's.
        others = {"PYTHONHOME", "PYTHONPATH"}
        environment = {name: value for name, value in os.environ.items() if name not in others}
        words = [self._settings.command, "upscale", "--quiet", "--no-progress", "--no-ledger"]
        try:
            with (self._work / "messages").open("wb") as messages:
                self._process = subprocess.Popen(
                    [*words, *self._settings.options, "in", "out"],
                    cwd=self._work,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=messages,
                    start_new_session=True,  # so that what it started ends with it
                )
            if self._stopping.is_set():
                self._kill()
            return self._process.wait(self._settings.timeout)
        except (FileNotFoundError, PermissionError):
            (self._work / "messages").write_text("cannot run the command\n", encoding="utf-8")
            return 127
        except subprocess.TimeoutExpired:
            return 124
        finally:
            self._kill()

    def _kill(self) -> None:
        if self._process and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _messages(self) -> str:
        path = self._work / "messages"
        return path.read_text("utf-8", "replace")[-_LONGEST_MESSAGE:] if path.exists() else ""

    @contextlib.contextmanager
    def _lock(self) -> Iterator[bool]:
        with (self._settings.spool / "lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def is_own(tags: Mapping[str, Any]) -> bool:
    """Tell by its Contributing Equipment whether cxrsr made an instance (tags as in ?short)."""
    equipment = tags.get(_CONTRIBUTING_EQUIPMENT) or []
    return any((item.get(_MODEL_NAME) or "").strip() == "cxrsr" for item in equipment)


def main() -> None:
    """Upscale the series that is named, and those that wait."""
    # Orthanc's sockets would stay open in this process when it ends.
    os.closerange(3, 4096)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rest = Http(
        os.environ.get("ORTHANC_URL", "http://127.0.0.1:8042").rstrip("/"),
        os.environ.get("ORTHANC_USERNAME", ""),
        os.environ.get("ORTHANC_PASSWORD", ""),
    )
    worker = Worker(rest, Settings.of(os.environ), lambda line: print(line, flush=True))
    for series in sys.argv[1:]:
        worker.enqueue(series)
    worker.drain()


if __name__ == "__main__":
    main()
