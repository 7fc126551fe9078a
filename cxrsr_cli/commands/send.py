"""``cxrsr send``."""

from pathlib import Path
from typing import Annotated

import typer

from cxrsr_cli.commands.options import (
    LogJsonOption,
    ProgressOption,
    QuietOption,
    ReportOption,
    VerboseOption,
    show_progress,
    verbosity,
)
from cxrsr_cli.errors import UsageError


def send(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="DICOM files, folders (recursive), DICOMDIRs (followed)."
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
        typer.Option(metavar="TITLE", help="Our Application Entity title.  [default: CXRSR]"),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="In which the peer must answer, or take what is sent.  "
            "[default: 30, or 60 for DICOMweb]",
        ),
    ] = None,
    commit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Ask for storage commitment, and wait so long for the answer.",
        ),
    ] = None,
    commitment_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="Where the peer may call us for that answer; else it must on our association.",
        ),
    ] = None,
    retry: Annotated[
        int,
        typer.Option(
            min=0,
            max=100,
            help="Send files again, so often, that failed by the network or the peer.",
        ),
    ] = 0,
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Our certificate for TLS, in PEM.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its key, if it is not in the same file."),
    ] = None,
    authorities: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Whose certificates to trust, in PEM, instead of the system's."
        ),
    ] = None,
    username: Annotated[
        str | None, typer.Option(metavar="NAME", help="For a DICOMweb service.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its first line is the user's password.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its first line is a bearer token.")
    ] = None,
    report: ReportOption = None,
    log_json: LogJsonOption = False,
    no_progress: ProgressOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Send DICOM files to an archive: C-STORE, or STOW-RS.

    Exit codes: 0 all arrived, 1 unexpected, 2 usage, 3 nothing to do, 4 some
    failed, 5 all failed, 6 cannot write the report, 8 all failed by the network
    or the peer, 130 interrupted.
    """
    from cxrsr_cli.commands.run import errors_as_json, write_report_and_summary

    with errors_as_json(log_json):
        level = verbosity(verbose=verbose, quiet=quiet)
        if not all([*sources, address]):
            raise UsageError("INPUT or DESTINATION is empty; is a variable not set?")

        from cxrsr_cli.batch.report import check_report_path
        from cxrsr_cli.commands.send_run import SendReporter, send_with_progress
        from cxrsr_cli.connections.tls import TlsConfig
        from cxrsr_cli.send.destination_url import SendOptions, parse_destination
        from cxrsr_cli.send.report import SCHEMA, build_report
        from cxrsr_cli.send.retrying import find_files

        if report:
            check_report_path(report, SCHEMA)
        try:
            files = (certificate, key, authorities)
            tls = (
                TlsConfig(certificate=certificate, key=key, ca_file=authorities)
                if any(files)
                else None
            )
        except ValueError as error:
            raise UsageError(str(error)) from None
        destination = parse_destination(
            address,
            SendOptions(
                timeout=timeout,
                tls=tls,
                calling_ae=calling_ae,
                commitment=commit,
                commitment_port=commitment_port,
                username=username,
                password_file=password_file,
                token_file=token_file,
            ),
        )
        found = find_files([Path(source) for source in sources], [report] if report else [])
        words = SendReporter(level, as_json=log_json)
        progress = show_progress(no_progress, quiet=quiet) and not log_json
        run = send_with_progress(
            destination, address, found, words, retries=retry, progress=progress
        )
        raise typer.Exit(write_report_and_summary(run, words, report, build_report))
