"""Pair inputs with outputs, and check the paths, before any work is done."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cxrsr_cli.batch.discover import ALL_NAMES, NameFilter, find_inputs
from cxrsr_cli.common.files import real_path
from cxrsr_cli.dicom.dicomdir import is_dicomdir
from cxrsr_cli.errors import NoInputError, OutOfScopeError, OutputError, UsageError
from cxrsr_cli.images.picture_files import is_picture
from cxrsr_cli.images.picture_provenance import provenance_path
from cxrsr_cli.options import Job


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The files of a run, in order."""

    jobs: list[Job]
    output_folder: Path | None
    """None if the user named the output file."""


def plan_batch(
    sources: Sequence[Path],
    target: Path,
    *,
    into: bool = False,
    skipped: Sequence[Path] = (),
    filters: NameFilter = ALL_NAMES,
    suffix: str = "",
) -> BatchPlan:
    """Pair inputs with outputs.

    Parameters
    ----------
    sources : sequence of Path
        Files; folders, taken recursively; DICOMDIRs, followed.
    target : Path
        For one file: the output, or an existing folder for it. For one folder or
        DICOMDIR: the folder that mirrors it. For several inputs: the folder that holds
        each by its name.
    into : bool
        `target` is a folder, even if it does not exist.
    skipped : sequence of Path
        Folders that are left out if they lie in an input folder. So is `target`.
    filters : NameFilter
        Which files of folders and DICOMDIRs are taken, by their names. Pictures are, only if it
        has patterns to include.
    suffix : str
        As of `add_suffix`, for the names of outputs in a folder.

    Returns
    -------
    BatchPlan
        Each folder's files are sorted. Hidden files and folders are left out, and so are
        DICOMDIRs in a folder, whose files the walk finds. A file that cannot be read, or
        whose output would replace an input or another output, is a job with an error.

    Raises
    ------
    NoInputError
        If there is no input.
    OutputError
        If the inputs need a folder and `target` is a file, or both are one folder.
    UsageError
        If there is a suffix, and `target` is the name of the output.
    """
    try:
        plan = _plan(sources, target, into=into, skipped=skipped, filters=filters, suffix=suffix)
    except OSError as error:
        raise NoInputError(f"cannot read {error.filename}: {error.strerror}") from error
    if suffix and plan.output_folder is None:
        raise UsageError(f"--suffix is for outputs in a folder, and {target} names the output")
    return plan


def add_suffix(path: Path, suffix: str) -> Path:
    """Add a text to a file's name before its own suffix.

    Parameters
    ----------
    path : Path
        Of which the suffix is a dot and letters; a UID has none.
    suffix : str
        Such as ``_x4``; or with a dot, ``_x4.png`` or ``.png``, to replace the file's own suffix.
    """
    own = path.suffix if any(map(str.isalpha, path.suffix)) else ""
    text, dot, form = suffix.rpartition(".")
    stem = path.name.removesuffix(own)
    return path.with_name(f"{stem}{text}.{form}" if dot else f"{stem}{suffix}{own}")


def _plan(
    sources: Sequence[Path],
    target: Path,
    *,
    into: bool,
    skipped: Sequence[Path],
    filters: NameFilter,
    suffix: str,
) -> BatchPlan:
    single = sources[0] if len(sources) == 1 else None
    if single and not single.exists():
        raise NoInputError(f"no file or folder {single}")
    if single and single.is_file() and not is_dicomdir(single):
        if into or target.is_dir():
            return BatchPlan([Job(single, add_suffix(target / single.name, suffix))], target)
        return BatchPlan([Job(single, target)], None)
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file; more than one input needs a folder to write to")
    jobs = []
    for source in sources:
        base = target if single else target / _name(source)
        jobs += _plan_one(source, base, [target, *skipped], filters, suffix)
    if not jobs:
        raise NoInputError(f"no file to upscale in {', '.join(map(str, sources))}")
    return BatchPlan(_reject_conflicts(jobs), target)


def _name(source: Path) -> str:
    return real_path(source).parent.name if is_dicomdir(source) else real_path(source).name


def _plan_one(
    source: Path, base: Path, skipped: Sequence[Path], filters: NameFilter, suffix: str
) -> list[Job]:
    jobs = list[Job]()
    for found in find_inputs(source, skipped, filters):
        is_named, error = found.relative_path == Path(), found.error
        # The folders of archives hold previews and scanned documents.
        if is_picture(found.path) and not (is_named or filters.include or error):
            pattern = f"'*{found.path.suffix}'"
            error = OutOfScopeError(f"a picture; of a folder, take pictures by --include {pattern}")
        target = add_suffix(base / found.relative_path, suffix)
        jobs.append(Job(found.path, target, error=error, is_named=is_named))
    return jobs


def _reject_conflicts(jobs: Sequence[Job]) -> list[Job]:
    """Refuse outputs that would replace an input or another output; drop repetitions."""
    # A link inside the output folder can lead to an input.
    sources = {real_path(job.source): job.source for job in jobs}
    taken: dict[Path, Job] = {}
    kept = []
    for job in jobs:
        others = [(path, taken.setdefault(real_path(path), job)) for path in _written(job)]
        if others[0][1] is not job and others[0][1].source == job.source:
            continue
        error = job.error
        for path, other in others:
            if real_path(path) in sources:
                source = sources[real_path(path)]
                error = OutputError(
                    f"{path} leads to the input {source}; a source is never overwritten"
                )
            elif other is not job:
                error = OutputError(f"{other.source} would be written to {path}, too")
        kept.append(replace(job, error=error))
    return kept


def _written(job: Job) -> list[Path]:
    """Return the files that a job writes, the output first."""
    if is_picture(job.target):
        return [job.target, provenance_path(job.target)]
    return [job.target]


@dataclass(frozen=True, slots=True)
class RecordPaths:
    """Files, and the folder of the quarantine, that a run keeps its records in."""

    ledger: Path | None = None
    report: Path | None = None
    quarantine: Path | None = None

    def __iter__(self) -> Iterator[Path]:
        """Iterate over the paths that are given."""
        yield from filter(None, (self.ledger, self.report, self.quarantine))

    def check(self, plan: BatchPlan) -> None:
        """Refuse paths that are also an input, an output or another of these paths.

        Parameters
        ----------
        plan : BatchPlan
            What the run reads and writes.

        Raises
        ------
        OutputError
            Names the first such path.
        """
        taken = {real_path(job.source): "an input" for job in plan.jobs}
        taken |= {real_path(path): "an output" for job in plan.jobs for path in _written(job)}
        for name, path in (("ledger", self.ledger), ("report", self.report)):
            if path is None:
                continue
            what = taken.setdefault(real_path(path), f"the {name}")
            if what != f"the {name}":
                raise OutputError(f"{path} is {what}; choose another path for the {name}")
        if self.quarantine:
            folder = real_path(self.quarantine)
            if plan.output_folder and real_path(plan.output_folder).is_relative_to(folder):
                raise OutputError(
                    f"{self.quarantine} holds the output folder; an archive that watches it "
                    "would take bad inputs for outputs: choose another quarantine"
                )
            if any(path.is_relative_to(folder) for path, what in taken.items()):
                raise OutputError(
                    f"{self.quarantine} holds inputs or outputs of this run; "
                    "choose another quarantine"
                )
