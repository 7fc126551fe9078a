"""Find the files of a file, a folder or a DICOMDIR."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from cxrsr_cli.common.files import real_path
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


@dataclass(frozen=True, slots=True)
class NameFilter:
    """Which files of a folder or DICOMDIR are taken, by shell patterns.

    A pattern is compared with the name, and with the path below the folder, of which ``*`` takes
    slashes too.
    """

    include: Sequence[str] = ()
    """Patterns of files that are taken; without any, all are."""
    exclude: Sequence[str] = ()
    """Patterns of files that are not taken, and of folders that are not searched."""

    def takes_file(self, path: Path) -> bool:
        """Return whether a file is taken, by its path below the folder."""
        return (not self.include or _matches(path, self.include)) and not any(
            _matches(part, self.exclude) for part in (path, *path.parents)
        )

    def takes_folder(self, path: Path) -> bool:
        """Return whether a folder is searched, by its path below the folder."""
        return not _matches(path, self.exclude)


ALL_NAMES = NameFilter()


def _matches(path: Path, patterns: Sequence[str]) -> bool:
    return any(
        fnmatchcase(text, pattern) for text in (path.name, path.as_posix()) for pattern in patterns
    )


def find_inputs(
    source: Path, skipped: Sequence[Path] = (), filters: NameFilter = ALL_NAMES
) -> list[InputFile]:
    """Find the files of an input.

    Parameters
    ----------
    source : Path
        A file; a folder, with its subfolders; a DICOMDIR, whose files are found.
    skipped : sequence of Path
        Files and folders inside a folder that are left out.
    filters : NameFilter
        Which files of a folder or DICOMDIR are taken.

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
            return _find_in(source, skipped, filters)
        if is_dicomdir(source):
            images = [(path, path.relative_to(source.parent)) for path in dicomdir_images(source)]
            return [InputFile(*image) for image in images if filters.takes_file(image[1])]
    except OSError as error:
        return [InputFile(source, error=_unreadable(error))]
    except NotDicomError as error:
        return [InputFile(source, error=error)]
    return [InputFile(source)]


def _find_in(source: Path, skipped: Sequence[Path], filters: NameFilter) -> list[InputFile]:
    root = real_path(source)
    left_out = [real_path(path) for path in skipped]
    if root in left_out:
        raise OutputError(
            f"input and output are the same folder, {source}; a source is never overwritten"
        )
    inside = [path for path in left_out if path.is_relative_to(root)]
    found, folders = list[InputFile](), [Path()]
    while folders:  # a recursive search would fail in a folder that is nested deeply
        folder = folders.pop()
        try:
            with os.scandir(source / folder) as scan:
                entries = [entry for entry in scan if not entry.name.startswith(".")]
        except OSError as error:
            found.append(InputFile(source / folder, folder, _unreadable(error)))
            continue
        for entry in entries:
            path, relative = source / folder / entry.name, folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                if filters.takes_folder(relative) and root / relative not in inside:
                    folders.append(relative)
                continue
            if is_dicomdir(path) or not filters.takes_file(relative) or _is_folder(path):
                continue
            real = real_path(path) if inside and entry.is_symlink() else root / relative
            if not any(real.is_relative_to(out) for out in inside):
                found.append(InputFile(path, relative))
    return sorted(found, key=lambda file: file.path)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _unreadable(error: OSError) -> UnreadableFileError:
    return UnreadableFileError(f"cannot read it ({error.strerror})")
