"""Options that several sub-commands share, and what they mean in common."""

import sys
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer

from cxrsr_cli.common.byte_size import parse_byte_size
from cxrsr_cli.errors import UsageError
from cxrsr_cli.networks.config import SCALES, Precision


class Verbosity(IntEnum):
    """How much is said."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


def _scale(value: int) -> int:
    if value not in SCALES:
        raise typer.BadParameter(f"{value} is not one of {', '.join(map(str, SCALES))}")
    return value


def _size(text: str) -> int:
    try:
        return parse_byte_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


ScaleOption = Annotated[
    int, typer.Option("--scale", "-s", metavar="2|4|8", callback=_scale, help="Scale factor.")
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|PATH",
        help="A bundled model (see cxrsr info) or a weights file.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", metavar="auto|cpu|cuda[:N]|mps", help="Device that runs the network."),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option("--precision", help="Number format of the network; auto is fp32."),
]
MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        parser=_size,
        help="Memory limit for one image, such as 1500MiB or 4GiB (of the GPU, if one is used). "
        "Default: 2 GiB, or more where an image needs it.",
        show_default=False,
    ),
]
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
    """Tell how much is to be said.

    Raises
    ------
    UsageError
        If more and less are asked for.
    """
    if verbose and quiet:
        raise UsageError("--verbose and --quiet exclude each other")
    return Verbosity.VERBOSE if verbose else Verbosity.QUIET if quiet else Verbosity.NORMAL


def show_progress(no_progress: bool, *, quiet: bool = False) -> bool:
    """Tell whether a bar would be seen and is wanted."""
    return not (no_progress or quiet) and sys.stderr.isatty()
