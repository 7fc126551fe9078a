"""Options that several sub-commands share, and what they mean in common."""

import re
import sys
from typing import Annotated

import typer

from cxrsr_cli.restore.architecture import SCALES
from cxrsr_cli.restore.precision import Precision


def _scale(value: int) -> int:
    if value not in SCALES:
        raise typer.BadParameter(f"{value} is not one of {', '.join(map(str, SCALES))}")
    return value


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _size(text: str) -> int:
    """Read a number of bytes, with K, M, G or T for powers of 1024."""
    form = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([KMGT]?)(?:i?B)?"
    read = re.fullmatch(form, text.strip(), re.IGNORECASE)
    count = int(float(read[1]) * _UNITS[read[2].upper()]) if read else 0
    if not count:
        raise typer.BadParameter(f"'{text}' is no size; write one such as 1500MiB or 4GiB")
    return count


ScaleOption = Annotated[
    int, typer.Option("--scale", "-s", metavar="2|4|8", callback=_scale, help="Factor.")
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="NAME|PATH", help="A shipped model (see info) or a weights file."
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", metavar="auto|cpu|cuda[:N]|mps", help="Where the network runs."),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option("--precision", help="Arithmetic of the network; auto is fp32."),
]
MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        parser=_size,
        help="Memory that the work on an image may take, such as 1500MiB or 4GiB; by default "
        "2 GiB, exceeded where that is not enough. On a GPU, its own.",
        show_default=False,
    ),
]
ProgressOption = Annotated[
    bool,
    typer.Option("--no-progress", help="No bar. There is none either if stderr is no terminal."),
]


def show_progress(no_progress: bool, *, quiet: bool = False) -> bool:
    """Tell whether a bar would be seen and is wanted."""
    return not (no_progress or quiet) and sys.stderr.isatty()
