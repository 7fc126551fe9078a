"""Small files that claim gigabytes are refused without allocating them."""

import io
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.acceptance import check_acceptance
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.frame_header import FrameHeader
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import InputError, NotDicomError

ALLOWED = 32 << 20
"""Bytes at a time: pydicom and its dictionaries take some of them."""

SIDE = 16


@pytest.fixture
def small(chest: FileDataset) -> FileDataset:
    """Cut the example to a few hundred bytes of pixels."""
    chest.PixelData = chest.pixel_array[90 : 90 + SIDE, 60 : 60 + SIDE].tobytes()
    chest.Rows = chest.Columns = SIDE
    return chest


def accept_and_decode(path: Path) -> None:
    source = read_source(path)
    check_acceptance(source.dataset, 2, frozenset())
    decode(source)


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[bytes], str]:
    """Read a file to its pixels; return why it could not be, having allocated little."""

    def read(content: bytes) -> str:
        path = tmp_path / "claims.dcm"
        path.write_bytes(content)
        tracemalloc.start()
        try:
            with pytest.raises(InputError) as refusal:
                accept_and_decode(path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < ALLOWED + 4 * len(content)
        return str(refusal.value)

    return read


def content_of(dataset: FileDataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    dataset.file_meta.TransferSyntaxUID = syntax
    with quiet_libraries():
        dataset.save_as(path, implicit_vr=False, little_endian=True)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"Rows": 16000, "Columns": 16000}, "claim 512000000 bytes"),
        ({"Rows": 32767, "Columns": 32767}, "claim more work than an image may take"),
        ({"NumberOfFrames": 2**31 - 1}, "has one frame"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, RLELossless, JPEGLosslessSV1, JPEGBaseline8Bit, JPEG2000Lossless],
    ids=lambda syntax: UID(syntax).keyword,
)
def test_a_header_that_claims_too_many_pixels_is_refused(
    small: FileDataset,
    refused: Callable[[bytes], str],
    tmp_path: Path,
    changes: dict[str, int],
    says: str,
    syntax: UID,
) -> None:
    if syntax.is_compressed:
        small.PixelData = encapsulate([bytes(300)])
        small["PixelData"].is_undefined_length = True
    for keyword, value in changes.items():
        setattr(small, keyword, value)
    assert says in refused(content_of(small, tmp_path / "x", syntax))


@pytest.mark.parametrize("element", [b"\xe0\x7f\x10\x00OW\x00\x00", b"\x20\x00\x00\x40UT\x00\x00"])
@pytest.mark.parametrize("claimed", [0xFFFFFFF0, 0x7FFFFFF0])
def test_an_element_that_claims_too_many_bytes_is_refused(
    small: FileDataset,
    refused: Callable[[bytes], str],
    tmp_path: Path,
    element: bytes,
    claimed: int,
) -> None:
    """The file is shorter than the claimed value, which pydicom would allocate first."""
    small.ImageComments = "x"
    content = content_of(small, tmp_path / "x")
    content = content.replace(b"\x20\x00\x00\x40LT", element[:4] + b"LT")
    pixels = content.index(b"\xe0\x7f\x10\x00OW")
    content = content[:pixels] + element + struct.pack("<L", claimed) + content[pixels + 12 :]
    refused(content[: pixels + 112])


