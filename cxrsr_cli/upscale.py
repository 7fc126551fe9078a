"""The main job: read, restore, derive, write; for one file or a tree of them."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrsr_cli import __version__
from cxrsr_cli.derive.derived import derive
from cxrsr_cli.derive.identity import Recipe
from cxrsr_cli.errors import (
    CxrsrError,
    ExitCode,
    NothingToDoError,
    OutputError,
    TooLargeError,
    UnexpectedError,
)
from cxrsr_cli.read.acceptance import check_acceptance
from cxrsr_cli.read.dataset import Source, read_source
from cxrsr_cli.read.padding import Padding
from cxrsr_cli.read.permission import Permission
from cxrsr_cli.read.pixels import PixelFormat, decode
from cxrsr_cli.restore.padding import cover, fill
from cxrsr_cli.restore.registry import Model
from cxrsr_cli.restore.restorer import Restorer, inconsistency
from cxrsr_cli.write.dicom import check_target, write_dicom
from cxrsr_cli.write.syntax import OutputSyntax, resolve

_MEDIA_DIRECTORY = "DICOMDIR"

_CONSISTENT = 1.0
"""Stored units RMS that rounding alone never reaches."""


@dataclass(frozen=True, slots=True)
class Job:
    """One file to upscale.

    Attributes
    ----------
    source, target : Path
        From where to where.
    """

    source: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a job.

    Attributes
    ----------
    job : Job
        The job.
    error : CxrsrError or None
        Why there is no output.
    warnings : list of str
        What was done with reserve, free of patient data.
    seconds : float
        Wall time.
    input_shape, output_shape : tuple of int
        ``(rows, columns)``; zeros on failure.
    inconsistency : float
        RMS in stored units of the downsampled output against the input; of the
        worst frame.
    """

    job: Job
    error: CxrsrError | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    input_shape: tuple[int, int] = (0, 0)
    output_shape: tuple[int, int] = (0, 0)
    inconsistency: float = 0.0


@dataclass(frozen=True, slots=True)
class Upscaler:
    """A loaded model and the user's choices, applied to any number of files.

    Attributes
    ----------
    restorer : Restorer
        The network at work.
    model : Model
        Where it came from, for the provenance.
    allowed : frozenset of Permission
        What is accepted beyond chest radiographs for presentation.
    overwrite : bool
        Whether existing outputs are replaced.
    syntax : OutputSyntax
        Transfer syntax of outputs.
    clock : callable
        Gives the time of derivation, with its zone.
    """

    restorer: Restorer
    model: Model
    allowed: frozenset[Permission] = frozenset()
    overwrite: bool = False
    syntax: OutputSyntax = OutputSyntax.SAME
    clock: Callable[[], datetime] = lambda: datetime.now().astimezone()

    @property
    def scale(self) -> int:
        """Factor of the model."""
        return self.restorer.architecture.scale

    def run(
        self, jobs: Sequence[Job], advance: Callable[[float], None] = lambda _: None
    ) -> Iterator[Result]:
        """Do every job; a failed one does not stop the rest.

        Parameters
        ----------
        jobs : sequence of Job
            Done in order.
        advance : callable
            Told of progress, in files.

        Yields
        ------
        Result
            For each job.
        """
        for job in jobs:
            done = [0.0]

            def step(share: float, done: list[float] = done) -> None:
                done[0] += share
                advance(share)

            started = time.monotonic()
            try:
                result = self._do(job, step)
            # A defect met on one file must not cost a night's other files.
            except Exception as error:
                result = Result(job, _failure(error))
            advance(1 - done[0])
            yield replace(result, seconds=time.monotonic() - started)

    def _do(self, job: Job, advance: Callable[[float], None]) -> Result:
        check_target(job.source, job.target, overwrite=self.overwrite)
        source = read_source(job.source)
        warnings = check_acceptance(source.dataset, self.scale, self.allowed)
        pixel_format = PixelFormat.of(source.dataset)
        frames = decode(source)
        share = 1 / (len(frames) * (1 + self.restorer.tiles(*frames.shape[-2:])))
        images = [
            self._restore(frame, source, pixel_format, lambda: advance(share)) for frame in frames
        ]
        restored = np.stack([image for image, _ in images])
        derived, kept = derive(source, frames, restored, self._recipe(), self.clock())
        write_dicom(
            derived,
            restored,
            job.target,
            syntax=resolve(self.syntax, source.transfer_syntax),
            overwrite=self.overwrite,
        )
        worst = max(off for _, off in images)
        if self.restorer.consistent and worst > _CONSISTENT:
            kept.append(
                f"downsampled, the output is {worst:.1f} stored units RMS off the input; "
                "edges between the two ends of the stored range are the usual cause"
            )
        return Result(
            job,
            warnings=warnings + kept,
            input_shape=(frames.shape[-2], frames.shape[-1]),
            output_shape=(restored.shape[-2], restored.shape[-1]),
            inconsistency=worst,
        )

    def _restore(
        self,
        stored: NDArray[np.int32],
        source: Source,
        pixel_format: PixelFormat,
        advance: Callable[[], None],
    ) -> tuple[NDArray[np.int32], float]:
        """Enlarge one frame, its padding apart; tell how far it is from its input."""
        padding = Padding.of(source.dataset)
        image = fill(stored, padding.mask(stored)) if padding else stored
        minimum, maximum = pixel_format.minimum, pixel_format.maximum
        restored = self.restorer.restore(
            image,
            minimum=minimum,
            maximum=maximum,
            inverted=source.dataset.PhotometricInterpretation == "MONOCHROME1",
            advance=advance,
        )
        if padding is None:
            return restored, inconsistency(restored, stored)
        covered = cover(restored, stored, padding, minimum=minimum, maximum=maximum)
        return covered, inconsistency(covered, stored, ignored=padding.mask(stored))

    def _recipe(self) -> Recipe:
        return Recipe(
            software=__version__,
            model_name=self.model.name,
            model_sha256=self.model.sha256,
            scale=self.scale,
            consistency=self.restorer.consistent,
            precision=self.restorer.precision,
            device=self.restorer.device.type,
            tile=self.restorer.tile,
        )


