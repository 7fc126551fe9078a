"""``cxrsr upscale``."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrsr_cli.cluster.address import ClusterAddress
from cxrsr_cli.cluster.file_transfer import TransferMode
from cxrsr_cli.commands.options import (
    LogJsonOption,
    ProgressOption,
    QuietOption,
    ReportOption,
    VerboseOption,
    make_options,
    show_progress,
    verbosity,
    with_upscale_options,
)
from cxrsr_cli.commands.pipes import Pipes, open_pipes
from cxrsr_cli.errors import ExitCode, UsageError
from cxrsr_cli.networks.model_files import ModelFile, find_model
from cxrsr_cli.options import Job, UpscaleOptions

if TYPE_CHECKING:
    from cxrsr_cli.batch.ledger import Ledger
    from cxrsr_cli.batch.plan import BatchPlan, RecordPaths
    from cxrsr_cli.batch.runner import Executor
    from cxrsr_cli.batch.scale_choice import ScaleChoice
    from cxrsr_cli.commands.run import Part
    from cxrsr_cli.comparison.preview import Previews


@contextmanager
def make_executor(
    address: ClusterAddress | None,
    model: ModelFile,
    options: UpscaleOptions,
    *,
    clock: Callable[[], datetime],
    transfer_mode: TransferMode | None,
    io_workers: int,
) -> "Iterator[Executor]":
    """Load the model in this process, or connect to a cluster for the time of a run."""
    if address is None:
        from cxrsr_cli.batch.runner import LocalExecutor
        from cxrsr_cli.upscaler import Upscaler

        yield LocalExecutor(Upscaler.load(model, options, clock=clock), io_workers)
        return
    from cxrsr_cli.cluster.connect import connected_cluster

    with connected_cluster(
        address,
        model,
        options,
        clock=clock,
        transfer_mode=transfer_mode,
        io_workers=io_workers,
    ) as executor:
        yield executor


def _scale_choice(
    context: typer.Context, target_spacing: float | None, max_side: int | None
) -> "ScaleChoice | None":
    """Return what chooses the scale of each file, if the user gave it."""
    from cxrsr_cli.batch.scale_choice import ScaleChoice

    if target_spacing is None and max_side is None:
        return None
    if target_spacing is not None and not 0 < target_spacing < float("inf"):
        raise UsageError("--target-spacing is a number of millimetres above 0")
    given = context.get_parameter_source("scale")
    if given is not None and given.name != "DEFAULT":
        raise UsageError("--scale and --target-spacing or --max-side exclude each other")
    return ScaleChoice(target_spacing, max_side)


def _open_ledger(paths: "RecordPaths", *, read_only: bool) -> "Ledger | None":
    from cxrsr_cli.batch.ledger import Ledger

    if paths.ledger is None:
        return None
    ledger = Ledger(paths.ledger, read_only=read_only)
    ledger.check()
    return ledger


def _previews(plan: "BatchPlan", options: UpscaleOptions, *, to_stdout: bool) -> "Previews":
    from cxrsr_cli.comparison.preview import Previews

    if options.windowed:
        raise UsageError("--windowed makes pictures to look at already; leave out --preview")
    if to_stdout:
        raise UsageError("--preview writes a file beside the output, and - has no place for it")
    return Previews(plan.output_folder)


def _groups(
    plan: "BatchPlan", options: UpscaleOptions, choice: "ScaleChoice | None"
) -> dict[int, list[Job]]:
    """Return the jobs by scale."""
    from cxrsr_cli.batch.scale_choice import ImageSize, group_by_scale

    if choice:
        return group_by_scale(plan.jobs, choice, lambda path: ImageSize.of_file(path, options))
    return {options.scale: plan.jobs}


def _refuse_pictures(plan: "BatchPlan") -> None:
    """Raise UsageError if a cluster would have to upscale a picture."""
    from cxrsr_cli.images.picture_files import is_picture

    jobs = [job for job in plan.jobs if job.error is None]
    if any(is_picture(path) for job in jobs for path in (job.source, job.target)):
        raise UsageError("pictures are not upscaled on a cluster; leave out --cluster")


def _suffix(text: str) -> str:
    if set(text) & {"/", "\0"} or text.endswith("."):
        raise typer.BadParameter(f"'{text}' cannot be in a file name; _x4 and .png can")
    return text


def _timestamp(text: str) -> datetime:
    """Read seconds since 1970, or a date and time with its time zone."""
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        pass
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        read = None
    if read is None or read.tzinfo is None:
        raise typer.BadParameter(
            f"'{text}' is neither seconds since 1970 nor a date and time with its zone, "
            "such as 2026-11-22T10:30:00+00:00"
        )
    return read


@with_upscale_options
def upscale(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="DICOM files, folders (with subfolders) or DICOMDIRs; PNG, TIFF, JPEG or NPY "
            "files; - for standard input.",
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="File to write, or folder for the outputs; - for standard output. A name that "
            "ends in .png, .tif or .npy makes a picture, with its provenance beside it as JSON.",
        ),
    ],
    chosen: dict[str, Any],
    target_spacing: Annotated[
        float | None,
        typer.Option(
            metavar="MM",
            help="Instead of --scale: for each file the smallest scale whose output has at most "
            "this pixel spacing. Files that have it already are skipped.",
        ),
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Instead of --scale: for each file the largest scale whose output has at most "
            "this many rows and columns; with a target spacing, an upper limit.",
        ),
    ] = None,
    suffix: Annotated[
        str,
        typer.Option(
            parser=_suffix,
            metavar="TEXT",
            help="Add this to the names of outputs in a folder: _x4, or _x4.png or .png to make "
            "pictures.",
        ),
    ] = "",
    timestamp: Annotated[
        datetime | None,
        typer.Option(
            parser=_timestamp,
            metavar="TIME",
            envvar="SOURCE_DATE_EPOCH",
            help="Time of derivation instead of now, for reproducible bytes: "
            "seconds since 1970, or ISO 8601 with a time zone.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check every input; write no output.")
    ] = False,
    ledger: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Database of finished files. Default: in the output folder."
        ),
    ] = None,
    no_ledger: Annotated[
        bool, typer.Option("--no-ledger", help="Do not read or write a ledger; process every file.")
    ] = False,
    quarantine: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Copy failed inputs to this folder, each with its reason."
        ),
    ] = None,
    report: ReportOption = None,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview",
            help="Write a PNG of source and output beside each output, and for a folder a contact "
            "sheet; text burnt into the pixels is in them.",
        ),
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Of folders and DICOMDIRs, take only files whose name or path below the folder "
            "matches, such as '*.dcm'; repeatable.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave out files, and folders with all in them, whose name or path matches; "
            "repeatable.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit with 4 if a file of a folder was skipped."),
    ] = False,
    io_workers: Annotated[
        int,
        typer.Option(
            min=0,
            max=64,
            metavar="N",
            help="Files to read, and files to write, while the network runs.",
        ),
    ] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run on a Dask cluster: its scheduler's tcp://HOST:PORT or tls://HOST:PORT, "
            "its scheduler file FILE.json, or local:N to start N processes here.",
        ),
    ] = None,
    cluster_transfer: Annotated[
        TransferMode | None,
        typer.Option(
            help="How files reach the workers: paths on a shared file system, or bytes through "
            "the scheduler. Default: bytes; for local:N, paths.",
            show_default=False,
        ),
    ] = None,
    log_json: LogJsonOption = False,
    no_progress: ProgressOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Upscale chest radiographs into derived DICOM objects.

    Exit codes: 0 success, 1 internal error, 2 usage, 3 no input, or every file
    was skipped, 4 some files failed, 5 all files failed, 6 cannot write, 7 model
    error, 8 cluster not reachable, 130 interrupted.
    Not for diagnosis.
    """
    from cxrsr_cli.batch.plan import RecordPaths
    from cxrsr_cli.batch.quarantine import Quarantine
    from cxrsr_cli.batch.report import build_report, check_report_path
    from cxrsr_cli.batch.runner import BatchRunner
    from cxrsr_cli.commands.reporters import errors_as_json, make_reporter
    from cxrsr_cli.commands.run import batch_summary, run_batch, write_report_and_summary
    from cxrsr_cli.common.process import now

    with errors_as_json(log_json):
        if ledger and no_ledger:
            raise UsageError("--ledger and --no-ledger exclude each other")
        if not all([*sources, target]):
            raise UsageError("INPUT or OUTPUT is empty; is a variable not set?")
        if cluster_transfer and cluster is None:
            raise UsageError("--cluster-transfer needs --cluster")
        address = ClusterAddress.parse(cluster) if cluster is not None else None
        options, choice = make_options(chosen), _scale_choice(context, target_spacing, max_side)
        if report:
            check_report_path(report)
        with open_pipes(sources, target, suffix) as pipes:
            paths = RecordPaths(ledger, report, quarantine)
            plan, paths = _plan(pipes, paths, (include, exclude), with_ledger=not no_ledger)
            if address:
                _refuse_pictures(plan)
            groups = _groups(plan, options, choice)
            models = {scale: find_model(options.model, scale) for scale in groups}
            known = _open_ledger(paths, read_only=dry_run)
            reporter = make_reporter(
                verbosity(verbose=verbose, quiet=quiet),
                as_json=log_json,
                show_bar=show_progress(no_progress, quiet=quiet),
                stdout_is_data=pipes.to_stdout,
            )
            previews = None
            if preview and not dry_run:
                previews = _previews(plan, options, to_stdout=pipes.to_stdout)
            copies = Quarantine(quarantine, plan.output_folder) if quarantine else None

            def parts() -> "Generator[Part, None, None]":
                for scale, jobs in groups.items():
                    with make_executor(
                        address,
                        models[scale],
                        replace(options, scale=scale),
                        clock=(lambda: timestamp) if timestamp else now,
                        transfer_mode=cluster_transfer,
                        io_workers=io_workers,
                    ) as executor:
                        yield BatchRunner(executor, known, copies, dry_run=dry_run), jobs

            with closing(parts()) as each:
                run = run_batch(each, plan.jobs, reporter, strict=strict, previews=previews)
            code = write_report_and_summary(run, reporter, report, build_report, batch_summary)
            if code is ExitCode.OK:
                pipes.copy_to_stdout()
        raise typer.Exit(code)


def _plan(
    pipes: Pipes,
    paths: "RecordPaths",
    names: tuple[list[str] | None, list[str] | None],
    *,
    with_ledger: bool,
) -> "tuple[BatchPlan, RecordPaths]":
    """Pair inputs with outputs; return also where the run keeps its records."""
    from cxrsr_cli.batch.discover import NameFilter
    from cxrsr_cli.batch.ledger import LEDGER_NAME
    from cxrsr_cli.batch.plan import plan_batch

    plan = plan_batch(
        [Path(source) for source in pipes.sources],
        Path(pipes.target),
        into=pipes.target.endswith(os.sep),
        skipped=list(paths),
        filters=NameFilter(*(patterns or () for patterns in names)),
        suffix=pipes.suffix,
    )
    if pipes.to_stdout and plan.output_folder:
        raise UsageError("- stands for one file; give one file as INPUT")
    if paths.ledger is None and plan.output_folder and with_ledger:
        paths = replace(paths, ledger=plan.output_folder / LEDGER_NAME)
    paths.check(plan)
    return plan, paths
