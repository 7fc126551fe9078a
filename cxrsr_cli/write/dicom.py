"""Write a DICOM file whole, verified, and never over its source."""

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from cxrsr_cli.errors import OutputError
from cxrsr_cli.read.dataset import quiet_pydicom
from cxrsr_cli.read.pixels import PixelFormat
from cxrsr_cli.write.atomic import replacing


def check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    """Refuse a target before any work is done for it.

    Raises
    ------
    OutputError
        If the target is the source, by whatever name or link, or exists and
        may not be overwritten, or is a folder.
    """
    if target.is_dir():
        raise OutputError(f"{target} is a folder")
    if not target.exists():
        return
    if source.samefile(target):
        raise OutputError("input and output are the same file; a source is never overwritten")
    if not overwrite:
        raise OutputError(f"{target} exists; use --overwrite to replace it")


def write_dicom(
    dataset: FileDataset, pixels: NDArray[np.int32], target: Path, *, overwrite: bool
) -> None:
    """Write, read back, compare, then rename.

    Parameters
    ----------
    dataset : pydicom.dataset.FileDataset
        The derived object.
    pixels : numpy.ndarray
        ``(F, H, W)`` int32 stored values that the file must hold.
    target : Path
        Final name; missing folders are made.
    overwrite : bool
        Whether an existing file is replaced.

    Raises
    ------
    OutputError
        If the file cannot be written, or does not read back as written. No
        file is left under the final name.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {target.parent}: {error.strerror}") from error
    try:
        with replacing(target, overwrite=overwrite) as temporary:
            with quiet_pydicom():
                dataset.save_as(temporary, enforce_file_format=True, overwrite=True)
            _verify(temporary, dataset, pixels)
    except FileExistsError:
        raise OutputError(f"{target} appeared meanwhile; use --overwrite to replace it") from None
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or 'I/O error'}") from error


def _verify(path: Path, dataset: FileDataset, pixels: NDArray[np.int32]) -> None:
    with quiet_pydicom():
        written = pydicom.dcmread(path)
        cells = np.frombuffer(written.PixelData, PixelFormat.of(written).cell)
        stored = PixelFormat.of(written).unpack(cells[: pixels.size])
        intact = (
            np.array_equal(stored, pixels.ravel())
            and written.SOPInstanceUID == dataset.SOPInstanceUID
            and written.Rows == pixels.shape[-2]
            and written.Columns == pixels.shape[-1]
        )
    if not intact:
        raise OutputError(f"{path.parent}: what was written does not read back the same")
