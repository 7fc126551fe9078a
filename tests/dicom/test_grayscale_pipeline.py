"""The image is displayed as before: what maps stored values to grey is kept bit for bit.

Pixels are repeated instead of upscaled by a network, so the rendered output must be the
rendered input, repeated. pydicom renders, except for kinds of look-up tables that it does
not support.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels.processing import (
    apply_modality_lut,
    apply_presentation_lut,
    apply_windowing,
)
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax, resolve_transfer_syntax
from cxrsr_cli.dicom.write import write_dicom
from tests.derive.test_derive import derived_from

SCALE = 2
ROWS, COLUMNS = 40, 36
RENDERING = (
    "RescaleIntercept", "RescaleSlope", "RescaleType", "ModalityLUTSequence", "VOILUTSequence",
    "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction",
    "PresentationLUTShape", "PresentationLUTSequence", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip

Change = Callable[[Dataset], None]


def states(**attributes: object) -> Change:
    """Set attributes."""

    def change(dataset: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return change


def table(
    keyword: str,
    *,
    bits: int,
    vr: str,
    first: int = 0,
    entries: int = 4096,
    signed: bool = False,
    count: int = 1,
    packed: bool = False,
) -> Change:
    """Set a sequence of look-up tables, each a different curve."""

    def item(power: float) -> Dataset:
        curve = np.linspace(0, 1, entries) ** power * (2**bits - 1)
        data = curve.astype("<u1" if packed else "<u2")
        lut = Dataset()
        # 65536 entries are stated as 0 (C.11.1.1).
        lut.add_new("LUTDescriptor", "SS" if signed else "US", [entries % 65536, first, bits])
        lut.LUTExplanation = f"power {power}"
        lut.add_new("LUTData", vr, data.tobytes() if vr == "OW" else data.tolist())
        if keyword == "ModalityLUTSequence":
            lut.ModalityLUTType = "US"
        return lut

    def change(dataset: Dataset) -> None:
        if keyword == "ModalityLUTSequence":
            for other in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
                del dataset[other]
        if keyword == "VOILUTSequence":
            del dataset.WindowCenter, dataset.WindowWidth
        if keyword == "PresentationLUTSequence":
            del dataset.PresentationLUTShape
        setattr(dataset, keyword, Sequence([item(2.0 - 0.5 * index) for index in range(count)]))

    return change


def stores(*, stored: int = 12, high: int = 11, signed: bool = False, garbage: bool) -> Change:
    """Put the values into other cells, with or without garbage around them."""

    def change(dataset: Dataset) -> None:
        values = dataset.pixel_array.astype(np.int32) >> (12 - stored)
        values -= signed * (1 << stored - 1)
        used = ((1 << stored) - 1) << (high + 1 - stored)
        cells = (values << (high + 1 - stored)) & used
        if garbage:
            cells |= np.random.default_rng(0).integers(0, 1 << 16, cells.shape) & ~used
        dataset.PixelData = cells.astype("<u2").tobytes()
        dataset.BitsStored, dataset.HighBit = stored, high
        dataset.PixelRepresentation = int(signed)

    return change


SIGNED = stores(signed=True, garbage=False)
WINDOW_OF_16_BITS = states(WindowCenter="15000", WindowWidth="9000")
SIGNED_WINDOW = states(WindowCenter="-300", WindowWidth="900")

CASES: dict[str, tuple[Change, ...]] = {
    "as it is": (),
    "rescale": (states(RescaleSlope="0.25", RescaleIntercept="-17.5", RescaleType="OD",
                       WindowCenter="300.5", WindowWidth="900.25"),),
    "modality LUT, US, 16 bits": (table("ModalityLUTSequence", bits=16, vr="US"),
                                  WINDOW_OF_16_BITS),
    "modality LUT, OW, 16 bits": (table("ModalityLUTSequence", bits=16, vr="OW"),
                                  WINDOW_OF_16_BITS),
    "modality LUT, OW, 8 bits": (table("ModalityLUTSequence", bits=8, vr="OW"),
                                 states(WindowCenter="70", WindowWidth="90")),
    "modality LUT, signed": (SIGNED, table("ModalityLUTSequence", bits=16, vr="OW", first=-2048,
                                           signed=True), WINDOW_OF_16_BITS),
    "VOI LUT, US, 16 bits": (table("VOILUTSequence", bits=16, vr="US"),),
    "VOI LUT, OW, 16 bits": (table("VOILUTSequence", bits=16, vr="OW"),),
    "VOI LUT, OW, 8 bits": (table("VOILUTSequence", bits=8, vr="OW"),),
    "VOI LUT, 8 bits, two entries to a word": (table("VOILUTSequence", bits=8, vr="OW",
                                                     packed=True),),
    "VOI LUT, part of the range": (table("VOILUTSequence", bits=12, vr="OW", first=1600,
                                         entries=1000),),
    "VOI LUT, 65536 entries": (table("VOILUTSequence", bits=16, vr="OW", entries=65536),),
    "VOI LUT, signed": (SIGNED, table("VOILUTSequence", bits=16, vr="OW", first=-2048,
                                      signed=True)),
    "VOI LUTs": (table("VOILUTSequence", bits=10, vr="US", count=3),),
    "modality and VOI LUT": (table("ModalityLUTSequence", bits=16, vr="US"),
                             table("VOILUTSequence", bits=8, vr="OW", entries=65536)),
    "windows": (states(WindowCenter=["2048", "1900.5", "2000"], WindowWidth=["4096", "700", "1"],
                       WindowCenterWidthExplanation=["NORMAL", "HARDER", "SOFTER"]),),
    "window of LINEAR": (states(VOILUTFunction="LINEAR", WindowWidth="1500"),),
    "window of LINEAR_EXACT": (states(VOILUTFunction="LINEAR_EXACT", WindowWidth="0.5",
                                      WindowCenter="2000"),),
    "window of SIGMOID": (states(VOILUTFunction="SIGMOID", WindowWidth="1200"),),
    "presentation LUT of INVERSE": (states(PresentationLUTShape="INVERSE",
                                           PhotometricInterpretation="MONOCHROME1"),),
    "presentation LUT": (table("PresentationLUTSequence", bits=10, vr="US"),),
    "signed": (SIGNED, SIGNED_WINDOW),
    "signed MONOCHROME1": (SIGNED, SIGNED_WINDOW, states(PhotometricInterpretation="MONOCHROME1")),
    "garbage above": (stores(garbage=True),),
    "signed, garbage above": (stores(signed=True, garbage=True), SIGNED_WINDOW),
    "10 bits, garbage above": (stores(stored=10, high=9, garbage=True),),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, chest: FileDataset) -> FileDataset:
    """Make an object of each case from a crop of the example."""
    chest.PixelData = chest.pixel_array[90 : 90 + ROWS, 60 : 60 + COLUMNS].tobytes()
    chest.Rows, chest.Columns = ROWS, COLUMNS
    for change in CASES[request.param]:
        change(chest)
    return chest


def look_up(values: NDArray[np.generic], item: Dataset) -> NDArray[np.generic]:
    """Apply a look-up table (C.11.1.1, C.11.2.1.1)."""
    stated, first, bits = item.LUTDescriptor
    entries = stated or 65536
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, "u1" if len(data) == entries and bits == 8 else "<u2")
    assert len(data) == entries
    entry = np.clip(values.astype(np.int64) - first, 0, entries - 1)
    looked_up: NDArray[np.generic] = np.asarray(data)[entry]
    return looked_up


def shown(dataset: Dataset) -> Iterator[NDArray[np.generic]]:
    """Render every view that the object offers, stage by stage."""
    values = dataset.pixel_array
    yield values
    for item in dataset.get("ModalityLUTSequence", ()):
        values = look_up(values, item)
    if "RescaleSlope" in dataset:
        values = apply_modality_lut(values, dataset)
    yield values
    for item in dataset.get("VOILUTSequence", ()):
        yield look_up(values, item)
    for index in range(np.size(dataset.get("WindowCenter", ()))):
        yield apply_windowing(values, dataset, index)
    if "PresentationLUTSequence" in dataset or dataset.get("PresentationLUTShape"):
        yield apply_presentation_lut(dataset.pixel_array, dataset)


def raw(path: Path, keyword: str) -> object:
    """Return the bytes of an element's value, if the file has it."""
    dataset = pydicom.dcmread(path)
    if keyword not in dataset:
        return None
    element = dataset.get_item(keyword)
    assert isinstance(element, RawDataElement)
    return element.VR, element.value


