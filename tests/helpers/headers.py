"""Any legal header on a crop of a real radiograph."""

from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np
import pydicom
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    XRayRadiofluoroscopicImageStorage,
)

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax
from tests.conftest import EXAMPLE

ROWS, COLUMNS = 36, 32
"""The smallest that OpenJPEG encodes, but not square."""
SPACINGS = ("ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing")
PADDED = 6
"""Rows of the crop that are made padding."""

KEEP_CELLS = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian,
              ExplicitVRBigEndian, RLELossless)  # fmt: skip
KNOW_VALUES_ONLY = (JPEGLSLossless, JPEG2000Lossless)


@dataclass(frozen=True)
class Header:
    """One synthetic header."""

    pixels: PixelFormat
    inverted: bool
    frames: int
    modality: str
    slope: Decimal
    intercept: Decimal
    wide_window: bool
    more_windows: int
    spacing: dict[str, list[Decimal]]
    blinds: dict[str, object] = field(default_factory=dict)
    overlay_origin: list[int] | None = None
    padding: str = "none"
    source: UID = ExplicitVRLittleEndian
    wanted: OutputTransferSyntax = OutputTransferSyntax.SAME


EDGES = {
    "LeftVerticalEdge": 3,
    "RightVerticalEdge": COLUMNS - 1,
    "UpperHorizontalEdge": 2,
    "LowerHorizontalEdge": ROWS - 2,
}
CIRCLE = {"CenterOfCircular{}": [12, 9], "RadiusOfCircular{}": 8}
POLYGON = {"VerticesOfThePolygonal{}": [2, 3, 20, 4, 11, 18]}


@st.composite
def blinds(draw: st.DrawFn) -> dict[str, object]:
    """Draw shutters and collimators of any shapes."""
    stated: dict[str, object] = {}
    for kind in ("Shutter", "Collimator"):
        shapes = draw(st.sets(st.sampled_from(["RECTANGULAR", "CIRCULAR", "POLYGONAL"])))
        if shapes:
            stated[f"{kind}Shape"] = sorted(shapes)
        if "RECTANGULAR" in shapes:
            stated |= {kind + name: edge for name, edge in EDGES.items()}
        if "CIRCULAR" in shapes:
            stated |= {name.format(kind): value for name, value in CIRCLE.items()}
        if "POLYGONAL" in shapes:
            stated |= {name.format(kind): value for name, value in POLYGON.items()}
    return stated


@st.composite
def headers(draw: st.DrawFn) -> Header:
    """Draw a header."""
    stored = draw(st.integers(8, 16))
    allocated = draw(st.sampled_from([8, 16])) if stored == 8 else 16
    source = draw(st.sampled_from([*KEEP_CELLS, *KNOW_VALUES_ONLY]))
    wanted = draw(st.sampled_from(list(OutputTransferSyntax)))
    # The other codecs know values, not cells, so these must lie at the bottom.
    high = draw(st.integers(stored - 1, allocated - 1)) if source in KEEP_CELLS else stored - 1
    distances = st.decimals("0.05", "1.5", places=draw(st.integers(2, 6)))
    return Header(
        pixels=PixelFormat(allocated, stored, high, draw(st.booleans())),
        inverted=draw(st.booleans()),
        frames=draw(st.integers(1, 2)),
        modality=draw(st.sampled_from(["none", "rescale", "table"])),
        slope=draw(st.sampled_from([Decimal(1), Decimal("0.25"), Decimal("2.5")])),
        intercept=draw(st.sampled_from([Decimal(0), Decimal(-1024), Decimal("17.5")])),
        wide_window=draw(st.booleans()),
        more_windows=draw(st.integers(0, 2)),
        spacing={
            name: [draw(distances), draw(distances)]
            for name in sorted(draw(st.sets(st.sampled_from(SPACINGS))))
        },
        blinds=draw(blinds()),
        overlay_origin=draw(st.none() | st.lists(st.integers(-5, 9), min_size=2, max_size=2)),
        padding=draw(st.sampled_from(["none", "value", "range"])),
        source=source,
        wanted=wanted,
    )


def values_of(header: Header) -> NDArray[np.int32]:
    """Return the crop's stored values in the header's format, clear of the ends of its range."""
    whole = pydicom.dcmread(EXAMPLE).pixel_array
    crops = np.stack([whole[90 + 30 * n :, 60:][:ROWS, :COLUMNS] for n in range(header.frames)])
    pixels = header.pixels
    values = np.rint(crops / 4096 * (1 << pixels.bits_stored)).astype(np.int32) + pixels.minimum
    if header.padding != "none":
        values[:, :PADDED] = pixels.minimum + (header.padding == "range") * (values[:, :PADDED] & 1)
    return values


