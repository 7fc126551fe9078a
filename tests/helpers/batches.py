"""Helpers to run batches over small folders."""

import subprocess
from pathlib import Path

from cxrsr_cli.batch.ledger import LEDGER_NAME, Ledger
from cxrsr_cli.batch.plan import plan_batch
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.result import FileStatus, Result
from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler
from tests.helpers.warm_command import run_warm


def jobs(inputs: Path) -> list[Job]:
    return plan_batch([inputs], inputs.parent / "out").jobs


def run(
    upscaler: Upscaler,
    inputs: Path,
    *,
    io_workers: int = 1,
    quarantine: Quarantine | None = None,
) -> list[Result]:
    """Run with the ledger in the output folder, as the command does."""
    ledger = Ledger(inputs.parent / "out" / LEDGER_NAME)
    try:
        executor = LocalExecutor(upscaler, io_workers)
        return list(BatchRunner(executor, ledger, quarantine).run(jobs(inputs)))
    finally:
        ledger.close()


def statuses(results: list[Result]) -> list[FileStatus]:
    return [result.status for result in results]


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder."""
    return run_warm(arguments, folder=folder)
