"""Pair inputs with outputs, and check the paths, before any work is done."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cxrsr_cli.batch.discover import ALL_NAMES, NameFilter, find_inputs
from cxrsr_cli.common.files import real_path
from cxrsr_cli.dicom.dicomdir import is_dicomdir
from cxrsr_cli.errors import NoInputError, OutputError
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
        Which files of folders and DICOMDIRs are taken, by their names.

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
    """
    try:
        return _plan(sources, target, into=into, skipped=skipped, filters=filters)
    except OSError as error:
        raise NoInputError(f"cannot read {error.filename}: {error.strerror}") from error


def _plan(
    sources: Sequence[Path],
    target: Path,
    *,
    into: bool,
    skipped: Sequence[Path],
    filters: NameFilter,
) -> BatchPlan:
    single = sources[0] if len(sources) == 1 else None
    if single and not single.exists():
        raise NoInputError(f"no file or folder {single}")
    if single and single.is_file() and not is_dicomdir(single):
        if into or target.is_dir():
            return BatchPlan([Job(single, target / single.name)], target)
        return BatchPlan([Job(single, target)], None)
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file; more than one input needs a folder to write to")
    jobs = []
    for source in sources:
        base = target if single else target / _name(source)
        jobs += _plan_one(source, base, [target, *skipped], filters)
    if not jobs:
        raise NoInputError(f"no file to upscale in {', '.join(map(str, sources))}")
    return BatchPlan(_reject_conflicts(jobs), target)


def _name(source: Path) -> str:
    return real_path(source).parent.name if is_dicomdir(source) else real_path(source).name


def _plan_one(source: Path, base: Path, skipped: Sequence[Path], filters: NameFilter) -> list[Job]:
    return [
        Job(
            found.path,
            base / found.relative_path,
            error=found.error,
            is_named=found.relative_path == Path(),
        )
        for found in find_inputs(source, skipped, filters)
    ]


def _reject_conflicts(jobs: Sequence[Job]) -> list[Job]:
    """Refuse outputs that would replace an input or another output; drop repetitions."""
    # A link inside the output folder can lead to an input.
    sources = {real_path(job.source): job.source for job in jobs}
    taken: dict[Path, Job] = {}
    kept = []
    for job in jobs:
        output = real_path(job.target)
        other = taken.setdefault(output, job)
        if other is not job and other.source == job.source:
            continue
        error = job.error
        if output in sources:
            error = OutputError(
                f"{job.target} leads to the input {sources[output]}; a source is never overwritten"
            )
        elif other is not job:
            error = OutputError(f"{other.source} would be written to {job.target}, too")
        kept.append(replace(job, error=error))
    return kept


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
        taken |= {real_path(job.target): "an output" for job in plan.jobs}
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