def build(header: Header, path: Path) -> NDArray[np.int32]:
    """Write the file; return its stored values."""
    dataset = pydicom.dcmread(EXAMPLE)
    pixels, values = header.pixels, values_of(header)
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.BitsAllocated, dataset.BitsStored = pixels.bits_allocated, pixels.bits_stored
    dataset.HighBit, dataset.PixelRepresentation = pixels.high_bit, int(pixels.signed)
    dataset.PhotometricInterpretation = "MONOCHROME1" if header.inverted else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if header.inverted else "IDENTITY"
    dataset.PixelData = pixels.pack(values).tobytes()
    dataset["PixelData"].VR = "OW" if pixels.bits_allocated == 16 else "OB"
    if header.frames > 1:
        # CR and DX have one frame.
        dataset.SOPClassUID = XRayRadiofluoroscopicImageStorage
        dataset.file_meta.MediaStorageSOPClassUID = XRayRadiofluoroscopicImageStorage
        dataset.NumberOfFrames = header.frames
    describe_grey(dataset, header)
    for keyword in SPACINGS:
        dataset.pop(keyword, None)
    for keyword, spacing in header.spacing.items():
        setattr(dataset, keyword, [str(number) for number in spacing])
    for keyword, place in header.blinds.items():
        setattr(dataset, keyword, place)
    if header.overlay_origin:
        draw_overlay(dataset, header.overlay_origin)
    if header.padding != "none":
        vr = "SS" if pixels.signed else "US"
        dataset.add_new("PixelPaddingValue", vr, pixels.minimum)
        if header.padding == "range":
            dataset.add_new("PixelPaddingRangeLimit", vr, pixels.minimum + 1)
    save(dataset, header, path)
    return values


def describe_grey(dataset: Dataset, header: Header) -> None:
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        del dataset[keyword]
    slope, intercept = Decimal(1), Decimal(0)
    if header.modality == "rescale":
        slope, intercept = header.slope, header.intercept
        dataset.RescaleSlope, dataset.RescaleIntercept = str(slope), str(intercept)
        dataset.RescaleType = "US"
    elif header.modality == "table":
        lut = Dataset()
        vr = "SS" if header.pixels.signed else "US"
        lut.add_new("LUTDescriptor", vr, [256, header.pixels.minimum, 16])
        lut.ModalityLUTType = "US"
        lut.add_new("LUTData", "OW", np.arange(0, 65536, 256, dtype="<u2").tobytes())
        dataset.ModalityLUTSequence = Sequence([lut])
    range_shown = (1 << header.pixels.bits_stored) * slope
    centre = (header.pixels.minimum + header.pixels.maximum) // 2 * slope + intercept
    width = 2 * range_shown + 2 if header.wide_window else max(range_shown // 16, Decimal(2))
    windows = range(1 + header.more_windows)
    dataset.WindowCenter = [str(centre + number) for number in windows]
    dataset.WindowWidth = [str(width) for _ in windows]


def draw_overlay(dataset: Dataset, origin: list[int]) -> None:
    for element, vr, value in (
        (0x0010, "US", ROWS), (0x0011, "US", COLUMNS), (0x0040, "CS", "G"), (0x0050, "SS", origin),
        (0x0100, "US", 1), (0x0102, "US", 0),
        (0x3000, "OW", np.packbits(plane(), bitorder="little").tobytes()),
    ):  # fmt: skip
        dataset.add_new((0x6000, element), vr, value)


def plane() -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    lines: NDArray[np.uint8] = np.equal((rows + 2 * columns) % 5, 0).astype(np.uint8)
    return lines


def save(dataset: FileDataset, header: Header, path: Path) -> None:
    syntax = header.source
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with quiet_libraries():
        if syntax.is_compressed:
            stored = dataset.BitsStored
            if syntax == RLELossless:  # pydicom would cut the cells to Bits Stored
                dataset.BitsStored = dataset.BitsAllocated
            dataset.compress(syntax, generate_instance_uid=False)
            dataset.BitsStored = stored
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            # pydicom swaps all but what it keeps as bytes.
            words = [dataset[0x60003000]] if header.overlay_origin else []
            words += [item["LUTData"] for item in dataset.get("ModalityLUTSequence", ())]
            if header.pixels.bits_allocated == 16:
                words.append(dataset["PixelData"])
            for element in words:
                element.value = np.frombuffer(element.value, "<u2").byteswap().tobytes()
        pydicom.dcmwrite(
            path, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian
        )
