"""A large image is in memory once, in the smallest type that holds its values."""

import copy
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.pixels.utils import pack_bits
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from cxrsr_cli.derive.derive import derive
from cxrsr_cli.derive.overlays import upscale_overlays
from cxrsr_cli.dicom.decode import decode, decode_compact, decodes_equal
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.dicom.write import PixelDataStream, write_dicom
from cxrsr_cli.inference import agreement
from cxrsr_cli.inference.agreement import AgreementDeviation
from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import small_chest
from tests.derive.test_derive import NOW, at_scale

FORMATS = [
    # Bits Allocated, Bits Stored, High Bit, signed; type
    (8, 8, 7, False, np.uint8),
    (8, 8, 7, True, np.int8),
    (16, 8, 7, False, np.uint8),
    (16, 8, 15, True, np.int8),
    (16, 10, 9, False, np.uint16),
    (16, 12, 15, True, np.int16),
    (16, 16, 15, False, np.uint16),
    (16, 16, 15, True, np.int16),
]

Measure = Callable[[Callable[[], object]], int]


@pytest.fixture
def peak() -> Measure:
    """Measure the peak of bytes that a call allocates, arrays included."""

    def measure(call: Callable[[], object]) -> int:
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure


def put(chest: FileDataset, form: PixelFormat, values: NDArray[np.integer]) -> None:
    """Replace the pixels of an object."""
    chest.Rows, chest.Columns = values.shape
    chest.BitsAllocated, chest.BitsStored = form.bits_allocated, form.bits_stored
    chest.HighBit, chest.PixelRepresentation = form.high_bit, int(form.signed)
    chest.PixelData = form.pack(values).tobytes()
    chest["PixelData"].VR = "OW" if form.bits_allocated == 16 else "OB"


@pytest.mark.parametrize(("allocated", "stored", "high", "signed", "kind"), FORMATS)
def test_output_frames_have_the_smallest_type_in_memory_and_in_the_file(
    upscaler: Upscaler,
    tmp_path: Path,
    *,
    allocated: int,
    stored: int,
    high: int,
    signed: bool,
    kind: type[np.integer],
) -> None:
    form = PixelFormat(allocated, stored, high, signed)
    assert form.dtype == kind
    assert np.iinfo(kind).min <= form.minimum < form.maximum <= np.iinfo(kind).max
    chest = small_chest()
    values = (chest.pixel_array.astype(np.int32) << 4 >> 16 - stored) + form.minimum
    put(chest, form, values)
    chest.save_as(tmp_path / "in.dcm")
    upscaled = upscaler.upscale(upscaler.read(Job(tmp_path / "in.dcm", tmp_path / "out.dcm")))
    assert upscaled.frames.dtype == kind
    upscaler.write(upscaled)
    written = read_source(tmp_path / "out.dcm")
    assert np.array_equal(decode(written), upscaled.frames)
    assert decode_compact(written).dtype == kind
    assert decodes_equal(written, upscaled.frames)
    assert not decodes_equal(written, upscaled.frames ^ 1)


@given(data=st.data())
def test_a_pixel_data_stream_equals_packed_pixels(data: st.DataObject) -> None:
    """The reads may have any size and start, and the values any type."""
    form = PixelFormat(*data.draw(st.sampled_from(FORMATS))[:4])
    kind = data.draw(st.sampled_from([form.dtype, np.dtype(np.int32)]))
    size = data.draw(st.integers(1, 40))
    values = np.random.default_rng(size).integers(form.minimum, form.maximum + 1, size).astype(kind)
    before = values.copy()
    packed = form.pack(values).tobytes()
    packed += bytes(len(packed) % 2)
    stream = PixelDataStream(values, form)
    start = stream.seek(data.draw(st.integers(0, len(packed))))
    read = b""
    while piece := stream.read(data.draw(st.integers(1, 9))):
        read += piece
    assert read == packed[start:]
    assert stream.seek(-1, 2) == len(packed) - 1
    assert copy.deepcopy(stream).read() == packed[-1:]
    assert np.array_equal(values, before)


def test_values_that_lie_in_memory_as_in_a_file_are_not_copied() -> None:
    for allocated, stored, high, signed, kind in FORMATS:
        form = PixelFormat(allocated, stored, high, signed)
        values = np.zeros(9, kind)
        same = high == stored - 1 and 8 * values.itemsize == allocated
        assert np.shares_memory(form.pack(values), values) == same