@pytest.mark.parametrize(
    ("implicit", "wanted"),
    [
        (True, OutputTransferSyntax.SAME),
        (True, OutputTransferSyntax.EXPLICIT),
        (False, OutputTransferSyntax.SAME),
        (False, OutputTransferSyntax.RLE),
    ],
    ids=["implicit", "implicit to explicit", "explicit", "explicit to RLE"],
)
def test_every_view_of_the_object_shows_the_same_image(
    case: FileDataset, tmp_path: Path, implicit: bool, wanted: OutputTransferSyntax
) -> None:
    source, target = tmp_path / "in.dcm", tmp_path / "out.dcm"
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    case.file_meta.TransferSyntaxUID = syntax
    case.save_as(source, implicit_vr=implicit, little_endian=True)
    derived, _ = derived_from(source, SCALE)
    larger = decode(read_source(source)).repeat(SCALE, 1).repeat(SCALE, 2)
    write_dicom(derived, larger, target, syntax=resolve_transfer_syntax(wanted, syntax))
    with quiet_libraries():
        before, after = list(shown(pydicom.dcmread(source))), list(shown(pydicom.dcmread(target)))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert len(np.unique(old)) > 1, "the view must show something"
        assert new.dtype == old.dtype
        assert np.array_equal(new, old.repeat(SCALE, 0).repeat(SCALE, 1))
    for keyword in RENDERING:
        old_value, new_value = raw(source, keyword), raw(target, keyword)
        if wanted is OutputTransferSyntax.EXPLICIT and implicit:
            assert (old_value is None) == (new_value is None)
            continue  # a sequence of other VR encoding has other bytes
        assert new_value == old_value, keyword


