"""Find out whether a file that was written says what it was to say."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from cxrsr_cli.read.cells import PixelFormat
from cxrsr_cli.read.dataset import NATIVE_SYNTAXES, read_source
from cxrsr_cli.read.pixels import decodes_equal, number_of_frames

_SAME = (
    "SOPClassUID", "SOPInstanceUID", "SamplesPerPixel", "PhotometricInterpretation",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation",
)  # fmt: skip
"""What says which object it is and how its pixels are to be read (PS3.3 C.7.6.3)."""

_COMPARE_CHUNK_PIXELS = 1 << 18
"""Pixels that are compared at a time."""


def verify_written_file(path: Path, dataset: FileDataset, pixels: NDArray[np.integer]) -> bool:
    """Read a file as if it were anybody's, and compare.

    Parameters
    ----------
    path : Path
        The file.
    dataset : pydicom.dataset.FileDataset
        The object that was written there.
    pixels : numpy.ndarray
        ``(F, H, W)`` stored values that it must hold.

    Returns
    -------
    bool
        Whether it is that object, in that transfer syntax and pixel format, and
        holds the pixels. Those that are neither compressed nor deflated are
        compared piece by piece; the others are decoded, all in memory.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        pixel_format = PixelFormat.of(dataset)
        length = pixels.size * pixel_format.cell_dtype.itemsize
        written = read_source(path, leave_pixels=length if syntax in NATIVE_SYNTAXES else None)
        header, place = written.dataset, written.pixel_data_range
        if written.transfer_syntax != syntax or any(
            header.get(keyword) != dataset.get(keyword) for keyword in _SAME
        ):
            return False
        if place is None:
            return decodes_equal(written, pixels)
        shape = number_of_frames(header), header.Rows, header.Columns
        return pixels.shape == shape and _holds(path, place, pixel_format, pixels)
    except OSError:
        raise
    except Exception:  # what pydicom raises over a damaged file may be anything
        return False


def _holds(
    path: Path, place: range, pixel_format: PixelFormat, pixels: NDArray[np.integer]
) -> bool:
    """Compare the cells in a file with stored values."""
    values = np.ravel(pixels)
    expected = values.size * pixel_format.cell_dtype.itemsize
    if len(place) != expected + expected % 2:
        return False
    piece = np.empty(_COMPARE_CHUNK_PIXELS, pixel_format.cell_dtype)
    with path.open("rb") as opened:
        opened.seek(place.start)
        for start in range(0, values.size, _COMPARE_CHUNK_PIXELS):
            part = values[start : start + _COMPARE_CHUNK_PIXELS]
            cells = piece[: part.size]
            if opened.readinto(cells.data) != cells.nbytes:
                return False
            if not np.array_equal(pixel_format.unpack(cells), part):
                return False
    return True
