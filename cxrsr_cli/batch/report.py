"""The report of a run: what a night did, for a machine to read in the morning."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cxrsr_cli.batch.result import Result, Status
from cxrsr_cli.errors import ExitCode, OutputError
from cxrsr_cli.job import Job
from cxrsr_cli.profile import Profile
from cxrsr_cli.versions import NOTICE, versions
from cxrsr_cli.write.atomic import replacing
from cxrsr_cli.write.dicom import check_writable

SCHEMA = "cxrsr-run-report/1"
"""Grows by new keys; another number when one changes its meaning or goes."""
_WHERE_THE_SCHEMA_IS = 100
"""Bytes from the beginning of a report."""


@dataclass(frozen=True, slots=True)
class Run:
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

    profile: Profile
    jobs: Sequence[Job]
    results: Sequence[Result]
    started: datetime
    finished: datetime
    exit_code: ExitCode
    peak_memory: int
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
        "counts": count(run),
        "peak_memory_bytes": run.peak_memory,
        "files": [describe(ended.get(job) or Result(job, Status.LEFT)) for job in run.jobs],
    }


def count(run: Run) -> dict[Status, int]:
    """Return how many files ended in which way."""
    statuses = Counter(result.status for result in run.results)
    statuses[Status.LEFT] = len(run.jobs) - len(run.results)
    return {status: statuses[status] for status in Status}


def describe(result: Result) -> dict[str, Any]:
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
        "troubles": result.troubles,
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
        "plan": plan
        and {
            "rows": plan.rows,
            "overlap": round(plan.overlap, 4),
            "peak_memory_bytes": plan.peak_bytes,
        },
        "source_sha256": result.source_sha256,
        "output_sha256": result.output_sha256,
        "peak_memory_bytes": result.peak_memory,
    }


def check_report(path: Path, schema: str = SCHEMA) -> None:
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
        return schema.encode() in opened.read(_WHERE_THE_SCHEMA_IS)


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write a report whole; an earlier one is replaced.

    Raises
    ------
    OutputError
        If it cannot be written, or something else came there meanwhile.
    """
    check_report(path, report["schema"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the report {path}: {error.strerror}") from error


def _names(job: Job) -> dict[str, str]:
    return {"source": shown(job.source), "output": shown(job.target)}


def shown(path: Path) -> str:
    """Return a path that every reader takes: names need not be legal Unicode."""
    return os.fsencode(path).decode("utf-8", "replace")