@pytest.mark.parametrize(
    ("signed", "intercept", "first", "vr"),
    [
        (False, None, 0, "US"),
        (False, None, 40000, "US"),
        (False, "-1024", -1024, "SS"),
        (True, None, -2048, "SS"),
        (True, "2048", 40000, "US"),
    ],
)
def test_the_vr_of_a_voi_lut_descriptor_follows_the_modality_output(
    chest: FileDataset,
    tmp_path: Path,
    signed: bool,
    intercept: str | None,
    first: int,
    vr: str,
) -> None:
    """Implicit VR does not state the VR. The Modality LUT's output decides it (C.11.2.1.1)."""
    if signed:
        SIGNED(chest)
    if intercept is None:
        del chest.RescaleSlope, chest.RescaleIntercept
    else:
        chest.RescaleIntercept = intercept
    table("VOILUTSequence", bits=16, vr="OW", first=first, signed=first < 0, entries=40000)(chest)
    chest.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    chest.save_as(tmp_path / "in.dcm", implicit_vr=True, little_endian=True)
    derived, _ = derived_from(tmp_path / "in.dcm", SCALE)
    larger = decode(read_source(tmp_path / "in.dcm")).repeat(SCALE, 1).repeat(SCALE, 2)
    write_dicom(derived, larger, tmp_path / "out.dcm")
    (item,) = pydicom.dcmread(tmp_path / "out.dcm").VOILUTSequence
    assert (item["LUTDescriptor"].VR, item.LUTDescriptor) == (vr, [40000, first, 16])


def test_high_bit_is_kept(chest: FileDataset, tmp_path: Path) -> None:
    """High Bit 13 of 12 bits, garbage on both sides, which pydicom does not render correctly."""
    values = decode(read_source(Path(str(chest.filename))))
    stores(high=13, garbage=True)(chest)
    chest.save_as(tmp_path / "in.dcm")
    derived, _ = derived_from(tmp_path / "in.dcm", SCALE)
    larger = values.repeat(SCALE, 1).repeat(SCALE, 2)
    write_dicom(derived, larger, tmp_path / "out.dcm")
    written = read_source(tmp_path / "out.dcm")
    assert np.array_equal(decode(written), larger)
    assert written.dataset.HighBit == 13
