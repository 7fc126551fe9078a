"""``cxrsr send``."""

from pathlib import Path
from typing import Annotated

import typer

from cxrsr_cli.batch.discover import InputFile
from cxrsr_cli.batch.report import check_report_path, display_path
from cxrsr_cli.commands.console import graceful_stop
from cxrsr_cli.commands.options import (
    LogJsonOption,
    ProgressOption,
    QuietOption,
    ReportOption,
    VerboseOption,
    Verbosity,
    show_progress,
    verbosity,
)
from cxrsr_cli.commands.reporters import Message, Reporter, errors_as_json, make_reporter
from cxrsr_cli.commands.run import collect_results, summary_message, write_report_and_summary
from cxrsr_cli.common.process import now
from cxrsr_cli.connections.destination import Destination, SendOutcome, SendResult
from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.errors import ExitCode, UsageError
from cxrsr_cli.send.run import (
    SCHEMA,
    SendRun,
    build_report,
    count_by_outcome,
    exit_code,
    file_record,
    find_files,
    is_retryable,
    send_with_retries,
)


def send(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="DICOM files, folders (with subfolders) or DICOMDIRs."
        ),
    ],
    address: Annotated[
        str,
        typer.Argument(
            metavar="DESTINATION",
            help="dicom://CALLED_AE@HOST:PORT, dicoms:// for TLS, or the http(s):// root of a "
            "DICOMweb service.",
        ),
    ],
    calling_ae: Annotated[
        str | None,
        typer.Option(metavar="TITLE", help="Our AE title.  [default: CXRSR]"),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Network timeout for connecting, sending and replies.  "
            "[default: 30, or 60 for DICOMweb]",
        ),
    ] = None,
    commitment: Annotated[
        bool, typer.Option("--commitment", help="Request storage commitment.")
    ] = False,
    commitment_timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long to wait for its result.  [default: 60]"),
    ] = None,
    commitment_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="Local port for the peer's storage commitment result; without it the result "
            "must come on our association.",
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            max=100,
            metavar="N",
            help="Retry files that failed because of the network or the peer, up to N times.",
        ),
    ] = 0,
    cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Our TLS certificate (PEM).")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its private key (PEM), if it is in another file."),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Certificate authorities to trust (PEM) instead of the system's."
        ),
    ] = None,
    username: Annotated[
        str | None, typer.Option(metavar="NAME", help="User name for a DICOMweb service.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File whose first line is the password.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File whose first line is a bearer token.")
    ] = None,
    report: ReportOption = None,
    log_json: LogJsonOption = False,
    no_progress: ProgressOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Send DICOM files to an archive by C-STORE or STOW-RS.

    Exit codes: 0 all stored, 1 internal error, 2 usage, 3 no input, 4 some files
    failed, 5 all files failed, 6 cannot write the report, 8 all files failed
    because of the network or the peer, 130 interrupted.
    """
    with errors_as_json(log_json):
        level = verbosity(verbose=verbose, quiet=quiet)
        if not all([*sources, address]):
            raise UsageError("INPUT or DESTINATION is empty; is a variable not set?")

        from cxrsr_cli.send.destination_url import SendOptions, parse_destination

        if report:
            check_report_path(report, SCHEMA)
        try:
            has_tls = any((cert, key, ca_file))
            tls = TlsConfig(certificate=cert, key=key, ca_file=ca_file) if has_tls else None
        except ValueError as error:
            raise UsageError(str(error)) from None
        destination = parse_destination(
            address,
            SendOptions(
                timeout=timeout,
                tls=tls,
                calling_ae=calling_ae,
                storage_commitment=commitment,
                commitment_timeout=commitment_timeout,
                commitment_port=commitment_port,
                username=username,
                password_file=password_file,
                token_file=token_file,
            ),
        )
        files = find_files([Path(source) for source in sources], [report] if report else [])
        reporter = make_reporter(
            level, as_json=log_json, show_bar=show_progress(no_progress, quiet=quiet)
        )
        run = _send_files(destination, address, files, reporter, retries=retries)
        raise typer.Exit(write_report_and_summary(run, reporter, report, build_report, _summary))


def _send_files(
    destination: Destination,
    address: str,
    files: list[InputFile],
    reporter: Reporter,
    *,
    retries: int,
) -> SendRun:
    """Send files and report each."""
    started = now()
    with graceful_stop() as stop, reporter.progress(len(files), "file") as advance:

        def on_result(result: SendResult) -> None:
            reporter.report(_file_message(result))
            advance(1)

        results, ended_by = collect_results(
            send_with_retries(destination, files, retries=retries, stop=stop), on_result, reporter
        )
        if retries and stop() and any(map(is_retryable, results)):
            ended_by = ended_by or ExitCode.INTERRUPTED
    return SendRun(
        destination=address,
        files=[file.path for file in files],
        results=results,
        started=started,
        finished=now(),
        exit_code=ended_by or exit_code(results, len(files)),
    )


def _file_message(result: SendResult) -> Message:
    line = result.outcome.value + ", committed" * bool(result.committed)
    line += f": {display_path(result.path)}" + f": {result.message}" * bool(result.message)
    if not result.is_stored:
        level, shown_from = "error", Verbosity.QUIET
    else:
        level = "warning" if result.outcome is SendOutcome.WARNED else "info"
        shown_from = Verbosity.NORMAL if result.message else Verbosity.VERBOSE
    return Message("file", level, file_record(result), [(shown_from, line)])


def _summary(run: SendRun) -> Message:
    counts = count_by_outcome(run)
    parts = [f"{counts[outcome]} {outcome}" for outcome in SendOutcome if counts[outcome]]
    return summary_message(run, counts, parts)
