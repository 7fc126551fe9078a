"""The stages of a job; what stops it in one of them becomes its result."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from cxrsr_cli.batch.result import FileStatus, Result, Timing, failed_result
from cxrsr_cli.job import Job
from cxrsr_cli.upscale import DecodedSource, UpscaledFrames, Upscaler


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A source on its way to the network."""

    decoded: DecodedSource
    timing: Timing


@dataclass(frozen=True, slots=True)
class UpscaledFile:
    """New values on their way to the disk."""

    frames: UpscaledFrames
    timing: Timing


@dataclass(frozen=True, slots=True)
class JobStages:
    """What is done to a file in the order of its way, each by whoever has the time.

    A defect met on one file must not cost a night's other files: nothing but
    an interruption is raised.

    Attributes
    ----------
    upscaler : Upscaler
        Does the work.
    """

    upscaler: Upscaler

    def read(
        self, job: Job, known: Callable[[Job], Result | None] = lambda _: None
    ) -> LoadedFile | Result:
        """Read and judge a source, unless its result is known already."""
        started = time.monotonic()
        try:
            found = known(job)
            if found:
                return replace(found, timing=Timing(read=time.monotonic() - started))
            opened = self.upscaler.read(job)
        except Exception as error:
            return failed_result(job, error, Timing(read=time.monotonic() - started))
        return LoadedFile(opened, Timing(read=time.monotonic() - started))

    def dry_run_result(self, read: LoadedFile) -> Result:
        """Say what would be done."""
        return self._result(read.decoded, FileStatus.DRY_RUN, read.decoded.warnings, read.timing)

    def upscale(self, read: LoadedFile, advance: Callable[[float], None]) -> UpscaledFile | Result:
        """Run the network on what was read."""
        started = time.monotonic()
        try:
            restored = self.upscaler.upscale(read.decoded, advance)
        except Exception as error:
            timing = replace(read.timing, upscale=time.monotonic() - started)
            return failed_result(read.decoded.job, error, timing, read.decoded)
        return UpscaledFile(restored, replace(read.timing, upscale=time.monotonic() - started))

    def write(self, made: UpscaledFile, announce: Callable[[str], None]) -> Result:
        """Derive the object and write it; announce its hash before it gets its name."""
        started, opened = time.monotonic(), made.frames.decoded
        try:
            output = self.upscaler.write(made.frames, announce)
        except Exception as error:
            timing = replace(made.timing, write=time.monotonic() - started)
            return failed_result(opened.job, error, timing, opened)
        timing = replace(made.timing, write=time.monotonic() - started)
        done = self._result(opened, FileStatus.DONE, output.warnings, timing)
        return replace(done, deviation=made.frames.deviation, output_sha256=output.sha256)

    def _result(
        self, opened: DecodedSource, status: FileStatus, warnings: list[str], timing: Timing
    ) -> Result:
        (rows, columns), scale = opened.shape, self.upscaler.recipe.scale
        return Result(
            opened.job,
            status,
            warnings=warnings,
            timing=timing,
            input_shape=opened.shape,
            output_shape=(rows * scale, columns * scale),
            plan=opened.plan,
            source_sha256=opened.sha256,
        )
