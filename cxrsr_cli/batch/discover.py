"""Find the files of a file, a folder or a DICOMDIR."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrsr_cli.dicom.dicomdir import dicomdir_images, is_dicomdir
from cxrsr_cli.errors import CxrsrError, NotDicomError, OutputError, UnreadableFileError


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to work on."""

    path: Path
    relative_path: Path = Path()
    """To the folder that was searched; empty for a file that the user named."""
    error: CxrsrError | None = None
    """Why it cannot be read."""


def find_inputs(source: Path, skipped: Sequence[Path] = ()) -> list[InputFile]:
    """Find the files of an input.

    Parameters
    ----------
    source : Path
        A file; a folder, with its subfolders; a DICOMDIR, whose files are found.
    skipped : sequence of Path
        Files and folders inside a folder that are left out.

    Returns
    -------
    list of InputFile
        A folder's files are sorted. Hidden files and folders are left out, and so are
        DICOMDIRs in a folder, whose files the walk finds. A file or folder that cannot be
        read is an item with an error.

    Raises
    ------
    OutputError
        If `source` is a folder that is to be left out.
    """
    try:
        if source.is_dir():
            return _find_in(source, skipped)
        if is_dicomdir(source):
            images = dicomdir_images(source)
            return [InputFile(path, path.relative_to(source.parent)) for path in images]
    except OSError as error:
        unreadable = UnreadableFileError(f"cannot read it ({error.strerror})")
        return [InputFile(source, error=unreadable)]
    except NotDicomError as error:
        return [InputFile(source, error=error)]
    return [InputFile(source)]


def _find_in(source: Path, skipped: Sequence[Path]) -> list[InputFile]:
    root = source.resolve()
    if any(folder.resolve() == root for folder in skipped):
        raise OutputError(
            f"input and output are the same folder, {source}; a source is never overwritten"
        )
    inside = [path for folder in skipped if (path := folder.resolve()).is_relative_to(root)]
    return [
        InputFile(path, path.relative_to(source))
        for path in sorted(_walk(source))
        if not is_dicomdir(path)
        and not any(path.resolve().is_relative_to(folder) for folder in inside)
    ]


def _walk(folder: Path) -> Iterator[Path]:
    """List files that are not hidden, and folders that cannot be read."""
    unreadable: list[Path] = []

    def note(error: OSError) -> None:
        unreadable.append(Path(error.filename))

    for parent, folders, files in os.walk(folder, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))
    yield from unreadable
