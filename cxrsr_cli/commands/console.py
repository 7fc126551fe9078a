"""Lines that no file's name can spoil, and that no dead reader can stop a run with."""

import os
import sys
from typing import TextIO

import typer


def print_line(line: str, *, err: bool = False) -> None:
    """Write a line to stdout or stderr; if nobody can read it, go on without.

    Parameters
    ----------
    line : str
        What does not print, such as a line break in a file's name, is replaced.
    err : bool
        To stderr.
    """
    try:
        typer.echo(replace_unprintable(line), err=err)
    except OSError:
        redirect_to_devnull(sys.stderr if err else sys.stdout)


def replace_unprintable(line: str) -> str:
    """Return a line without characters that do not print: they could forge lines."""
    return "".join(char if char.isprintable() else "\ufffd" for char in line)


def redirect_to_devnull(stream: TextIO) -> None:
    """Send what else is written to a stream nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def ensure_standard_streams() -> None:
    """Make sure that the three standard streams are there.

    Were stderr closed, the next file to be opened would get its number, and
    a library's warning would end in it.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(nowhere)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        getattr(sys, name).reconfigure(errors="backslashreplace")
