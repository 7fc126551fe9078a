"""Every cell and codec gives back the stored values that were encoded."""

import struct
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

from cxrsr_cli.dicom.codecs import find_decoder
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.frame_header import has_all_tiles
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import UndecodablePixelDataError, UnsupportedImageError
from tests.conftest import EXAMPLE


@given(data=st.data())
def test_unpacking_packed_values_gives_the_same_values(data: st.DataObject) -> None:
    allocated = data.draw(st.sampled_from([8, 16]))
    stored = data.draw(st.integers(8, allocated))
    high = data.draw(st.integers(stored - 1, allocated - 1))
    pixel_format = PixelFormat(allocated, stored, high, data.draw(st.booleans()))
    numbers = st.integers(pixel_format.minimum, pixel_format.maximum)
    values = np.array(data.draw(st.lists(numbers, min_size=1)), np.int32)
    cells = pixel_format.pack(values)
    assert cells.dtype.itemsize * 8 == allocated
    assert np.array_equal(pixel_format.unpack(cells), values)


def test_unused_bits_are_ignored() -> None:
    pixel_format = PixelFormat(16, 10, 12, signed=False)
    assert pixel_format.unpack(np.array([0b101_1000000001_111], np.uint16)) == 0b1000000001


@pytest.mark.parametrize(
    ("stored", "signed", "legal"),
    [(8, False, (0, 255)), (12, False, (0, 4095)), (16, True, (-32768, 32767))],
)
def test_bits_stored_and_sign_decide_the_legal_range(
    stored: int, signed: bool, legal: tuple[int, int]
) -> None:
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
def test_other_pixel_formats_are_refused(
    chest: pydicom.FileDataset, changes: dict[str, int | None]
) -> None:
    for keyword, value in changes.items():
        setattr(chest, keyword, value)
    with pytest.raises(UnsupportedImageError):
        PixelFormat.from_dataset(chest)


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
    assert expected.max() > 255, "the example must need more than 8 bits"
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
        ("other-body-parts/RG2_JPLY_fixed.dcm", 10, "JPEG Extended"),
    ],
)
def test_real_compressed_radiographs_are_decoded(
    shared: Path, name: str, bits: int, syntax: str
) -> None:
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
def test_the_error_names_the_damage(
    chest: pydicom.FileDataset, tmp_path: Path, change: object, says: str
) -> None:
    assert callable(change)
    change(chest)
    path = tmp_path / "damaged.dcm"
    chest.save_as(path, implicit_vr=False, little_endian=True)
    with pytest.raises(UndecodablePixelDataError, match=says):
        decode(read_source(path))


def test_the_overshoot_of_a_lossy_codec_is_clipped(shared: Path) -> None:
    """White must not become black: this JPEG of a leg decodes to 1024 in 10 bits."""
    source = read_source(shared / "dicom" / "other-body-parts" / "RG3_JPLY.dcm")
    assert source.dataset.BitsStored == 10
    decoder = find_decoder(source.transfer_syntax)
    raw, _ = decoder.as_array(
        source.dataset,
        raw=True,
        correct_unused_bits=False,  # type: ignore[arg-type]
    )
    assert raw.max() == 1024
    assert decode(source)[0][raw == 1024].min() == 1023


@pytest.mark.parametrize("rle", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("high_bit", [9, 12, 15])
def test_values_are_read_at_any_high_bit_with_garbage_in_the_unused_bits(
    chest: pydicom.FileDataset, tmp_path: Path, high_bit: int, signed: bool, rle: bool
) -> None:
    """10 bits stored anywhere in 16, with garbage around them."""
    pixel_format = PixelFormat(16, 10, high_bit, signed)
    span = (pixel_format.minimum, pixel_format.maximum + 1)
    random = np.random.default_rng(0)
    values = random.integers(*span, (256, 256), dtype=np.int32)
    shift = high_bit - 9
    used = np.uint16(0x3FF << shift)
    garbage = random.integers(0, 1 << 16, values.shape, dtype=np.uint16) & ~used
    chest.PixelData = ((pixel_format.pack(values) & used) | garbage).astype("<u2").tobytes()
    chest.BitsStored, chest.HighBit, chest.PixelRepresentation = 10, high_bit, int(signed)
    if rle:
        chest.compress(RLELossless, generate_instance_uid=False)
    path = tmp_path / "cells.dcm"
    chest.save_as(path)
    assert np.array_equal(decode(read_source(path))[0], values)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless], ids=["J2K", "JPEG-LS"])
def test_a_lossless_stream_with_more_bits_than_bits_stored_is_refused(
    chest: pydicom.FileDataset, tmp_path: Path, syntax: UID
) -> None:
    """Cutting the extra bits off would make bands in the image."""
    chest.BitsStored, chest.HighBit = 16, 15
    chest.PixelData = (chest.pixel_array.astype("<u2") * 16).tobytes()
    chest.compress(syntax, generate_instance_uid=False)
    chest.BitsStored, chest.HighBit = 12, 11
    chest.save_as(tmp_path / "deep.dcm")
    with pytest.raises(UndecodablePixelDataError, match="more bits than Bits Stored"):
        decode(read_source(tmp_path / "deep.dcm"))


