"""The JSON report of a run."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cxrsr_cli.batch.result import FileStatus, Result
from cxrsr_cli.common.files import atomic_write, has_schema
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.write import check_writable
from cxrsr_cli.errors import ExitCode, OutputError
from cxrsr_cli.options import Job
from cxrsr_cli.versions import NOTICE, versions

SCHEMA = "cxrsr-run-report/1"
"""New keys keep the number; a key that is removed or changes its meaning needs another one."""


@dataclass(frozen=True, slots=True)
class BatchRun:
    """A run that has ended; its times have a time zone."""

    parameters: DerivationParameters
    """Of all files, or of those of the smallest scale."""
    jobs: Sequence[Job]
    """All that were planned."""
    results: Sequence[Result]
    """Of the files that were processed, in any order."""
    started: datetime
    finished: datetime
    exit_code: ExitCode
    peak_rss_bytes: int
    dry_run: bool = False
    strict: bool = False
    """Whether a file that was skipped is a failure of the run."""
    further_parameters: Sequence[DerivationParameters] = ()
    """Of the other scales, where the scale was chosen for each file."""


def build_report(run: BatchRun) -> dict[str, Any]:
    """Return the report as plain values, without patient data.

    Parameters
    ----------
    run : BatchRun
        The run.

    Returns
    -------
    dict
        As docs/upscale.md describes it. It names files by their paths. From inside a file it
        holds only sizes and statistics of pixels.
    """
    parameters = run.parameters
    # Planning and the ledger may have given a job an error, so jobs are found by their paths.
    ended = {(result.job.source, result.job.target): result for result in run.results}
    return {
        "schema": SCHEMA,
        "notice": NOTICE,
        "versions": versions(),
        "model": _model(parameters),
        "further_models": [_model(further) for further in run.further_parameters],
        "options": {**parameters.options.as_dict(), "dry_run": run.dry_run, "strict": run.strict},
        "started": run.started.isoformat(timespec="seconds"),
        "finished": run.finished.isoformat(timespec="seconds"),
        "exit_code": int(run.exit_code),
        "counts": count_by_status(run),
        "peak_memory_bytes": run.peak_rss_bytes,
        "files": [
            file_record(
                ended.get((job.source, job.target)) or Result(job, FileStatus.NOT_PROCESSED)
            )
            for job in run.jobs
        ],
    }


def _model(parameters: DerivationParameters) -> dict[str, Any]:
    return {"name": parameters.options.model, "sha256": parameters.model_sha256}


def count_by_status(run: BatchRun) -> dict[FileStatus, int]:
    """Return the number of files by status."""
    statuses = Counter(result.status for result in run.results)
    statuses[FileStatus.NOT_PROCESSED] = len(run.jobs) - len(run.results)
    return {status: statuses[status] for status in FileStatus}


def file_record(result: Result) -> dict[str, Any]:
    """Return what a report says of one file."""
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
            "upscale": round(timing.upscale, 3),
            "write": round(timing.write, 3),
            "total": round(timing.total, 3),
        },
        "input_shape": result.input_shape,
        "output_shape": result.output_shape,
        "deviation": deviation
        and {
            "rms": round(deviation.rms, 4),
            "mean": round(deviation.mean, 4),
            "largest": round(deviation.largest, 4),
            "beyond": round(deviation.beyond, 4),
        },
        "noise": result.noise and [asdict(curve) for curve in result.noise],
        "plan": plan
        and {
            "rows": plan.rows,
            "overlap": round(plan.overlap, 4),
            "peak_memory_bytes": plan.peak_bytes,
        },
        "forecast": result.forecast
        and {
            "seconds": round(result.forecast.seconds, 1),
            "output_bytes": result.forecast.output_bytes,
        },
        "source_sha256": result.source_sha256,
        "output_sha256": result.output_sha256,
        "peak_memory_bytes": result.peak_rss_bytes,
    }


def check_report_path(path: Path, schema: str = SCHEMA, what: str = "report") -> None:
    """Refuse a report's path before any work is done.

    Parameters
    ----------
    path : Path
        The report.
    schema : str
        Schema of earlier reports, which may be replaced.
    what : str
        What it is, for the message.

    Raises
    ------
    OutputError
        If the path holds something other than an earlier report, or cannot be written.
    """
    try:
        if path.exists() and not has_schema(path, schema):
            raise OutputError(f"{path} exists and is not a {what} of cxrsr; it is not replaced")
    except OSError as error:
        raise OutputError(f"cannot write the {what} {path}: {error.strerror}") from error
    check_writable(path)


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write a report atomically, over an earlier one.

    Raises
    ------
    OutputError
        If it cannot be written, or its path now holds something else.
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
    r"""Return a path as legal Unicode, which a file name need not be.

    Bytes that are none are shown as ``\xff``, by which a shell finds the file: ``$'a\xff.dcm'``.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")
