"""``cxrsr upscale``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from cxrsr_cli.batch.runner import Executor
from cxrsr_cli.cluster.address import ClusterAddress
from cxrsr_cli.cluster.file_transfer import TransferMode
from cxrsr_cli.networks.model_files import ModelFile
from cxrsr_cli.options import UpscaleOptions

if TYPE_CHECKING:
    from cxrsr_cli.upscaler import Upscaler
import os
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer

from cxrsr_cli.commands.options import (
    DeviceOption,
    LogJsonOption,
    MemoryOption,
    ModelOption,
    PrecisionOption,
    ProgressOption,
    QuietOption,
    ReportOption,
    ScaleOption,
    VerboseOption,
    show_progress,
    verbosity,
)
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax
from cxrsr_cli.errors import UsageError
from cxrsr_cli.networks.config import Precision
from cxrsr_cli.networks.model_files import DEFAULT_MODEL, find_model


@contextmanager
def make_executor(
    address: ClusterAddress | None,
    model: ModelFile,
    settings: UpscaleOptions,
    *,
    overwrite: bool,
    clock: Callable[[], datetime],
    transfer_mode: TransferMode | None,
    io_workers: int,
) -> "Iterator[Upscaler | Executor]":
    """Load the model here, or join the cluster at an address, for the time of a run."""
    if address is None:
        yield settings.load(model, overwrite=overwrite, clock=clock)
        return
    from cxrsr_cli.cluster.connect import connected_cluster

    with connected_cluster(
        address,
        model,
        settings,
        overwrite=overwrite,
        clock=clock,
        transfer_mode=transfer_mode,
        io_workers=io_workers,
    ) as executor:
        yield executor


def _timestamp(text: str) -> datetime:
    """Read seconds since 1970, or a date and time with its zone."""
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
    scale: ScaleOption = 4,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.AUTO,
    memory: MemoryOption = None,
    consistency: Annotated[
        bool | None,
        typer.Option(
            "--consistency/--no-consistency",
            help="Project the output so that downsampling it gives back the input. "
            "Default: as the model states; off for models that remove noise.",
            show_default=False,
        ),
    ] = None,
    self_ensemble: Annotated[
        bool,
        typer.Option(
            "--self-ensemble",
            help="Average over eight flips and rotations; takes eight times as long.",
        ),
    ] = False,
    allow: Annotated[
        list[AcceptanceOverride] | None,
        typer.Option(
            "--allow",
            help="Also accept images of a kind the models were not trained on; repeatable.",
        ),
    ] = None,
    transfer_syntax: Annotated[
        OutputTransferSyntax,
        typer.Option("--transfer-syntax", help="Transfer syntax of the output (lossless)."),
    ] = OutputTransferSyntax.SAME,
    series_description: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Series Description of the output; 'not for diagnosis' is appended.",
        ),
    ] = None,
    keep_private: Annotated[
        bool,
        typer.Option("--keep-private/--drop-private", help="Copy private elements, or drop them."),
    ] = True,
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
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace existing outputs. An input is never replaced."),
    ] = False,
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

    Exit codes: 0 success, 1 internal error, 2 usage, 3 no input, 4 some files
    failed, 5 all files failed, 6 cannot write, 7 model error, 8 cluster not
    reachable, 130 interrupted.
    Not for diagnosis.
    """
    from cxrsr_cli.batch.ledger import LEDGER_NAME, Ledger
    from cxrsr_cli.batch.plan import RecordPaths, plan_batch
    from cxrsr_cli.batch.quarantine import Quarantine
    from cxrsr_cli.batch.report import build_report, check_report_path
    from cxrsr_cli.cluster.address import ClusterAddress
    from cxrsr_cli.commands.reporters import errors_as_json, make_reporter
    from cxrsr_cli.commands.run import batch_summary, run_batch, write_report_and_summary
    from cxrsr_cli.derive.provenance import validate_series_description

    with errors_as_json(log_json):
        level = verbosity(verbose=verbose, quiet=quiet)
        if ledger and no_ledger:
            raise UsageError("--ledger and --no-ledger exclude each other")
        if not all([*sources, target]):
            raise UsageError("INPUT or OUTPUT is empty; is a variable not set?")
        if cluster_transfer and cluster is None:
            raise UsageError("--cluster-transfer needs --cluster")
        address = ClusterAddress.parse(cluster) if cluster is not None else None
        if series_description is not None:
            validate_series_description(series_description)
        if report:
            check_report_path(report)
        found = find_model(model, scale)
        places = RecordPaths(ledger, report, quarantine)
        planned = plan_batch(
            [Path(source) for source in sources],
            Path(target),
            into=target.endswith(os.sep),
            skipped=list(places),
        )
        if ledger is None and planned.output_folder and not no_ledger:
            ledger = planned.output_folder / LEDGER_NAME
        replace(places, ledger=ledger).check(planned)
        known = Ledger(ledger, read_only=dry_run) if ledger else None
        if known:
            known.check()

        from cxrsr_cli.batch.runner import BatchRunner
        from cxrsr_cli.common.process import now
        from cxrsr_cli.options import UpscaleOptions

        settings = UpscaleOptions(
            device=device,
            precision=precision,
            memory=memory,
            consistent=consistency,
            ensemble=self_ensemble,
            allowed=frozenset(allow or ()),
            syntax=transfer_syntax,
            keep_private=keep_private,
            series_description=series_description,
        )
        clock = (lambda: timestamp) if timestamp else now
        with make_executor(
            address,
            found,
            settings,
            overwrite=overwrite,
            clock=clock,
            transfer_mode=cluster_transfer,
            io_workers=io_workers,
        ) as upscaler:
            batch = BatchRunner(
                upscaler,
                known,
                Quarantine(quarantine, planned.output_folder) if quarantine else None,
                io_workers=io_workers,
                dry_run=dry_run,
            )
            reporter = make_reporter(
                level, as_json=log_json, show_bar=show_progress(no_progress, quiet=quiet)
            )
            run = run_batch(batch, planned, reporter)
        raise typer.Exit(
            write_report_and_summary(run, reporter, report, build_report, batch_summary)
        )
