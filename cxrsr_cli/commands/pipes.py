"""Standard input as the input, and standard output as the output, where a user gives ``-``."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cxrsr_cli.common.files import scratch_folder
from cxrsr_cli.errors import OutputError, UsageError

STREAM = "-"


@dataclass(frozen=True, slots=True)
class Pipes:
    """The files that stand for ``-`` while a command runs.

    Attributes
    ----------
    sources : list of str
        Inputs.
    target : str
        Output.
    suffix : str
        What is to be added to names of outputs still.
    to_stdout : bool
        Whether `target` is to be copied to standard output.
    """

    sources: list[str]
    target: str
    suffix: str
    to_stdout: bool = False

    def copy_to_stdout(self) -> None:
        """Copy the output to standard output, if it belongs there and exists.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        path = Path(self.target)
        if not (self.to_stdout and path.is_file()):
            return
        try:
            with path.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        except OSError as error:
            raise OutputError(f"cannot write to standard output: {error.strerror}") from error


@contextmanager
def open_pipes(sources: list[str], target: str, suffix: str) -> Iterator[Pipes]:
    """Read standard input into a temporary file, and yield the files that stand for ``-``.

    Raises
    ------
    UsageError
        If ``-`` is not the only input, the stream is a terminal, or a folder would be written to
        standard output.
    """
    from_stdin, to_stdout = STREAM in sources, target == STREAM
    if not (from_stdin or to_stdout):
        yield Pipes(sources, target, suffix)
        return
    from cxrsr_cli.batch.plan import add_suffix
    from cxrsr_cli.dicom.source import HEAD_BYTES
    from cxrsr_cli.images.picture_files import (
        WRITABLE_SUFFIXES,
        is_picture,
        suffix_of_content,
    )

    if len(sources) > 1 or (to_stdout and Path(sources[0]).is_dir()):
        raise UsageError("- stands for one file; give one file as INPUT")
    for is_used, stream, name, way in (
        (from_stdin, sys.stdin, "standard input", "< in.dcm"),
        (to_stdout, sys.stdout, "standard output", "> out.dcm"),
    ):
        # A stream that the shell closed is None.
        if is_used and (stream is None or stream.isatty()):
            state = "closed" if stream is None else "a terminal"
            raise UsageError(f"{name} is {state}; connect it with a file: {way}")
    with scratch_folder("pipe") as folder:
        source = Path(sources[0])
        if from_stdin:
            source = folder / "stdin"
            try:
                with source.open("wb") as file:
                    shutil.copyfileobj(sys.stdin.buffer, file)
            except OSError as error:
                raise OutputError(
                    f"cannot keep standard input in {folder.parent}: {error.strerror}"
                ) from error
            with source.open("rb") as file:
                named = source.with_suffix(suffix_of_content(file.read(HEAD_BYTES)))
            source = source.rename(named)
        if not to_stdout:
            yield Pipes([str(source)], target, suffix)
            return
        own = source.suffix.lower() if is_picture(source) else ".dcm"
        name = "stdout" + (own if own in (*WRITABLE_SUFFIXES, ".dcm") else ".png")
        yield Pipes([str(source)], str(add_suffix(folder / name, suffix)), "", to_stdout=True)
