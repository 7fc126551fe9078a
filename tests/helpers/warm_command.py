"""The command in processes that are forked from one with all modules, so that they start at once.

A new interpreter spends seconds on importing torch, which is most of the time of a test that
upscales a small image. Tests of the start itself, of examples and of clusters start a new one.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(
    [
        "torch",
        "cxrsr_cli.batch.runner",
        "cxrsr_cli.commands.app",
        "cxrsr_cli.commands.run",
        "cxrsr_cli.evaluation.export",
        "cxrsr_cli.serve.service",
        "cxrsr_cli.training.train",
        "cxrsr_cli.upscaler",
        "cxrsr_cli.verify.verify",
        __name__,
    ]
)


@dataclass
class WarmProcess:
    """A process with the methods of `subprocess.Popen` that tests use."""

    process: BaseProcess
    arguments: Sequence[str]

    @property
    def pid(self) -> int:
        """Its number."""
        assert self.process.pid is not None
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it."""
        return self.process.exitcode

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.process.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Return its exit code; raises subprocess.TimeoutExpired."""
        self.process.join(timeout_seconds)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(list(self.arguments), timeout_seconds or 0)
        return self.process.exitcode


def start_warm(
    arguments: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] = {},
    stdout: Path = Path(os.devnull),
    stderr: Path = Path(os.devnull),
) -> WarmProcess:
    """Start ``cxrsr`` without input; what it writes is appended to files.

    Parameters
    ----------
    arguments : sequence of str
        Of the command.
    folder : Path, optional
        Its working folder; without one that of this process.
    environment : mapping
        Variables beside those of this process.
    stdout, stderr : Path
        Files for what it writes.
    """
    process = _FORKSERVER.Process(
        target=_run,
        args=(arguments, {**os.environ, **environment}, folder or Path.cwd(), (stdout, stderr)),
    )
    process.start()
    return WarmProcess(process, arguments)


def run_warm(
    arguments: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] = {},
    timeout_seconds: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Run ``cxrsr`` to its end; parameters as of `start_warm`.

    Raises
    ------
    subprocess.TimeoutExpired
        If it takes too long; it is ended then.
    """
    with tempfile.TemporaryDirectory() as streams:
        stdout, stderr = Path(streams, "stdout"), Path(streams, "stderr")
        process = start_warm(
            arguments, folder=folder, environment=environment, stdout=stdout, stderr=stderr
        )
        try:
            code = process.wait(timeout_seconds)
        finally:
            process.kill()
        output, errors = (path.read_text(encoding="utf-8") for path in (stdout, stderr))
    return subprocess.CompletedProcess(arguments, code, output, errors)


def _run(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, streams: Sequence[Path]
) -> None:
    from cxrsr_cli.commands.app import main

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # pytest may run under nohup
    for path, descriptor in zip(streams, (1, 2), strict=True):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = ["cxrsr", *arguments]
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # multiprocessing runs none of them
