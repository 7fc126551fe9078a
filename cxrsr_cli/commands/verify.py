"""``cxrsr verify``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrsr_cli.commands.options import QuietOption, ReportOption
from cxrsr_cli.errors import ExitCode, UsageError
from cxrsr_cli.networks.config import Agreement

if TYPE_CHECKING:
    from cxrsr_cli.verify.run import FileAudit


def verify(
    source: Annotated[
        Path | None, typer.Argument(metavar="SOURCE", help="The original file, or a folder.")
    ] = None,
    derived: Annotated[
        Path | None,
        typer.Argument(
            metavar="DERIVED", help="The file derived from it, or the folder of the outputs."
        ),
    ] = None,
    from_report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Check what this report of cxrsr upscale lists, and its hashes."
        ),
    ] = None,
    agreement: Annotated[
        Agreement | None,
        typer.Option(
            help="What the mean of each block of the derived image must be: the source's pixel, "
            "the same to within its estimated noise, or anything. Default: what the object states."
        ),
    ] = None,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute", help="Make the output again with the model it names, and compare."
        ),
    ] = False,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="FILE",
            help="Weights to look for that model in, besides the bundled ones; repeatable.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="auto|cpu|cuda[:N]|mps",
            help="Device for --recompute. Default: of the kind that the object states, or the CPU.",
        ),
    ] = None,
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="FILE.png",
            help="Draw where the output leaves its source; for one pair of files.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, max=64, help="Files to check at a time.")
    ] = 1,
    report: ReportOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the report as JSON to stdout.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Check derived objects against their sources.

    Checks file, provenance, content, geometry, photometric meaning, every element of the header,
    every pixel and regions of several sizes. Each claim holds, fails, or was not checked. Exit
    codes: 0 no claim fails, 3 nothing to check, 4 some files, or 5 all, cannot be read or made
    again by --recompute, 6 report or map cannot be written, 9 a claim fails.
    """
    from cxrsr_cli.batch.report import check_report_path, write_report
    from cxrsr_cli.common.process import now
    from cxrsr_cli.verify.deviation_map import check_map_path
    from cxrsr_cli.verify.recompute import Recomputation
    from cxrsr_cli.verify.run import SCHEMA, Auditor, AuditReport, pair_files, pair_files_of_report

    started = now()
    if from_report:
        if source or derived:
            raise UsageError("--from-report takes no other files")
        pairs = pair_files_of_report(from_report)
    elif source is None or derived is None:
        raise UsageError("give SOURCE and DERIVED, or --from-report")
    else:
        pairs = pair_files(source, derived)
    if map_file and len(pairs) > 1:
        raise UsageError("--map draws one pair of files")
    if map_file:
        check_map_path(map_file)
    if not recompute and (model or device):
        raise UsageError("--model and --device belong to --recompute")
    if report:
        check_report_path(report, SCHEMA)
    recomputation = Recomputation(tuple(model or ()), device) if recompute else None
    files: list[FileAudit] = []
    for file in Auditor(agreement, recomputation, map_file, jobs).run(pairs):
        files.append(file)
        if not as_json:
            _show(file, is_single=len(pairs) == 1, quiet=quiet)
    audit = AuditReport.of(files, started)
    if report:
        write_report(audit.to_dict(), report)
    if as_json:
        typer.echo(json.dumps(audit.to_dict(), indent=2))
    raise typer.Exit(ExitCode(audit.exit_code))


def _show(file: "FileAudit", *, is_single: bool, quiet: bool) -> None:
    """Show every claim of one file; of many, the files and what fails."""
    if file.error:
        typer.echo(f"{file.status}: {file.output}: {file.error.message}", err=True)
        return
    if not is_single and not (quiet and file.status == "holds"):
        unchecked = sum(finding.status == "not checked" for finding in file.findings)
        typer.echo(f"{file.status}: {file.output} ({unchecked} claims not checked)")
    for finding in file.findings:
        if finding.fails or not (quiet or not is_single):
            word = "FAILS" if finding.fails else finding.status
            detail = f": {finding.detail}" if finding.detail else ""
            typer.echo(f"{word:<11}  {finding.aspect:<13}  {finding.claim}{detail}")
