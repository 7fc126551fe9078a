"""The stages of a job; what stops it in one of them becomes its result."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from cxrsr_cli.batch.result import Result, Status, Timing, failed
from cxrsr_cli.job import Job
from cxrsr_cli.upscale import Opened, Restored, Upscaler


@dataclass(frozen=True, slots=True)
class Read:
    """A source on its way to the network."""

    opened: Opened
    timing: Timing


@dataclass(frozen=True, slots=True)
class Made:
    """New values on their way to the disk."""

    restored: Restored
    timing: Timing


@dataclass(frozen=True, slots=True)
class Stages:
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
    ) -> Read | Result:
        """Read and judge a source, unless its result is known already."""
        started = time.monotonic()
        try:
            found = known(job)
            if found:
                return replace(found, timing=Timing(read=time.monotonic() - started))
            opened = self.upscaler.open(job)
        except Exception as error:
            return failed(job, error, Timing(read=time.monotonic() - started))
        return Read(opened, Timing(read=time.monotonic() - started))

    def planned(self, read: Read) -> Result:
        """Say what would be done."""
        return self._result(read.opened, Status.PLANNED, read.opened.warnings, read.timing)

    def restore(self, read: Read, advance: Callable[[float], None]) -> Made | Result:
        """Run the network on what was read."""
        started = time.monotonic()
        try:
            restored = self.upscaler.restore(read.opened, advance)
        except Exception as error:
            timing = replace(read.timing, restore=time.monotonic() - started)
            return failed(read.opened.job, error, timing, read.opened)
        return Made(restored, replace(read.timing, restore=time.monotonic() - started))

    def write(self, made: Made, announce: Callable[[str], None]) -> Result:
        """Derive the object and write it; announce its hash before it gets its name."""
        started, opened = time.monotonic(), made.restored.opened
        try:
            output = self.upscaler.finish(made.restored, announce)
        except Exception as error:
            timing = replace(made.timing, write=time.monotonic() - started)
            return failed(opened.job, error, timing, opened)
        timing = replace(made.timing, write=time.monotonic() - started)
        done = self._result(opened, Status.DONE, output.warnings, timing)
        return replace(done, deviation=made.restored.deviation, output_sha256=output.sha256)

    def _result(
        self, opened: Opened, status: Status, warnings: list[str], timing: Timing
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
