"""``cxrsr compare``."""

from pathlib import Path
from typing import Annotated

import typer

from cxrsr_cli.commands.console import print_line
from cxrsr_cli.commands.options import QuietOption
from cxrsr_cli.errors import ExitCode, UsageError


def compare(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The original file.")],
    outputs: Annotated[
        list[Path], typer.Argument(metavar="OUTPUT...", help="One or more outputs made from it.")
    ],
    page: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="PAGE.html", help="The page to write."),
    ],
    with_patient: Annotated[
        bool,
        typer.Option(
            "--with-patient", help="Include names of files, patient, study and UIDs in the page."
        ),
    ] = False,
    frame: Annotated[
        int, typer.Option(min=1, metavar="N", help="Frame to show of an object with several.")
    ] = 1,
    no_verify: Annotated[
        bool,
        typer.Option("--no-verify", help="Do not audit the outputs; it takes most of the time."),
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Write a page that shows outputs beside their source, in any browser.

    The page contains everything that it needs and loads nothing. It holds no patient data unless
    --with-patient is given, but for text that is burnt into the pixels. Exit codes: 0 no claim
    of the audit fails, 2 usage, 5 a file cannot be read, 6 cannot write, 9 the page was written
    and a claim fails, or an output is not of its source's size.
    """
    from cxrsr_cli.batch.report import check_report_path
    from cxrsr_cli.comparison.compare import read_comparison
    from cxrsr_cli.comparison.page import SCHEMA, write_page

    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{page} is not named as a page; end it with .html")
    check_report_path(page, SCHEMA, "comparison page")
    shown = read_comparison(source, outputs, frame=frame, audit=not no_verify)
    write_page(page, shown, with_patient=with_patient)
    failures = sum(len(each.failures) for each in shown)
    if failures:
        print_line(f"{page}: {failures} claims of the audit fail; the page shows them", err=True)
    if not quiet:
        print_line(f"open {page.absolute().as_uri()} in a browser")
    raise typer.Exit(ExitCode.VERIFICATION if failures else ExitCode.OK)
