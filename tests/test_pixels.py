"""Stored values come out of every cell and codec as they went in."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from cxrsr_cli.errors import UndecodablePixelDataError, UnsupportedImageError
from cxrsr_cli.read.dataset import read_source
from cxrsr_cli.read.pixels import PixelFormat, decode
from tests.conftest import EXAMPLE


@given(data=st.data())
def test_cells_hold_what_was_packed(data: st.DataObject) -> None:
    allocated = data.draw(st.sampled_from([8, 16]))
    stored = data.draw(st.integers(8, allocated))
    high = data.draw(st.integers(stored - 1, allocated - 1))
    pixel_format = PixelFormat(allocated, stored, high, data.draw(st.booleans()))
    numbers = st.integers(pixel_format.minimum, pixel_format.maximum)
    values = np.array(data.draw(st.lists(numbers, min_size=1)), np.int32)
    cells = pixel_format.pack(values)
    assert cells.dtype.itemsize * 8 == allocated
    assert np.array_equal(pixel_format.unpack(cells), values)


def test_bits_above_and_below_the_stored_ones_are_ignored() -> None:
    pixel_format = PixelFormat(16, 10, 12, signed=False)
    assert pixel_format.unpack(np.array([0b101_1000000001_111], np.uint16)) == 0b1000000001


@pytest.mark.parametrize(
    ("stored", "signed", "legal"),
    [(8, False, (0, 255)), (12, False, (0, 4095)), (16, True, (-32768, 32767))],
)
def test_legal_range(stored: int, signed: bool, legal: tuple[int, int]) -> None:
    pixel_format = PixelFormat(16, stored, stored - 1, signed)
    assert (pixel_format.minimum, pixel_format.maximum) == legal


@pytest.mark.parametrize(
    "changes",
    [
        {"BitsAllocated": 32},
        {"BitsStored": 7},
        {"BitsStored": 17},
        {"HighBit": 10},
        {"HighBit": 16},
        {"PixelRepresentation": 2},
        {"BitsAllocated": None},
    ],
    ids=str,
)
def test_refuses_other_formats(chest: pydicom.FileDataset, changes: dict[str, int | None]) -> None:
    for keyword, value in changes.items():
        setattr(chest, keyword, value)
    with pytest.raises(UnsupportedImageError):
        PixelFormat.of(chest)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
    ids=lambda syntax: UID(syntax).name,
)
def test_every_lossless_syntax_gives_the_same_values(
    chest: pydicom.FileDataset, syntax: str, tmp_path: Path
) -> None:
    expected = decode(read_source(EXAMPLE))
    assert expected.max() > 255, "the example must not fit in 8 bits"
    path = tmp_path / "chest.dcm"
    if UID(syntax).is_compressed:
        chest.compress(syntax, generate_instance_uid=False)
    chest.file_meta.TransferSyntaxUID = UID(syntax)
    chest.save_as(path, implicit_vr=UID(syntax).is_implicit_VR, little_endian=True)
    source = read_source(path)
    assert source.transfer_syntax == syntax
    assert np.array_equal(decode(source), expected)


@pytest.mark.parametrize(
    ("name", "bits", "syntax"),
    [
        ("chest/966_fixed.dcm", 12, "JPEG 2000"),
        ("chest/RG1_J2KR.dcm", 15, "JPEG 2000"),
        ("chest/Fake_MONOHR1.dcm", 8, "JPEG Baseline"),
        ("other-body-parts/RG2_JPLL.dcm", 10, "JPEG Lossless"),
        ("other-body-parts/RG3_JLSL.dcm", 10, "JPEG-LS"),
    ],
)
def test_real_compressed_radiographs(shared: Path, name: str, bits: int, syntax: str) -> None:
    source = read_source(shared / "dicom" / name)
    assert syntax in source.transfer_syntax.name
    values = decode(source)
    assert values.shape == (1, source.dataset.Rows, source.dataset.Columns)
    assert values.min() >= 0
    assert 2 ** (bits - 1) < values.max() < 2**bits


def compress_and_cut(dataset: pydicom.FileDataset) -> None:
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([stream[: len(stream) // 2]])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda ds: setattr(ds, "PixelData", ds.PixelData[: len(ds.PixelData) // 2]), "claim"),
        (lambda ds: setattr(ds, "Rows", 60000), "claim"),
        (lambda ds: setattr(ds.file_meta, "TransferSyntaxUID", "1.2.3.4"), "transfer syntax"),
        (compress_and_cut, "damaged"),
    ],
    ids=["half the pixels", "too many rows", "unknown syntax", "half a stream"],
)
def test_damage_is_named(
    chest: pydicom.FileDataset, tmp_path: Path, change: object, says: str
) -> None:
    assert callable(change)
    change(chest)
    path = tmp_path / "damaged.dcm"
    chest.save_as(path, implicit_vr=False, little_endian=True)
    with pytest.raises(UndecodablePixelDataError, match=says):
        decode(read_source(path))
