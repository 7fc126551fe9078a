"""The report of a run: what a night did, for a machine to read in the morning."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cxrsr_cli.batch.result import FileStatus, Result
from cxrsr_cli.common.files import atomic_write
from cxrsr_cli.dicom.write import check_writable
from cxrsr_cli.errors import ExitCode, OutputError
from cxrsr_cli.options import Job, RunInfo
from cxrsr_cli.versions import NOTICE, versions

SCHEMA = "cxrsr-run-report/1"
"""Grows by new keys; another number when one changes its meaning or goes."""
_SCHEMA_KEY_SHARE = 100
"""Bytes from the beginning of a report."""


@dataclass(frozen=True, slots=True)
class BatchRun:
    """A run that has ended.

    Attributes
    ----------
    profile : Profile
        What was done to the files.
    jobs : sequence of Job
        All that were planned.
    results : sequence of Result
        Of those that were come to, in any order.
    started, finished : datetime
        With their zone.
    exit_code : ExitCode
        Of the process.
    peak_memory : int
        Bytes, of the process.
    dry_run : bool
        Whether nothing was written.
    """

    profile: RunInfo
    jobs: Sequence[Job]
    results: Sequence[Result]
    started: datetime
    finished: datetime
    exit_code: ExitCode
    peak_rss_bytes: int
    dry_run: bool = False


def build_report(run: BatchRun) -> dict[str, Any]:
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
    profile, recipe = run.profile, run.profile.recipe
    ended = {result.job: result for result in run.results}
    return {
        "schema": SCHEMA,
        "notice": NOTICE,
        "versions": versions(),
        "model": {"name": recipe.model_name, "sha256": recipe.model_sha256},
        "options": {
            "scale": recipe.scale,
            "consistency": recipe.consistency,
            "self_ensemble": recipe.ensemble,
            "precision": str(recipe.precision),
            "device": profile.device,
            "memory_bytes": recipe.memory,
            "allow": sorted(profile.allowed),
            "transfer_syntax": str(profile.syntax),
            "overwrite": profile.overwrite,
            "keep_private": recipe.keep_private,
            "dry_run": run.dry_run,
        },
        "started": run.started.isoformat(timespec="seconds"),
        "finished": run.finished.isoformat(timespec="seconds"),
        "exit_code": int(run.exit_code),
        "counts": count_by_status(run),
        "peak_memory_bytes": run.peak_rss_bytes,
        "files": [
            file_record(ended.get(job) or Result(job, FileStatus.NOT_PROCESSED)) for job in run.jobs
        ],
    }


def count_by_status(run: BatchRun) -> dict[FileStatus, int]:
    """Return how many files ended in which way."""
    statuses = Counter(result.status for result in run.results)
    statuses[FileStatus.NOT_PROCESSED] = len(run.jobs) - len(run.results)
    return {status: statuses[status] for status in FileStatus}


def file_record(result: Result) -> dict[str, Any]:
    """Return one file's part of a report."""
    error, deviation, timing = result.error, result.deviation, result.timing
    plan = result.plan
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
        "record_errors": result.record_errors,
        "seconds": {
            "read": round(timing.read, 3),
            "restore": round(timing.upscale, 3),
            "write": round(timing.write, 3),
            "total": round(timing.total, 3),
        },
        "input_shape": result.input_shape,
        "output_shape": result.output_shape,
        "deviation": deviation
        and {"rms": round(deviation.rms, 4), "largest": round(deviation.largest, 4)},
        "plan": plan
        and {
            "rows": plan.rows,
            "overlap": round(plan.overlap, 4),
            "peak_memory_bytes": plan.peak_bytes,
        },
        "source_sha256": result.source_sha256,
        "output_sha256": result.output_sha256,
        "peak_memory_bytes": result.peak_rss_bytes,
    }


def check_report_path(path: Path, schema: str = SCHEMA) -> None:
    """Refuse a report's path before any work is done.

    Parameters
    ----------
    path : Path
        Where it is to be.
    schema : str
        Of the earlier reports that may be replaced.

    Raises
    ------
    OutputError
        If something else than an earlier report is there, or it cannot be
        written there.
    """
    try:
        if path.exists() and not _is_report(path, schema):
            raise OutputError(f"{path} exists and is no report; it is not replaced")
    except OSError as error:
        raise OutputError(f"cannot write the report {path}: {error.strerror}") from error
    check_writable(path)


def _is_report(path: Path, schema: str) -> bool:
    if not path.is_file():  # reading a pipe or a device might never end
        return False
    with path.open("rb") as opened:
        return schema.encode() in opened.read(_SCHEMA_KEY_SHARE)


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write a report whole; an earlier one is replaced.

    Raises
    ------
    OutputError
        If it cannot be written, or something else came there meanwhile.
    """
    check_report_path(path, report["schema"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the report {path}: {error.strerror}") from error


def _names(job: Job) -> dict[str, str]:
    return {"source": display_path(job.source), "output": display_path(job.target)}


def display_path(path: Path) -> str:
    """Return a path that every reader takes: names need not be legal Unicode."""
    return os.fsencode(path).decode("utf-8", "replace")
