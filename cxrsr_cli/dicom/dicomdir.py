"""Find the images that a DICOMDIR lists (PS3.3 annex F, PS3.10 section 8)."""

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.errors import NotDicomError

DICOMDIR = "DICOMDIR"
"""The only file name that the standard allows."""


def is_dicomdir(path: Path) -> bool:
    """Return whether a file is a DICOMDIR, by its name."""
    return path.name.upper() == DICOMDIR


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
            records = pydicom.dcmread(dicomdir).get("DirectoryRecordSequence") or ()
            identifiers = [
                _components(record)
                for record in records
                if record.get("DirectoryRecordType") == "IMAGE"
            ]
    except OSError:
        raise
    # On a damaged file pydicom raises any exception, with values in its text.
    except Exception as error:
        raise NotDicomError(
            f"{dicomdir} is damaged or not a DICOMDIR ({type(error).__name__})"
        ) from None
    return [_locate(dicomdir, components) for components in identifiers if components]


def _components(record: Dataset) -> list[str]:
    file_id = record.get("ReferencedFileID") or ()
    return [file_id] if isinstance(file_id, str) else [str(component) for component in file_id]


def _locate(dicomdir: Path, components: list[str]) -> Path:
    if any(part in ("", ".", "..") or set(part) & set("/\\\0") for part in components):
        raise NotDicomError(f"{dicomdir} refers to a file outside its folder")
    path = dicomdir.parent.joinpath(*components)
    # Some systems show the names on a mounted CD in lower case.
    lower_case = dicomdir.parent.joinpath(*(part.lower() for part in components))
    return lower_case if not path.exists() and lower_case.exists() else path
