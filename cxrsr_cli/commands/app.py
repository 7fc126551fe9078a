"""The ``cxrsr`` command: its sub-commands and exit codes."""

import logging
import os
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer

from cxrsr_cli import __version__
from cxrsr_cli.commands import (
    compare,
    datasets,
    evaluate,
    info,
    queue,
    send,
    serve,
    train,
    upscale,
    verify,
)
from cxrsr_cli.commands.console import (
    end_on_second_signal,
    ensure_standard_streams,
    install_interrupt_handlers,
    print_line,
)
from cxrsr_cli.errors import CxrsrError, ExitCode, InternalError, UsageError

_LOG = logging.getLogger("cxrsr_cli")

app = typer.Typer(
    name="cxrsr",
    help="Super-resolution of chest radiographs: DICOM in, derived DICOM out.\n\n"
    "Not a medical device; not for diagnosis.",
    epilog="CXRSR_DEBUG=1 in the environment shows the traceback of every error, without "
    "patient data.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # importing rich takes a tenth of a second
    # Tracebacks of Typer show local variables, which may hold patient data.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("upscale")(upscale.upscale)
app.command("verify")(verify.verify)
app.command("compare")(compare.compare)
app.command("send")(send.send)
app.command("serve")(serve.serve)
app.add_typer(queue.app, name="queue")
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("datasets")(datasets.datasets)
app.command("info")(info.info)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cxrsr {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Declare the options before a sub-command."""


def main() -> NoReturn:
    """Run the command and exit with a documented exit code."""
    ensure_standard_streams()
    install_interrupt_handlers()
    end_on_second_signal()
    if os.environ.get("CXRSR_DEBUG") == "1":
        _show_tracebacks()
    try:
        _check_epoch()
        app(standalone_mode=True)
    except CxrsrError as error:
        _fail(error, str(error), error.exit_code)
    except OSError as error:
        _fail(error, f"{error.strerror}: {error.filename}", ExitCode.CANNOT_WRITE)
    except Exception as error:
        _fail(error, str(InternalError.of(error)), ExitCode.UNEXPECTED)
    sys.exit(ExitCode.OK)


def _fail(error: Exception, message: str, code: ExitCode) -> NoReturn:
    _LOG.debug("the command ends with an error", exc_info=error)
    print_line(f"cxrsr: {message}", err=True)
    sys.exit(code)


class TracebackFormatter(logging.Formatter):
    """Formats the types and places of errors; the text of a library's error may quote a patient."""

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 - logging's signature
        """Format an error and its causes, the first one first."""
        error, parts = ei[1], list[str]()
        while error is not None:
            text = f": {error}" if isinstance(error, CxrsrError) else ""
            places = "".join(traceback.format_tb(error.__traceback__))
            head = "Traceback (most recent call last):\n"
            parts.append(f"{head}{places}{type(error).__name__}{text}")
            hidden = error.__suppress_context__
            error = error.__cause__ or (None if hidden else error.__context__)
        return "\n".join(reversed(parts))


def _show_tracebacks() -> None:
    """Show the traceback of every error that is logged on stderr."""
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: record.exc_info is not None)
    handler.setFormatter(TracebackFormatter())
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.DEBUG)


def _check_epoch() -> None:
    """Raise UsageError if SOURCE_DATE_EPOCH is not a number; libraries would fail on it."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch == "":
        del os.environ["SOURCE_DATE_EPOCH"]
    elif epoch is not None and not epoch.isdecimal():
        raise UsageError(
            "SOURCE_DATE_EPOCH in the environment is not a number of seconds since 1970"
        )
