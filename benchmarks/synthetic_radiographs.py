"""Radiographs of any size, made of the example: mirrored side by side, as real as it is."""

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from benchmarks.study_config import ROOT

EXAMPLE = ROOT / "examples" / "chest-1024.dcm"


def mosaic(height: int, width: int) -> NDArray[np.uint16]:
    """Return ``(height, width)`` stored values of 12 bits."""
    values = pydicom.dcmread(EXAMPLE).pixel_array
    beyond = [
        (0, max(want - have, 0)) for want, have in zip((height, width), values.shape, strict=True)
    ]
    return np.pad(values, beyond, mode="symmetric")[:height, :width].astype("<u2")


def write(path: Path, height: int, width: int) -> Path:
    """Write one as DICOM, and return its path."""
    dataset = pydicom.dcmread(EXAMPLE)
    dataset.Rows, dataset.Columns = height, width
    dataset.PixelData = mosaic(height, width).tobytes()
    dataset.save_as(path)
    return path
