"""Command line options that several commands share."""

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import Field, fields
from enum import IntEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from cxrsr_cli.errors import UsageError
from cxrsr_cli.options import OptionInfo, UpscaleOptions


class Verbosity(IntEnum):
    """How many messages are shown."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


def declare_option(one: "Field[Any]") -> Any:  # noqa: ANN401 - as `typer.Option`
    """Return the command line option of a field of `UpscaleOptions`."""
    info = OptionInfo.of(one)

    def parse(text: str) -> object:
        assert info.parse  # noqa: S101
        try:
            return info.parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return typer.Option(
        *(info.flags or ("--" + one.name.replace("_", "-"),)),
        metavar=info.metavar,
        parser=parse if info.parse else None,
        help=info.help,
        show_default=one.default is not None,
    )


def with_upscale_options(
    command: Callable[..., None], kind: type[UpscaleOptions] = UpscaleOptions
) -> Callable[..., None]:
    """Give a command an option for each field of `UpscaleOptions`.

    The command's parameter ``chosen`` gets the values by field name, for `make_options`.
    """
    names = [one.name for one in fields(kind)]

    @wraps(command)
    def run(**given: Any) -> None:  # noqa: ANN401 - whatever the options are
        command(chosen={name: given.pop(name) for name in names}, **given)

    own = inspect.signature(command, eval_str=True)
    parameters = list[inspect.Parameter]()
    for parameter in own.parameters.values():
        parameters += _parameters(kind) if parameter.name == "chosen" else [parameter]
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def _parameters(kind: type[UpscaleOptions]) -> Iterator[inspect.Parameter]:
    types = get_type_hints(kind)
    for one in fields(kind):
        value, default = types[one.name], one.default
        if get_origin(value) is frozenset:  # a flag that can be repeated
            value, default = list[get_args(value)[0]] | None, None  # type: ignore[misc]
        yield inspect.Parameter(
            one.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=default,
            annotation=Annotated[value, declare_option(one)],
        )


def make_options(
    chosen: dict[str, Any], kind: type[UpscaleOptions] = UpscaleOptions
) -> UpscaleOptions:
    """Return the options that a command was given.

    Raises
    ------
    UsageError
        If a value is illegal.
    """
    values: dict[str, Any] = {
        one.name: frozenset(chosen[one.name] or ())
        if isinstance(one.default, frozenset)
        else chosen[one.name]
        for one in fields(kind)
    }
    try:
        return kind(**values)
    except ValueError as error:
        raise UsageError(str(error)) from None


_FIELDS = {one.name: one for one in fields(UpscaleOptions)}

ModelOption = Annotated[str, declare_option(_FIELDS["model"])]
DeviceOption = Annotated[str, declare_option(_FIELDS["device"])]
MemoryOption = Annotated[int | None, declare_option(_FIELDS["memory"])]
ProgressOption = Annotated[
    bool,
    typer.Option("--no-progress", help="Show no progress bar. Without a terminal there is none."),
]
ReportOption = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write a JSON report of the run to this file."),
]
LogJsonOption = Annotated[
    bool, typer.Option("--log-json", help="Write messages to stderr as JSON, one object per line.")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also show every file and the log.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show failures only.")]


def verbosity(*, verbose: bool, quiet: bool) -> Verbosity:
    """Return how many messages are shown.

    Raises
    ------
    UsageError
        If both options are given.
    """
    if verbose and quiet:
        raise UsageError("--verbose and --quiet exclude each other")
    return Verbosity.VERBOSE if verbose else Verbosity.QUIET if quiet else Verbosity.NORMAL


def show_progress(no_progress: bool, *, quiet: bool = False) -> bool:
    """Return whether a progress bar is wanted and stderr is a terminal."""
    return not (no_progress or quiet) and sys.stderr.isatty()
