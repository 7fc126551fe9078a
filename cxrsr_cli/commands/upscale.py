"""``cxrsr upscale``."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from cxrsr_cli.errors import UsageError
from cxrsr_cli.networks.model_files import ModelFile, find_model
from cxrsr_cli.options import UpscaleOptions

if TYPE_CHECKING:
    from cxrsr_cli.batch.discover import NameFilter
    from cxrsr_cli.batch.plan import BatchPlan, RecordPaths
    from cxrsr_cli.batch.runner import Executor


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
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="DICOM files, folders (with subfolders) or DICOMDIRs."
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="OUTPUT", help="File to write, or folder for the outputs."),
    ],
    chosen: dict[str, Any],
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
    from cxrsr_cli.batch.discover import NameFilter
    from cxrsr_cli.batch.ledger import Ledger
    from cxrsr_cli.batch.plan import RecordPaths
    from cxrsr_cli.batch.quarantine import Quarantine
    from cxrsr_cli.batch.report import build_report, check_report_path
    from cxrsr_cli.batch.runner import BatchRunner
    from cxrsr_cli.commands.reporters import errors_as_json, make_reporter
    from cxrsr_cli.commands.run import batch_summary, run_batch, write_report_and_summary
    from cxrsr_cli.common.process import now

    with errors_as_json(log_json):
        level = verbosity(verbose=verbose, quiet=quiet)
        if ledger and no_ledger:
            raise UsageError("--ledger and --no-ledger exclude each other")
        if not all([*sources, target]):
            raise UsageError("INPUT or OUTPUT is empty; is a variable not set?")
        if cluster_transfer and cluster is None:
            raise UsageError("--cluster-transfer needs --cluster")
        address = ClusterAddress.parse(cluster) if cluster is not None else None
        options = make_options(chosen)
        if report:
            check_report_path(report)
        weights = find_model(options.model, options.scale)
        paths = RecordPaths(ledger, report, quarantine)
        names = NameFilter(include or (), exclude or ())
        plan, paths = _plan(sources, target, paths, names, with_ledger=not no_ledger)
        known = Ledger(paths.ledger, read_only=dry_run) if paths.ledger else None
        if known:
            known.check()
        with make_executor(
            address,
            weights,
            options,
            clock=(lambda: timestamp) if timestamp else now,
            transfer_mode=cluster_transfer,
            io_workers=io_workers,
        ) as executor:
            copies = Quarantine(quarantine, plan.output_folder) if quarantine else None
            runner = BatchRunner(executor, known, copies, dry_run=dry_run)
            show_bar = show_progress(no_progress, quiet=quiet)
            reporter = make_reporter(level, as_json=log_json, show_bar=show_bar)
            previews = None
            if preview and not dry_run:
                from cxrsr_cli.comparison.preview import Previews

                previews = Previews(plan.output_folder)
            run = run_batch(runner, plan, reporter, strict=strict, previews=previews)
        raise typer.Exit(
            write_report_and_summary(run, reporter, report, build_report, batch_summary)
        )


def _plan(
    sources: list[str],
    target: str,
    paths: "RecordPaths",
    names: "NameFilter",
    *,
    with_ledger: bool,
) -> "tuple[BatchPlan, RecordPaths]":
    """Pair inputs with outputs; return also where the run keeps its records."""
    from cxrsr_cli.batch.ledger import LEDGER_NAME
    from cxrsr_cli.batch.plan import plan_batch

    plan = plan_batch(
        [Path(source) for source in sources],
        Path(target),
        into=target.endswith(os.sep),
        skipped=list(paths),
        filters=names,
    )
    if paths.ledger is None and plan.output_folder and with_ledger:
        paths = replace(paths, ledger=plan.output_folder / LEDGER_NAME)
    paths.check(plan)
    return plan, paths
