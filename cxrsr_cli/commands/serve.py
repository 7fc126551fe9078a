"""``cxrsr serve``."""

import logging
import os
import threading
from pathlib import Path
from typing import Annotated

import typer

from cxrsr_cli.commands.console import drain_stderr, graceful_stop
from cxrsr_cli.commands.options import LogJsonOption, Verbosity
from cxrsr_cli.commands.reporters import Message, errors_as_json, make_reporter
from cxrsr_cli.errors import ExitCode, InternalError, MissingExtraError
from cxrsr_cli.serve.events import Event, EventKind

_LOG = logging.getLogger(__name__)
_LEVELS = {
    EventKind.REFUSED: "warning",
    EventKind.RETRY: "warning",
    EventKind.DEAD: "error",
    EventKind.ERROR: "error",
}
"""Levels of events; all others are information."""


def serve(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="YAML configuration of the node (docs/serve.md)."),
    ],
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check the configuration and its files and load the models; do not start.",
        ),
    ] = False,
    log_json: LogJsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also show the log.")] = False,
) -> None:
    """Run a DICOM node that receives, upscales and forwards radiographs.

    An instance is acknowledged once it is safely on disk. SIGTERM finishes the
    instances in progress and stops. Exit codes: 0 stopped by a signal, 1 internal
    error, 2 usage or configuration, 6 spool not usable, 7 model error, 8 port
    not available, 130 interrupted. Not for diagnosis.
    """
    with errors_as_json(log_json):
        try:
            from cxrsr_cli.serve.config import check_environment, load_serve_config
            from cxrsr_cli.serve.service import Node, load_upscalers
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"serve needs {error.name}, which is not installed: pip install 'cxrsr[net,web]'"
            ) from None

        settings = load_serve_config(config)
        if check:
            for problem in check_environment(settings):
                typer.echo(f"warning: {problem}", err=True)
            load_upscalers(settings)
            typer.echo(
                f"{config} is valid: {len(settings.rules)} rules, as {settings.scp.ae_title}"
            )
            return
        reporter = make_reporter(
            Verbosity.VERBOSE if verbose else Verbosity.NORMAL, as_json=log_json, show_time=True
        )

        def on_event(event: Event) -> None:
            reporter.report(_event_message(event))

        # Python would write the traceback of a failed thread, which may quote patient data.
        threading.excepthook = lambda failed: on_event(_unexpected_event(failed.exc_value))
        try:
            with graceful_stop() as stop:
                Node(settings, on_event).run(stop)
        except KeyboardInterrupt:
            # Threads may need a minute to end. Whatever was acknowledged is on disk.
            drain_stderr()
            os._exit(ExitCode.INTERRUPTED)


def _unexpected_event(error: BaseException | None) -> Event:
    """Return the event of an error that a thread did not catch, without its text."""
    _LOG.debug("a thread ended with an error", exc_info=error)
    reason = str(InternalError.of(error)) if isinstance(error, Exception) else "a thread ended"
    return Event(kind=EventKind.ERROR, reason=reason)


def _event_message(event: Event) -> Message:
    values = {
        "instance": event.key,
        "peer": event.peer,
        "destination": event.destination,
        "rule": event.rule,
        "reason": event.reason,
        "seconds": None if event.seconds is None else round(event.seconds, 3),
    }
    facts = {name: value for name, value in values.items() if value not in ("", None)}
    parts = [
        event.kind.value,
        event.key,
        f"from {event.peer}" if event.peer else "",
        f"to {event.destination}" if event.destination else "",
        f"by '{event.rule}'" if event.rule else "",
        f"in {event.seconds:.1f} s" if event.seconds is not None else "",
    ]
    line = " ".join(filter(None, parts)) + (f": {event.reason}" if event.reason else "")
    level = _LEVELS.get(event.kind, "info")
    return Message(event.kind.value, level, facts, [(Verbosity.NORMAL, line)])
