"""Find the images that a DICOMDIR lists (PS3.3 annex F, PS3.10 section 8)."""

from pathlib import Path

from pydicom.dataset import Dataset

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.source import read_dicomdir
from cxrsr_cli.errors import CxrsrError, NotDicomError

DICOMDIR = "DICOMDIR"
"""The only file name that the standard allows; some software adds an extension."""


def is_dicomdir(path: Path) -> bool:
    """Return whether a file is a DICOMDIR, by its name."""
    return path.name.upper().split(".")[0] == DICOMDIR


def dicomdir_images(dicomdir: Path) -> list[Path]:
    """List the image files that a DICOMDIR refers to, in its order, missing files too.

    Raises
    ------
    NotDicomError
        If it is damaged, or refers to a file outside its folder.
    OSError
        If it cannot be read.
    """
    try:
        with quiet_libraries():
            if not dicomdir.is_file():
                raise NotDicomError(f"{dicomdir} is not a regular file")
            records = read_dicomdir(dicomdir).get("DirectoryRecordSequence") or ()
            identifiers = [
                _components(record)
                for record in records
                if record.get("DirectoryRecordType") == "IMAGE"
            ]
    except CxrsrError:
        raise
    except OSError as error:
        # pydicom raises OSError for a damaged sequence, too; a disk's error has a number.
        if error.errno is not None:
            raise
        raise NotDicomError(f"{dicomdir} is damaged or not a DICOMDIR") from None
    # On a damaged file pydicom raises any exception, with values in its text.
    except Exception as error:
        raise NotDicomError(
            f"{dicomdir} is damaged or not a DICOMDIR ({type(error).__name__})"
        ) from None
    return [_locate(dicomdir, components) for components in identifiers if components]


def _components(record: Dataset) -> list[str]:
    file_id = record.get("ReferencedFileID") or ()
    components = [file_id] if isinstance(file_id, str) else [str(each) for each in file_id]
    # PS3.10 8.2: a backslash separates components, but some software writes a slash.
    return [part for component in components for part in component.split("/")]


def _locate(dicomdir: Path, components: list[str]) -> Path:
    if any(part in ("", ".", "..") or set(part) & set("\\\0") for part in components):
        raise NotDicomError(f"{dicomdir} refers to a file outside its folder")
    path = dicomdir.parent
    for component in components:
        path = _find(path, component)
    return path


def _find(folder: Path, component: str) -> Path:
    """Find a file of a folder by its File ID component; return the name as it is if none is there.

    Some systems change the case of names on a CD, or add an extension or a version.
    """
    exact = folder / component
    if exact.exists() or not folder.is_dir():
        return exact
    for simplified in (str.upper, _without_extension):
        found = [
            path for path in folder.iterdir() if simplified(path.name) == simplified(component)
        ]
        if len(found) == 1:
            return found[0]
    return exact


def _without_extension(name: str) -> str:
    return name.upper().split(";")[0].split(".")[0]