def _failure(error: Exception) -> CxrsrError:
    """Turn what stopped one file into an error that may be shown."""
    # PyTorch's allocator on a CPU raises no MemoryError.
    allocator = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    if isinstance(error, CxrsrError):
        return error
    if isinstance(error, OSError):
        return OutputError(f"cannot read or write: {error.strerror}")
    if isinstance(error, MemoryError) or allocator:
        return TooLargeError("not enough memory for this image")
    return UnexpectedError.of(error)


def plan_jobs(source: Path, target: Path) -> list[Job]:
    """Pair inputs with outputs.

    Parameters
    ----------
    source : Path
        A file, or a folder taken recursively.
    target : Path
        For a file: the output, or an existing folder to put it in. For a
        folder: the folder that mirrors it.

    Returns
    -------
    list of Job
        Sorted by source. Hidden files and folders and DICOMDIRs are left out,
        and so is what lies in an output folder inside the input folder. A
        folder that cannot be read is a job, which will fail.

    Raises
    ------
    NothingToDoError
        If there is no input.
    OutputError
        If the two are the same folder, a folder should go into a file, or an
        output would land on an input.
    """
    try:
        if source.is_file():
            return [Job(source, target / source.name if target.is_dir() else target)]
        if not source.is_dir():
            raise NothingToDoError(f"no file or folder {source}")
        if target.exists() and not target.is_dir():
            raise OutputError(f"{target} is a file; a folder needs a folder to write to")
        return _plan_folder(source, target)
    except OSError as error:
        raise NothingToDoError(f"cannot read {source}: {error.strerror}") from error


def _plan_folder(source: Path, target: Path) -> list[Job]:
    root, output = source.resolve(), target.resolve()
    if output == root:
        raise OutputError("input and output are the same folder; a source is never overwritten")
    skipped = output if output.is_relative_to(root) else None
    jobs = [
        Job(path, target / path.relative_to(source))
        for path in sorted(_walk(source))
        if path.name.upper() != _MEDIA_DIRECTORY
        and not (skipped and path.resolve().is_relative_to(skipped))
    ]
    if not jobs:
        raise NothingToDoError(f"no file to upscale in {source}")
    # A link inside the output folder can lead back to an input.
    sources = {job.source.resolve() for job in jobs}
    if any(job.target.resolve() in sources for job in jobs):
        raise OutputError(f"{target} leads back into {source}; a source is never overwritten")
    return jobs


def _walk(folder: Path) -> Iterator[Path]:
    """List what is not hidden; a folder that cannot be read stands for its files."""
    unreadable: list[Path] = []

    def note(error: OSError) -> None:
        unreadable.append(Path(error.filename))

    for parent, folders, files in os.walk(folder, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))
    yield from unreadable


def exit_code(results: Sequence[Result]) -> ExitCode:
    """Return the exit code of a run.

    Some failures among successes are `ExitCode.SOME_FAILED`; when all failed
    for the same kind of reason, its own code.
    """
    failures = [result.error.exit_code for result in results if result.error]
    if not failures:
        return ExitCode.OK
    if len(failures) < len(results):
        return ExitCode.SOME_FAILED
    return failures[0] if len(set(failures)) == 1 else ExitCode.ALL_FAILED