@pytest.mark.parametrize(
    ("kind", "high", "syntax"),
    [
        (np.uint16, 11, ExplicitVRLittleEndian),
        (np.int16, 11, ImplicitVRLittleEndian),
        (np.int16, 15, ExplicitVRLittleEndian),
        (np.uint8, 7, ExplicitVRLittleEndian),
    ],
)
def test_deriving_and_writing_copies_no_whole_image(
    chest: FileDataset,
    tmp_path: Path,
    peak: Measure,
    *,
    kind: type[np.integer],
    high: int,
    syntax: UID,
) -> None:
    signed, bits = kind is np.int16, 8 if kind is np.uint8 else 12
    form = PixelFormat(16, bits, high, signed)
    pixels = chest.pixel_array.repeat(2, 0).repeat(2, 1) >> 12 - bits
    put(chest, form, pixels.astype(np.int32) + form.minimum)
    chest.Rows, chest.Columns = pixels.shape
    chest.add_new("SmallestImagePixelValue", "SS" if signed else "US", 0)
    chest.save_as(tmp_path / "in.dcm")
    source = read_source(tmp_path / "in.dcm")
    low = decode(source)
    large = low.astype(kind).repeat(8, 1).repeat(8, 2)

    def write() -> None:
        derived, _ = derive(source, low, large, at_scale(8), NOW, agreement="exact")
        write_dicom(derived, large, tmp_path / "out.dcm", syntax=syntax)

    write()  # imports and caches of the first call do not count
    (tmp_path / "out.dcm").unlink()
    assert peak(write) < 0.3 * large.size * form.cell_dtype.itemsize
    assert decodes_equal(read_source(tmp_path / "out.dcm"), large)


def test_measuring_agreement_copies_no_whole_image(peak: Measure) -> None:
    large = np.zeros((8192, 8192), np.uint8)
    small = np.zeros((1024, 1024), np.int32)
    assert peak(lambda: AgreementDeviation.measure(large, small)) < 0.5 * large.nbytes


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("height", [1, 2, 5, 33])
def test_agreement_measured_in_strips_equals_that_of_the_whole_image(
    scale: int, height: int
) -> None:
    random = np.random.default_rng(height)
    large = random.integers(0, 1 << 16, (height * scale, 7 * scale)).astype(np.uint16)
    small = random.integers(0, 1 << 16, (height, 7), dtype=np.int32)
    whole = AgreementDeviation.measure(large, small)
    assert whole.largest > whole.rms > whole.mean > 0
    for rows in (1, 2, 3):
        with patch.object(agreement, "_STRIP_ROWS", rows):
            strips = AgreementDeviation.measure(large, small)
        assert strips.largest == whole.largest
        assert strips.rms == pytest.approx(whole.rms, rel=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (64, 3), (130, 11), (200, 16)])
def test_overlay_bits_continue_from_strip_to_strip(
    chest: FileDataset, tmp_path: Path, rows: int, columns: int
) -> None:
    plane = np.random.default_rng(rows).integers(0, 2, (rows, columns), np.uint8)
    for element, vr, value in (
        (0x0010, "US", rows), (0x0011, "US", columns), (0x0040, "CS", "G"), (0x0050, "SS", [1, 1]),
        (0x0100, "US", 1), (0x0102, "US", 0), (0x3000, "OW", pack_bits(plane, pad=True)),
    ):  # fmt: skip
        chest.add_new((0x6000, element), vr, value)
    chest.save_as(tmp_path / "in.dcm")
    source = read_source(tmp_path / "in.dcm")
    derived = copy.deepcopy(source.raw_dataset)
    assert upscale_overlays(derived, source, 4) == []
    larger = plane.repeat(4, 0).repeat(4, 1)
    assert derived[0x60003000].value == pack_bits(larger, pad=True)


@pytest.mark.parametrize("least", [1, 1 << 17, (1 << 17) + 1])
def test_only_large_uncompressed_pixel_data_stays_in_the_file(
    chest: FileDataset, tmp_path: Path, least: int
) -> None:
    chest.add_new(0x00282000, "OB", bytes(1 << 18))  # ICC Profile
    chest.save_as(tmp_path / "x.dcm")
    source = read_source(tmp_path / "x.dcm", min_deferred_bytes=least)
    assert source.dataset.ICCProfile == bytes(1 << 18)
    if least > len(chest.PixelData):
        assert source.pixel_data_range is None
        assert source.dataset.PixelData == chest.PixelData
        return
    assert source.pixel_data_range is not None
    assert "PixelData" not in source.dataset
    assert "PixelData" not in source.raw_dataset
    raw = (tmp_path / "x.dcm").read_bytes()
    assert raw[source.pixel_data_range.start : source.pixel_data_range.stop] == chest.PixelData
    chest.compress(JPEGLSLossless, generate_instance_uid=False)
    chest.save_as(tmp_path / "x.dcm")
    compressed = read_source(tmp_path / "x.dcm", min_deferred_bytes=least)
    assert compressed.dataset.PixelData == pydicom.dcmread(tmp_path / "x.dcm").PixelData
