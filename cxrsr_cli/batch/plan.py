"""Pair inputs with outputs before any work is done."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrsr_cli.errors import NothingToDoError, OutputError
from cxrsr_cli.job import Job
from cxrsr_cli.read.media import is_media_directory, referenced_images


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes
    ----------
    jobs : list of Job
        In order.
    folder : Path or None
        The folder that the outputs go to; None if the output was named.
    """

    jobs: list[Job]
    folder: Path | None


def plan(
    sources: Sequence[Path], target: Path, *, into: bool = False, skipped: Sequence[Path] = ()
) -> Plan:
    """Pair inputs with outputs.

    Parameters
    ----------
    sources : sequence of Path
        Files; folders, taken recursively; DICOMDIRs, followed.
    target : Path
        For one file: the output, or an existing folder to put it in. For one
        folder or DICOMDIR: the folder that mirrors it. For several inputs:
        the folder that takes each by its name.
    into : bool
        `target` is a folder, be it there or not.
    skipped : sequence of Path
        Folders that no input is taken from, if they lie in an input folder;
        `target` is one by itself.

    Returns
    -------
    Plan
        Each folder's files are sorted. Hidden files and folders are left out,
        and DICOMDIRs too: their files are found by the walk. A folder that
        cannot be read is a job, which will fail, and so is one of several
        inputs that is not there.

    Raises
    ------
    NothingToDoError
        If there is no input.
    NotDicomError
        If a DICOMDIR cannot be followed.
    OutputError
        If folder and file do not fit, or an output would land on an input or
        on another output.
    """
    single = sources[0] if len(sources) == 1 else None
    if single and not single.exists():
        raise NothingToDoError(f"no file or folder {single}")
    if single and single.is_file() and not is_media_directory(single):
        if into or target.is_dir():
            return Plan([Job(single, target / single.name)], target)
        return Plan([Job(single, target)], None)
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file; more than one input needs a folder to write to")
    jobs = []
    for source in sources:
        base = target if single else target / _name(source)
        jobs += _plan_one(source, base, [target, *skipped])
    if not jobs:
        raise NothingToDoError(f"no file to upscale in {', '.join(map(str, sources))}")
    _check_apart(jobs, target)
    return Plan(jobs, target)


def _name(source: Path) -> str:
    return source.resolve().parent.name if is_media_directory(source) else source.resolve().name


def _plan_one(source: Path, base: Path, skipped: Sequence[Path]) -> list[Job]:
    try:
        if source.is_dir():
            return _plan_folder(source, base, skipped)
    except OSError as error:
        raise NothingToDoError(f"cannot read {source}: {error.strerror}") from error
    if is_media_directory(source):
        folder = source.parent
        return [Job(path, base / path.relative_to(folder)) for path in referenced_images(source)]
    return [Job(source, base)]


def _plan_folder(source: Path, base: Path, skipped: Sequence[Path]) -> list[Job]:
    root = source.resolve()
    if any(folder.resolve() == root for folder in skipped):
        raise OutputError(f"{source} is input and output; a source is never overwritten")
    inside = [path for folder in skipped if (path := folder.resolve()).is_relative_to(root)]
    return [
        Job(path, base / path.relative_to(source))
        for path in sorted(_walk(source))
        if not is_media_directory(path)
        and not any(path.resolve().is_relative_to(folder) for folder in inside)
    ]


def _check_apart(jobs: Sequence[Job], target: Path) -> None:
    # A link inside the output folder can lead back to an input.
    sources = {job.source.resolve() for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        output = job.target.resolve()
        if output in sources:
            raise OutputError(f"{target} leads back into an input; a source is never overwritten")
        other = taken.setdefault(output, job.source)
        if other is not job.source:
            raise OutputError(f"{other} and {job.source} would both be written to {job.target}")


def _walk(folder: Path) -> Iterator[Path]:
    """List what is not hidden; a folder that cannot be read stands for its files."""
    unreadable: list[Path] = []

    def note(error: OSError) -> None:
        unreadable.append(Path(error.filename))

    for parent, folders, files in os.walk(folder, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))
    yield from unreadable