def bomb(size: int) -> bytes:
    """Deflate zeros: a thousandth of them. Blocks after a full flush can be repeated."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (size >> 20) + packer.flush()


def inflated(dataset: FileDataset, path: Path) -> tuple[bytes, bytes, bytes]:
    """Return the beginning of a deflated file, its inflated header, and its Pixel Data."""
    whole = content_of(dataset, path, DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(whole[140:144], "little")
    body = zlib.decompress(whole[start:], -zlib.MAX_WBITS)
    pixels = body.index(b"\xe0\x7f\x10\x00OW")
    return whole[:start], body[:pixels], body[pixels:]


@pytest.mark.parametrize("size", [256 << 20, 4 << 30])
@pytest.mark.parametrize("damage", [b"", b"\xfe\xff\x0d\xe0\0\0\0\0"], ids=["", "damaged"])
def test_a_deflated_bomb_is_refused(
    small: FileDataset, refused: Callable[[bytes], str], tmp_path: Path, size: int, damage: bytes
) -> None:
    beginning, header, _ = inflated(small, tmp_path / "x")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    pixels = b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<L", size - 1024)
    packed = packer.compress(header + damage + pixels)
    packed += packer.flush(zlib.Z_FULL_FLUSH) + bomb(size)
    assert "inflates to more than" in refused(beginning + packed)


def test_items_of_a_deflated_data_set_are_counted(
    small: FileDataset, refused: Callable[[bytes], str], tmp_path: Path
) -> None:
    """A kilobyte can hold thousands, and pydicom takes seconds to read them."""
    beginning, header, pixels = inflated(small, tmp_path / "x")
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 66_000
    sequence = b"\x00\x54\x00\x01SQ\0\0" + struct.pack("<L", len(items)) + items
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(header + sequence + pixels) + packer.flush()
    assert "more than 65536 elements" in refused(beginning + packed)


def test_items_that_are_no_items_are_counted(small: FileDataset, tmp_path: Path) -> None:
    """Eight zeros are an empty item to pydicom."""
    content, zeros = content_of(small, tmp_path / "x"), bytes(8 * 66_000)
    pixels = content.index(b"\xe0\x7f\x10\x00OW")
    sequence = b"\x00\x54\x00\x01SQ\0\0" + struct.pack("<L", len(zeros)) + zeros
    with pytest.raises(NotDicomError, match="more than 65536 elements"):
        read_source(io.BytesIO(content[:pixels] + sequence + content[pixels:]))


def test_a_deflated_radiograph_is_read(chest: FileDataset, tmp_path: Path) -> None:
    """Also a blank image, which deflates by a factor of a thousand."""
    chest.Rows = chest.Columns = 3000
    chest.PixelData = bytes(2 * 3000 * 3000)
    content = content_of(chest, tmp_path / "x.dcm", DeflatedExplicitVRLittleEndian)
    assert len(content) < 40_000
    assert decode(read_source(tmp_path / "x.dcm")).shape == (1, 3000, 3000)


def claims(stream: bytes, side: int) -> bytes:
    """Change the size that a JPEG, JPEG-LS or JPEG 2000 stream states of itself."""
    if stream.startswith(b"\xff\x4f"):
        return stream[:8] + struct.pack(">LL", side, side) + stream[16:]
    frame = re.search(rb"\xff[\xc0\xc1\xc3\xf7]\x00.", stream, re.DOTALL)
    assert frame
    at = frame.start() + 5
    return stream[:at] + struct.pack(">HH", side, side) + stream[at + 4 :]


@pytest.mark.parametrize(
    "syntax", [JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless], ids=lambda s: UID(s).keyword
)
def test_a_compressed_frame_that_claims_another_size_is_refused(
    chest: FileDataset, refused: Callable[[bytes], str], tmp_path: Path, syntax: UID
) -> None:
    """A codec would allocate the size; the header states the right one."""
    chest.compress(
        JPEGLSLossless if syntax == JPEGLSLossless else JPEG2000Lossless,
        generate_instance_uid=False,
    )
    stream = next(generate_frames(chest.PixelData, number_of_frames=1))
    signed = None if syntax == JPEGLSLossless else False
    assert FrameHeader.from_stream(stream) == FrameHeader(256, 256, 1, 12, signed)
    boxed = bytes(4) + b"jP  " + bytes(40)  # JP2, which is not allowed but occurs
    for before in (b"",) if syntax == JPEGLSLossless else (b"", boxed):
        chest.PixelData = encapsulate([before + claims(stream, 60_000)])
        assert "another size" in refused(content_of(chest, tmp_path / "x", syntax))


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("chest/Fake_MONOHR1.dcm", FrameHeader(1024, 1024, 1, 8)),
        ("chest/966_fixed.dcm", FrameHeader(2128, 2000, 1, 12, signed=False)),
        ("other-body-parts/RG2_JPLL.dcm", FrameHeader(2140, 1760, 1, 10)),
        ("other-body-parts/RG2_JPLY_fixed.dcm", FrameHeader(2140, 1760, 1, 12)),
        ("other-body-parts/RG3_JLSL.dcm", FrameHeader(1760, 1760, 1, 10)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_size_in_real_compressed_frames_is_read_and_checked(
    shared: Path,
    refused: Callable[[bytes], str],
    tmp_path: Path,
    name: str,
    header: FrameHeader,
) -> None:
    with quiet_libraries():
        dataset = pydicom.dcmread(shared / "dicom" / name)
        stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
        assert FrameHeader.from_stream(stream) == header
        dataset.PixelData = encapsulate([claims(stream, 60_000)])
        dataset.BodyPartExamined = "CHEST"
        dataset.pop("AnatomicRegionSequence", None)
        dataset.save_as(tmp_path / "x")
    assert "another size" in refused((tmp_path / "x").read_bytes())


@pytest.mark.parametrize(
    "stream", [b"", b"\xff\xd8", b"\xff\xd8\xff\xff\xff", b"\xff\xd8\xff\xe0\x00\x00" * 9,
               b"\xff\xd8\xff\xda" + bytes(9), b"\xff\x4f\xff\x51", bytes(64), b"\xff\xd8" * 40,
               b"\xff\x4f\xff\x51" + bytes(40)],
)  # fmt: skip
def test_a_frame_without_a_header_gives_none(stream: bytes) -> None:
    assert FrameHeader.from_stream(stream) is None


def test_rle_segments_that_claim_too_many_bytes_are_refused(
    small: FileDataset, refused: Callable[[bytes], str], tmp_path: Path
) -> None:
    small.compress(RLELossless, generate_instance_uid=False)
    frame = next(generate_frames(small.PixelData, number_of_frames=1))
    small.PixelData = encapsulate([struct.pack("<16L", 15, *[0xFFFFFFF0] * 15) + frame[64:]])
    refused(content_of(small, tmp_path / "x", RLELossless))


def test_a_fragment_that_claims_too_many_bytes_gets_the_bytes_that_exist(
    small: FileDataset, tmp_path: Path
) -> None:
    """Here the remaining bytes are the whole frame."""
    values = small.pixel_array.copy()
    small.compress(RLELossless, generate_instance_uid=False)
    content = content_of(small, tmp_path / "x", RLELossless)
    at = content.rindex(b"\xfe\xff\x00\xe0") + 4
    (tmp_path / "x").write_bytes(content[:at] + b"\xf0\xff\xff\xff" + content[at + 4 :])
    tracemalloc.start()
    try:
        assert np.array_equal(decode(read_source(tmp_path / "x"))[0], values)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < ALLOWED