@pytest.mark.parametrize("signed", [False, True])
def test_a_stream_may_state_the_bits_of_the_cell(
    chest: pydicom.FileDataset, tmp_path: Path, signed: bool
) -> None:
    """Many encoders do. Its values are right if they fit Bits Stored."""
    values = chest.pixel_array.astype("<i2") // 2 - 1000 * signed
    chest.PixelRepresentation = int(signed)
    chest.BitsStored, chest.HighBit = 16, 15
    chest.PixelData = values.tobytes()
    chest.compress(JPEG2000Lossless, generate_instance_uid=False)
    chest.BitsStored, chest.HighBit = 12, 11
    chest.save_as(tmp_path / "cell.dcm")
    assert np.array_equal(decode(read_source(tmp_path / "cell.dcm"))[0], values)


def test_a_signed_value_above_bits_stored_is_refused(
    chest: pydicom.FileDataset, tmp_path: Path
) -> None:
    """Read as a bit pattern of 12 bits, 3000 would become -1096."""
    chest.PixelRepresentation = 1
    chest.BitsStored, chest.HighBit = 16, 15
    chest.PixelData = np.full(chest.pixel_array.shape, 3000, "<i2").tobytes()
    chest.compress(JPEG2000Lossless, generate_instance_uid=False)
    chest.BitsStored, chest.HighBit = 12, 11
    chest.save_as(tmp_path / "deep.dcm")
    with pytest.raises(UndecodablePixelDataError, match="more bits than Bits Stored"):
        decode(read_source(tmp_path / "deep.dcm"))


@pytest.mark.process
@pytest.mark.parametrize("offsets", [(0, 1008), (1 << 40, 1 << 40), (0,)], ids=str)
def test_all_fragments_belong_to_a_single_frame_whatever_the_extended_offset_table(
    chest: pydicom.FileDataset, tmp_path: Path, offsets: tuple[int, ...]
) -> None:
    values = chest.pixel_array
    chest.compress(JPEG2000Lossless, generate_instance_uid=False)
    stream = next(generate_frames(chest.PixelData, number_of_frames=1))
    chest.PixelData = encapsulate([stream[:1000], stream[1000:]], has_bot=False)
    chest.ExtendedOffsetTable = struct.pack(f"<{len(offsets)}Q", *offsets)
    chest.ExtendedOffsetTableLengths = struct.pack(f"<{len(offsets)}Q", *[1000] * len(offsets))
    chest.save_as(tmp_path / "fragments.dcm")
    assert np.array_equal(decode(read_source(tmp_path / "fragments.dcm"))[0], values)


def codestream(*tile_parts: tuple[int, bool]) -> bytes:
    """Make a codestream of 2x2 tiles, each part (tile, whether it states its length)."""
    numbers = (0, 30, 20, 0, 0, 16, 16, 0, 0)  # capabilities, then sizes and offsets
    sizes = b"".join(number.to_bytes(4, "big") for number in numbers)[2:]
    siz = b"\xff\x51\x00\x29" + sizes + b"\x00\x01\x0b\x01\x01"
    parts = [
        b"\xff\x90\x00\x0a" + tile.to_bytes(2, "big") + (20 * has_length).to_bytes(4, "big")
        + b"\x00\x01" + b"\xff\x93" + b"pixels"
        for tile, has_length in tile_parts
    ]  # fmt: skip
    return b"\xff\x4f" + siz + b"".join(parts) + b"\xff\xd9"


@pytest.mark.parametrize(
    ("stream", "is_whole"),
    [
        (codestream((0, True), (1, True), (2, True), (3, True)), True),
        (codestream((3, True), (1, True), (2, True), (0, False)), True),
        (codestream((0, True), (0, True), (1, True), (2, True), (3, True)), True),
        (b"jP2 header" + codestream((0, True), (1, True), (2, True), (3, True)), True),
        (codestream((0, True), (1, True), (2, True)), False),
        (codestream((0, True), (1, True), (2, True), (2, True)), False),
        (codestream((0, True), (1, True), (2, True), (3, True))[:-24], False),
        (codestream((0, True), (1, True), (2, True), (3, True))[:-2], True),
        (codestream((0, True), (1, True), (2, True), (3, True))[:-4] + bytes(4), False),
        (codestream(), False),
        (codestream()[:40], False),
    ],
    ids=["all", "last without length", "two parts of one", "in a JP2 file", "three", "one twice",
         "cut", "without its end", "the last bytes lost", "none", "cut in the main header"],
)  # fmt: skip
def test_tiles_of_jpeg_2000_are_counted(stream: bytes, is_whole: bool) -> None:
    """A codec fills a missing one with grey."""
    assert has_all_tiles(stream) is is_whole


@pytest.mark.parametrize("stream_signed", [True, False])
def test_a_stream_whose_sign_differs_from_the_header_is_refused(
    chest: pydicom.FileDataset, tmp_path: Path, stream_signed: bool
) -> None:
    chest.PixelRepresentation = int(stream_signed)
    pixels = chest.pixel_array.astype("<i2") // 2
    chest.PixelData = pixels.tobytes()
    chest.compress(JPEG2000Lossless, generate_instance_uid=False)
    chest.PixelRepresentation = int(not stream_signed)
    chest.save_as(tmp_path / "sign.dcm")
    with pytest.raises(UndecodablePixelDataError, match="signed"):
        decode(read_source(tmp_path / "sign.dcm"))
