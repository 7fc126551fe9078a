"""``cxrsr serve``."""

import os
import threading
from pathlib import Path
from typing import Annotated

import typer

from cxrsr_cli.commands.options import LogJsonOption
from cxrsr_cli.errors import ExitCode, MissingExtraError


def serve(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="What the node does (docs/serve.md).")
    ],
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Look at the configuration and its files, load the models, serve nobody.",
        ),
    ] = False,
    log_json: LogJsonOption = False,
) -> None:
    """Run a DICOM node: receive, upscale, pass on.

    An instance is acknowledged when it is safe on the disk. SIGTERM finishes
    what is in hand. Exit codes: 0 stopped as asked, 1 unexpected, 2 usage or
    configuration, 6 spool not usable, 7 model problem, 8 port not to be had,
    130 interrupted. Not for diagnosis.
    """
    from cxrsr_cli.commands.reporters import EventReporter, unexpected_event
    from cxrsr_cli.commands.run import errors_as_json
    from cxrsr_cli.commands.signals import graceful_stop

    with errors_as_json(log_json):
        try:
            from cxrsr_cli.serve.config import check_environment, load_serve_config
            from cxrsr_cli.serve.service import Node, load_upscalers
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"serve needs {error.name}, which is not installed: pip install 'cxrsr[net,web]'"
            ) from None

        read = load_serve_config(config)
        if check:
            for amiss in check_environment(read):
                typer.echo(f"warning: {amiss}", err=True)
            load_upscalers(read)
            typer.echo(f"{config} is fine: {len(read.rules)} rules, as {read.scp.ae_title}")
            return
        lines = EventReporter(as_json=log_json)
        # A thread of a library that fails would write a traceback, which may quote a patient.
        threading.excepthook = lambda failed: lines.report(unexpected_event(failed.exc_value))
        try:
            with graceful_stop() as stop:
                Node(read, lines.report).run(stop)
        except KeyboardInterrupt:
            # Threads may be at work for a minute; nothing acknowledged is lost without them.
            os._exit(ExitCode.INTERRUPTED)
