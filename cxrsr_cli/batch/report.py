"""The report of a run: what a night did, for a machine to read in the morning."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrsr_cli.batch.result import Result, Status
from cxrsr_cli.errors import ExitCode, OutputError
from cxrsr_cli.job import Job
from cxrsr_cli.versions import NOTICE, versions
from cxrsr_cli.write.atomic import replacing

if TYPE_CHECKING:
    from cxrsr_cli.upscale import Upscaler

SCHEMA = "cxrsr-run-report/1"
"""Grows by new keys; another number when one changes its meaning or goes."""

NOT_COME_TO = "not come to"
"""Status of the files that an interrupted run left."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended.

    Attributes
    ----------
    upscaler : Upscaler
        What was done to the files.
    jobs : sequence of Job
        All that were planned.
    results : sequence of Result
        Of those that were come to, in order.
    started, finished : datetime
        With their zone.
    exit_code : ExitCode
        Of the process.
    dry_run : bool
        Whether nothing was written.
    """

    upscaler: "Upscaler"
    jobs: Sequence[Job]
    results: Sequence[Result]
    started: datetime
    finished: datetime
    exit_code: ExitCode
    dry_run: bool = False


def build_report(run: Run) -> dict[str, Any]:
    """Return the report as plain values, without patient data.

    Parameters
    ----------
    run : Run
        What happened.

    Returns
    -------
    dict
        As docs/upscale.md describes it. Files are named by their paths, and
        nothing from inside one is in it.
    """
    upscaler, recipe = run.upscaler, run.upscaler.recipe
    rest = run.jobs[len(run.results) :]
    return {
        "schema": SCHEMA,
        "notice": NOTICE,
        "versions": versions(),
        "model": {"name": recipe.model_name, "sha256": recipe.model_sha256},
        "options": {
            "scale": recipe.scale,
            "consistency": recipe.consistency,
            "precision": str(recipe.precision),
            "device": str(upscaler.restorer.device),
            "tile": recipe.tile,
            "allow": sorted(upscaler.allowed),
            "transfer_syntax": str(upscaler.syntax),
            "overwrite": upscaler.overwrite,
            "keep_private": upscaler.keep_private,
            "dry_run": run.dry_run,
        },
        "started": run.started.isoformat(timespec="seconds"),
        "finished": run.finished.isoformat(timespec="seconds"),
        "exit_code": int(run.exit_code),
        "counts": count(run),
        "peak_memory_bytes": max((result.peak_memory for result in run.results), default=0),
        "files": [describe(result) for result in run.results]
        + [{**_names(job), "status": NOT_COME_TO} for job in rest],
    }


def count(run: Run) -> dict[str, int]:
    """Return how many files ended in which way."""
    statuses = Counter(result.status for result in run.results)
    left = len(run.jobs) - len(run.results)
    return {**{status.value: statuses[status] for status in Status}, NOT_COME_TO: left}


def describe(result: Result) -> dict[str, Any]:
    """Return one file's part of a report."""
    error, deviation, timing = result.error, result.deviation, result.timing
    return {
        **_names(result.job),
        "status": result.status.value,
        "error": error
        and {
            "kind": type(error).__name__,
            "message": str(error),
            "exit_code": int(error.exit_code),
        },
        "warnings": result.warnings,
        "seconds": {
            "read": round(timing.read, 3),
            "restore": round(timing.restore, 3),
            "write": round(timing.write, 3),
            "total": round(timing.total, 3),
        },
        "input_shape": result.input_shape,
        "output_shape": result.output_shape,
        "deviation": deviation
        and {"rms": round(deviation.rms, 4), "largest": round(deviation.largest, 4)},
        "source_sha256": result.source_sha256,
        "output_sha256": result.output_sha256,
        "peak_memory_bytes": result.peak_memory,
    }


def check_report(path: Path) -> None:
    """Refuse a report's path before any work is done.

    Raises
    ------
    OutputError
        If something else than an earlier report is there, or its folder is not.
    """
    try:
        if path.exists() and SCHEMA.encode() not in path.read_bytes()[:100]:
            raise OutputError(f"{path} exists and is no report; it is not replaced")
    except OSError as error:
        raise OutputError(f"cannot write the report {path}: {error.strerror}") from error
    if not path.absolute().parent.is_dir():
        raise OutputError(f"cannot write the report {path}: no such folder")


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write a report whole; an earlier one is replaced.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the report {path}: {error.strerror}") from error


def _names(job: Job) -> dict[str, str]:
    return {"source": str(job.source), "output": str(job.target)}
