"""Crops of real radiographs, and encoders of every transfer syntax that are not ours."""

import copy
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from tests.conftest import EXAMPLE, skip_or_fail

ROWS, COLUMNS = 57, 66
"""Odd, so that nothing is right by alignment alone; an even number of bytes."""


@cache
def _read(path: Path) -> tuple[pydicom.FileDataset, NDArray[np.int32]]:
    """Return the middle of a picture, and an object without it."""
    with quiet_libraries():
        dataset, whole = pydicom.dcmread(path), decode(read_source(path))[0]
        del dataset.PixelData
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    top, left = (side // 3 for side in whole.shape)
    return dataset, whole[top : top + ROWS, left : left + COLUMNS].copy()


@dataclass(frozen=True)
class Picture:
    """A crop of a real radiograph, at its own depth or another one."""

    path: str
    bits: int
    signed: bool = False

    def dataset(self, shared: Callable[[], Path]) -> pydicom.FileDataset:
        """Make an uncompressed explicit object of it."""
        path = EXAMPLE if self.path == "example" else shared() / "dicom" / "chest" / self.path
        dataset, values = copy.deepcopy(_read(path))
        up = self.bits - int(dataset.BitsStored)
        values = (values << up) + (values & ((1 << up) - 1)) if up >= 0 else values >> -up
        self._store(dataset, values - (1 << self.bits - 1) * self.signed)
        return dataset

    def _store(self, dataset: pydicom.FileDataset, values: NDArray[np.int32]) -> None:
        allocated = 8 if self.bits == 8 else 16
        kind = np.dtype(f"<{'i' if self.signed else 'u'}{allocated // 8}")
        dataset.Rows, dataset.Columns = values.shape
        dataset.BitsAllocated, dataset.BitsStored = allocated, self.bits
        dataset.HighBit, dataset.PixelRepresentation = self.bits - 1, int(self.signed)
        dataset.PixelData = values.astype(kind).tobytes()
        dataset["PixelData"].VR = "OW" if allocated == 16 else "OB"


NIH = "1.3.6.1.4.1.11129.5.5.110503645592756492463169821050252582267888.dcm"
PICTURES = {
    "8 bits": Picture(NIH, 8),
    "10 bits": Picture("example", 10),
    "12 bits": Picture("example", 12),
    "a DX of 12 bits": Picture("966_fixed.dcm", 12),
    "a CR of 15 bits": Picture("RG1_J2KR.dcm", 15),
    "16 bits": Picture("example", 16),
    "8 signed": Picture("example", 8, signed=True),
    "12 signed": Picture("example", 12, signed=True),
    "16 signed": Picture("example", 16, signed=True),
}

Encode = Callable[[Path, Path], None]


def by(program: str, *options: str) -> Encode:
    """Encode with a DCMTK tool."""

    def encode(source: Path, target: Path) -> None:
        found = shutil.which(program)
        if found is None:
            skip_or_fail(f"needs {program} (Debian: dcmtk)")
        subprocess.run([str(found), *options, source, target], check=True, capture_output=True)

    return encode


def by_imagecodecs(codec: str, syntax: UID, **options: object) -> Encode:
    """Encode with a codec of imagecodecs, OpenJPH or OpenJPEG inside."""

    def encode(source: Path, target: Path) -> None:
        try:
            import imagecodecs
        except ImportError:
            skip_or_fail("needs imagecodecs (pip install 'cxrsr[codecs]')")
        dataset = pydicom.dcmread(source)
        if codec == "jpeg2k":
            options["bitspersample"] = dataset.BitsStored
        elif syntax == HTJ2K:  # steps of 4 stored units; it takes them as a share of the cell
            options["level"] = 4 / 2**dataset.BitsAllocated
        stream = getattr(imagecodecs, f"{codec}_encode")(dataset.pixel_array, **options)
        if syntax == HTJ2KLosslessRPCL:
            assert stream[stream.index(b"\xff\x52") + 5] == 2, "progression must be RPCL"
        encapsulated(dataset, stream, syntax)
        dataset.save_as(target)

    return encode


def encapsulated(dataset: pydicom.FileDataset, stream: bytes, syntax: UID) -> None:
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax


LOSSLESS: dict[UID, Encode] = {
    ImplicitVRLittleEndian: by("dcmconv", "+ti"),
    ExplicitVRLittleEndian: by("dcmconv", "+te"),
    ExplicitVRBigEndian: by("dcmconv", "+tb"),
    DeflatedExplicitVRLittleEndian: by("dcmconv", "+td"),
    RLELossless: by("dcmcrle"),
    JPEGLossless: by("dcmcjpeg", "+el", "+sv", "6"),
    JPEGLosslessSV1: by("dcmcjpeg", "+e1"),
    JPEGLSLossless: by("dcmcjpls", "+el"),
    JPEG2000Lossless: by_imagecodecs(
        "jpeg2k", JPEG2000Lossless, level=0, codecformat="j2k", reversible=True
    ),
    HTJ2KLossless: by_imagecodecs("htj2k", HTJ2KLossless, reversible=True),
    HTJ2KLosslessRPCL: by_imagecodecs("htj2k", HTJ2KLosslessRPCL, reversible=True),
}


@dataclass(frozen=True)
class Lossy:
    """How a lossy syntax is made, and how far off it may be."""

    encode: Encode
    method: str
    pictures: tuple[str, ...]
    bound: float
    """Largest error, as a share of the range."""


UNSIGNED = ("8 bits", "10 bits", "12 bits", "a DX of 12 bits", "a CR of 15 bits", "16 bits")
LOSSY = {
    # +sr: else DCMTK stretches the values before it encodes them.
    JPEGBaseline8Bit: Lossy(
        by("dcmcjpeg", "+eb", "+sr", "+q", "95"), "ISO_10918_1", ("8 bits",), 0.04
    ),
    JPEGExtended12Bit: Lossy(
        by("dcmcjpeg", "+ee", "+sr", "+q", "95"),
        "ISO_10918_1",
        ("8 bits", "12 bits", "a DX of 12 bits"),
        0.04,
    ),
    # 2 stored units by definition.
    JPEGLSNearLossless: Lossy(by("dcmcjpls", "+en", "+md", "2"), "ISO_14495_1", UNSIGNED, 0.008),
    JPEG2000: Lossy(
        by_imagecodecs("jpeg2k", JPEG2000, level=60, codecformat="j2k", reversible=False),
        "ISO_15444_1",
        tuple(PICTURES),
        0.02,
    ),
    HTJ2K: Lossy(
        by_imagecodecs("htj2k", HTJ2K, reversible=False),
        "ISO_15444_15",
        tuple(PICTURES),
        0.03,
    ),
}
