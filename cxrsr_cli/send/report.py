"""The report of what was sent, for a machine to read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cxrsr_cli.batch.report import display_path
from cxrsr_cli.connections.destination import SendOutcome, SendResult
from cxrsr_cli.errors import ExitCode
from cxrsr_cli.versions import NOTICE, versions

SCHEMA = "cxrsr-send-report/1"
"""Grows by new keys; another number when one changes its meaning or goes."""

NOT_PROCESSED = "not processed"
"""Stands for the outcome of a file that an interrupted run did not reach."""


@dataclass(frozen=True, slots=True)
class SendRun:
    """A run that has ended.

    Attributes
    ----------
    destination : str
        As the user wrote it; a destination holds no secret.
    files : sequence of Path
        All that were found.
    results : sequence of Sent
        Of those that were come to.
    started, finished : datetime
        With their zone.
    exit_code : ExitCode
        Of the process.
    """

    destination: str
    files: Sequence[Path]
    results: Sequence[SendResult]
    started: datetime
    finished: datetime
    exit_code: ExitCode


def build_report(run: SendRun) -> dict[str, Any]:
    """Return the report as plain values, as docs/send.md describes it.

    Files are named by their paths, and nothing from inside one is in it.
    """
    return {
        "schema": SCHEMA,
        "notice": NOTICE,
        "versions": versions(),
        "destination": run.destination,
        "started": run.started.isoformat(timespec="seconds"),
        "finished": run.finished.isoformat(timespec="seconds"),
        "exit_code": int(run.exit_code),
        "counts": count_by_outcome(run),
        "files": [
            *(file_record(sent) for sent in run.results),
            *({"file": display_path(path), "outcome": NOT_PROCESSED} for path in _left(run)),
        ],
    }


def file_record(sent: SendResult) -> dict[str, Any]:
    """Return one file's part of a report."""
    return {
        "file": display_path(sent.path),
        "outcome": sent.outcome.value,
        "message": sent.message,
        "status": sent.status,
        "decided_by_peer": sent.decided_by_peer,
        "committed": sent.committed,
    }


def count_by_outcome(run: SendRun) -> dict[str, int]:
    """Return how many files ended in which way."""
    outcomes = Counter(sent.outcome for sent in run.results)
    left = len(run.files) - len(run.results)
    return {**{outcome.value: outcomes[outcome] for outcome in SendOutcome}, NOT_PROCESSED: left}


def _left(run: SendRun) -> list[Path]:
    settled = {sent.path for sent in run.results}
    return [path for path in run.files if path not in settled]
