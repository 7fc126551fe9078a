"""The result of each file, and the exit code of a run."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from cxrsr_cli.errors import (
    CxrsrError,
    ExitCode,
    InternalError,
    MemoryLimitError,
    OutOfScopeError,
    OutputError,
)
from cxrsr_cli.options import Job

if TYPE_CHECKING:
    from cxrsr_cli.inference.agreement import AgreementDeviation
    from cxrsr_cli.inference.memory_plan import MemoryPlan
    from cxrsr_cli.inference.noise_curve import NoiseCurve
    from cxrsr_cli.upscaler import DecodedSource

_LOG = logging.getLogger(__name__)


def to_reportable_error(error: Exception) -> CxrsrError:
    """Turn the error of one file into one that may be shown and kept.

    Parameters
    ----------
    error : Exception
        As caught.

    Returns
    -------
    CxrsrError
        Without patient data and traceback.
    """
    _LOG.debug("a file failed", exc_info=error)
    # PyTorch's CPU allocator raises RuntimeError, not MemoryError.
    out_of_memory = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    if isinstance(error, CxrsrError):
        # Results are kept until the run ends, and a traceback would keep the pixels.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    if isinstance(error, OSError):
        return OutputError(f"cannot read or write: {error.strerror}")
    if isinstance(error, MemoryError) or out_of_memory:
        return MemoryLimitError("not enough memory for this image")
    return InternalError.of(error)


class FileStatus(StrEnum):
    """The state of a file at the end of a run."""

    DONE = "done"
    """Its output was written."""
    UP_TO_DATE = "up to date"
    """The ledger knows its output, which exists unchanged."""
    DRY_RUN = "dry run"
    """Nothing was written; no reason for a failure was found."""
    SKIPPED = "skipped"
    """It was found in a folder or DICOMDIR, and is no chest radiograph for presentation."""
    FAILED = "failed"
    NOT_PROCESSED = "not processed"
    """The run ended before it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of wall time in each stage."""

    read: float = 0.0
    upscale: float = 0.0
    write: float = 0.0

    @property
    def total(self) -> float:
        """Their sum. Stages of several files overlap."""
        return self.read + self.upscale + self.write


@dataclass(frozen=True, slots=True)
class Forecast:
    """What upscaling a file will take.

    Attributes
    ----------
    seconds : float
        Of the network, on this machine as busy as it is.
    output_bytes : int
        Of the output's pixels; a compressed output is smaller.
    """

    seconds: float
    output_bytes: int


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a job. What the job did not reach is None; shapes are rows and columns."""

    job: Job
    status: FileStatus
    error: CxrsrError | None = None
    """Why there is no output."""
    warnings: list[str] = field(default_factory=list)
    """What the user should know, without patient data."""
    record_errors: list[str] = field(default_factory=list)
    """Of the ledger or the quarantine."""
    timing: Timing = field(default_factory=Timing)
    input_shape: tuple[int, int] | None = None
    output_shape: tuple[int, int] | None = None
    deviation: "AgreementDeviation | None" = None
    noise: "list[NoiseCurve] | None" = None
    plan: "MemoryPlan | None" = None
    forecast: Forecast | None = None
    """Of a dry run."""
    source_sha256: str | None = None
    output_sha256: str | None = None
    peak_rss_bytes: int = 0
    """Of the process, until the job ended."""


def failed_result(
    job: Job, error: Exception, timing: Timing, decoded: "DecodedSource | None" = None
) -> Result:
    """Return the result of a job that an error stopped, or that is skipped because of it."""
    is_skipped = isinstance(error, OutOfScopeError) and not job.is_named
    return Result(
        job,
        FileStatus.SKIPPED if is_skipped else FileStatus.FAILED,
        error=to_reportable_error(error),
        warnings=decoded.warnings if decoded else [],
        timing=timing,
        input_shape=decoded.shape if decoded else None,
        source_sha256=decoded.sha256 if decoded else None,
    )


def exit_code(
    results: Sequence[Result], planned: int | None = None, *, strict: bool = False
) -> ExitCode:
    """Return the exit code of a run.

    Files that were skipped do not count; if all were, there was no input. It is
    `ExitCode.SOME_FAILED` if some files failed and others did not. If all failed with one exit
    code, it is that one.

    Parameters
    ----------
    results : sequence of Result
        Results of the files that were processed.
    planned : int, optional
        Number of files; a run that did not process all of them was interrupted.
    strict : bool
        Whether the code is `ExitCode.SOME_FAILED` instead of success, or of no input, if a
        file was skipped.
    """
    if planned is not None and len(results) < planned:
        return ExitCode.INTERRUPTED
    others = [result for result in results if result.status is not FileStatus.SKIPPED]
    failures = [result.error.exit_code for result in others if result.error]
    if not failures:
        if strict and len(others) < len(results):
            return ExitCode.SOME_FAILED
        return ExitCode.OK if others or not results else ExitCode.NO_INPUT
    if len(failures) < len(others):
        return ExitCode.SOME_FAILED
    return failures[0] if len(set(failures)) == 1 else ExitCode.ALL_FAILED
