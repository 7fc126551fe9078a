"""Pairs of a source and an output, made without a network."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.sequence import Sequence

from cxrsr_cli.comparison.compare import Shown
from cxrsr_cli.dicom.decode import decode_compact
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.networks.resampling import upsample
from cxrsr_cli.verify.findings import Finding
from tests.conftest import small_chest


def bicubic(source: Shown, scale: int) -> NDArray[np.float32]:
    """Enlarge an image by bicubic interpolation, without rounding."""
    values = torch.from_numpy(source.pixels.astype(np.float32))[None, None]
    enlarged: NDArray[np.float32] = upsample(values, scale)[0, 0].numpy()
    return enlarged


def pair(
    folder: Path,
    shape: tuple[int, int] = (24, 20),
    *,
    scale: int = 2,
    bits: int = 12,
    signed: bool = False,
    findings: tuple[Finding, ...] = (),
    **header: object,
) -> list[Shown]:
    """Make a source that has all values of its range, and an output with a fine pattern."""
    folder.mkdir(exist_ok=True)
    rows, columns = shape
    minimum = -(1 << bits - 1) if signed else 0
    largest = (1 << bits) - 1
    across, down = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    wave = np.sin(7 * across) * np.cos(9 * down)
    values = np.floor((0.5 + 0.5 * wave) * largest) + minimum
    values[0, 0], values[-1, -1] = minimum, minimum + largest
    stored = values.astype("<i2" if signed else "<u2" if bits > 8 else "u1")
    dataset = small_chest(
        Rows=rows, Columns=columns, BitsAllocated=8 * stored.itemsize, BitsStored=bits,
        HighBit=bits - 1, PixelRepresentation=int(signed), PixelData=stored.tobytes(), **header,
    )  # fmt: skip
    path = folder / "source.dcm"
    correct_ambiguous_vr(dataset, True)
    dataset.save_as(path)
    source = read_source(path)
    original = Shown(path, source, decode_compact(source)[0])
    pattern = 40 * np.sin(np.arange(rows * scale)[:, None] + 2 * np.arange(columns * scale))
    output = np.round(bicubic(original, scale) + pattern).clip(minimum, minimum + largest)
    pixels = output.astype(original.pixels.dtype)
    return [original, Shown(folder / "output.dcm", source, pixels, scale, "tiny", findings)]


def voi_lut(bits: int) -> Sequence:
    """Return a VOI LUT of 8 bits that is not monotonic."""
    item = Dataset()
    entries = 1 << bits
    table = (128 + 127 * np.sin(np.linspace(0, 6, entries))).astype("<u2")
    item.LUTDescriptor = [entries % 65536, 0, 8]
    item["LUTDescriptor"].VR = "US"
    item.add_new("LUTData", "OW", table.tobytes())
    return Sequence([item])
