"""What became of each file, and what that makes of the run."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from cxrsr_cli.errors import CxrsrError, ExitCode, InternalError, MemoryLimitError, OutputError
from cxrsr_cli.options import Job

if TYPE_CHECKING:
    from cxrsr_cli.inference.data_consistency import ConsistencyDeviation
    from cxrsr_cli.inference.memory_plan import MemoryPlan
    from cxrsr_cli.upscaler import DecodedSource

_LOG = logging.getLogger(__name__)


def to_reportable_error(error: Exception) -> CxrsrError:
    """Turn what stopped one file into an error that may be shown and kept.

    Parameters
    ----------
    error : Exception
        As caught.

    Returns
    -------
    CxrsrError
        Free of patient data, and without a traceback.
    """
    _LOG.debug("a file failed", exc_info=error)
    # PyTorch's allocator on a CPU raises no MemoryError.
    allocator = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    if isinstance(error, CxrsrError):
        # Results are kept to the end of the run; a traceback keeps the pixels.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    if isinstance(error, OSError):
        return OutputError(f"cannot read or write: {error.strerror}")
    if isinstance(error, MemoryError) or allocator:
        return MemoryLimitError("not enough memory for this image")
    return InternalError.of(error)


class FileStatus(StrEnum):
    """Where a file stands at the end of a run."""

    DONE = "done"
    """Its output was written."""
    UP_TO_DATE = "up to date"
    """The ledger knows its output, and that is there as it was written."""
    DRY_RUN = "dry run"
    """In a dry run: nothing speaks against it."""
    FAILED = "failed"
    NOT_PROCESSED = "not processed"
    """The run was interrupted before it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of wall time in each stage.

    Attributes
    ----------
    read, restore, write : float
        Reading and decoding; the network; deriving, encoding, and reading back.
    """

    read: float = 0.0
    upscale: float = 0.0
    write: float = 0.0

    @property
    def total(self) -> float:
        """Their sum; stages of several files overlap."""
        return self.read + self.upscale + self.write


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a job.

    Attributes
    ----------
    job : Job
        The job.
    status : Status
        How it ended.
    error : CxrsrError or None
        Why there is no output.
    warnings : list of str
        What was done with reserve, free of patient data.
    record_errors : list of str
        What the run could not account for: a ledger or quarantine that fails.
    timing : Timing
        How long it took.
    input_shape, output_shape : tuple of int or None
        ``(rows, columns)``, as far as it came.
    deviation : Deviation or None
        How far the downsampled output is from the input.
    plan : Plan or None
        How it was to be worked on.
    source_sha256, output_sha256 : str or None
        Of the files, as far as it came.
    peak_memory : int
        Bytes: the process's high-water mark when the job ended.
    """

    job: Job
    status: FileStatus
    error: CxrsrError | None = None
    warnings: list[str] = field(default_factory=list)
    record_errors: list[str] = field(default_factory=list)
    timing: Timing = field(default_factory=Timing)
    input_shape: tuple[int, int] | None = None
    output_shape: tuple[int, int] | None = None
    deviation: "ConsistencyDeviation | None" = None
    plan: "MemoryPlan | None" = None
    source_sha256: str | None = None
    output_sha256: str | None = None
    peak_rss_bytes: int = 0


def failed_result(
    job: Job, error: Exception, timing: Timing, opened: "DecodedSource | None" = None
) -> Result:
    """Return the result of a job that an error stopped."""
    return Result(
        job,
        FileStatus.FAILED,
        error=to_reportable_error(error),
        warnings=opened.warnings if opened else [],
        timing=timing,
        input_shape=opened.shape if opened else None,
        source_sha256=opened.sha256 if opened else None,
    )


def exit_code(results: Sequence[Result], planned: int | None = None) -> ExitCode:
    """Return the exit code of a run.

    Some failures among successes are `ExitCode.SOME_FAILED`; when all failed
    for the same kind of reason, its own code.

    Parameters
    ----------
    results : sequence of Result
        What became of the files that were come to.
    planned : int, optional
        How many files there were; a run that did not come to all of them was
        interrupted.
    """
    if planned is not None and len(results) < planned:
        return ExitCode.INTERRUPTED
    failures = [result.error.exit_code for result in results if result.error]
    if not failures:
        return ExitCode.OK
    if len(failures) < len(results):
        return ExitCode.SOME_FAILED
    return failures[0] if len(set(failures)) == 1 else ExitCode.ALL_FAILED
