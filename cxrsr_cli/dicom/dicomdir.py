"""Follow a DICOMDIR to the images of its medium (PS3.3 annex F, PS3.10 8)."""

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.errors import NotDicomError

DICOMDIR = "DICOMDIR"
"""The only name that the standard gives it."""


def is_dicomdir(path: Path) -> bool:
    """Tell by its name whether a file lists others."""
    return path.name.upper() == DICOMDIR


def dicomdir_images(directory: Path) -> list[Path]:
    """List the image files that a DICOMDIR refers to.

    Parameters
    ----------
    directory : Path
        The DICOMDIR.

    Returns
    -------
    list of Path
        In its order, below its folder. A file that is missing is listed too.

    Raises
    ------
    NotDicomError
        If it is damaged, or leads out of its folder.
    OSError
        If it cannot be read.
    """
    try:
        with quiet_libraries():
            records = pydicom.dcmread(directory).get("DirectoryRecordSequence") or ()
            identifiers = [
                _components(record)
                for record in records
                if record.get("DirectoryRecordType") == "IMAGE"
            ]
    except OSError:
        raise
    # A damaged file makes pydicom raise anything, with values in the text.
    except Exception as error:
        raise NotDicomError(
            f"{directory} is damaged or no DICOMDIR ({type(error).__name__})"
        ) from None
    return [_locate(directory, components) for components in identifiers if components]


def _components(record: Dataset) -> list[str]:
    stated = record.get("ReferencedFileID") or ()
    return [stated] if isinstance(stated, str) else [str(component) for component in stated]


def _locate(directory: Path, components: list[str]) -> Path:
    if any(part in ("", ".", "..") or set(part) & set("/\\\0") for part in components):
        raise NotDicomError(f"{directory} refers to files outside of its folder")
    path = directory.parent.joinpath(*components)
    # Mounted CDs show the names of the standard in small letters.
    small = directory.parent.joinpath(*(part.lower() for part in components))
    return small if not path.exists() and small.exists() else path
