"""Every source encoding is converted to every lossless encoding without any change."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax, resolve_transfer_syntax
from cxrsr_cli.dicom.write import write_dicom
from cxrsr_cli.errors import NotDicomError, OutputError
from tests.conftest import EXAMPLE
from tests.derive.test_derive import derived_from

SOURCES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian,
           ExplicitVRBigEndian, JPEGLSLossless, RLELossless]  # fmt: skip


def encoded(chest: pydicom.FileDataset, syntax: UID, path: Path) -> Path:
    """Save the example in a transfer syntax, with elements that are hard to convert."""
    chest.add_new("PixelPaddingValue", "US", 0)
    chest.add_new("SmallestImagePixelValue", "US", 1)
    block = chest.private_block(0x0009, "TEST", create=True)
    block.add_new(0x01, "LO", "private")
    block.add_new(0x02, "US", 258)
    if syntax.is_compressed:
        chest.compress(syntax, generate_instance_uid=False)
    chest.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        # pydicom swaps all but what it keeps as bytes.
        chest.PixelData = np.frombuffer(chest.PixelData, "<u2").astype(">u2").tobytes()
    with quiet_libraries():
        pydicom.dcmwrite(
            path, chest, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian
        )
    return path


@pytest.mark.parametrize("wanted", list(OutputTransferSyntax))
@pytest.mark.parametrize("syntax", SOURCES, ids=lambda syntax: UID(syntax).keyword)
def test_every_encoding_holds_the_same_object(
    chest: pydicom.FileDataset, tmp_path: Path, syntax: UID, wanted: OutputTransferSyntax
) -> None:
    source = encoded(chest, syntax, tmp_path / "in.dcm")
    derived, _ = derived_from(source)
    pixels = decode(read_source(source)).repeat(4, 1).repeat(4, 2)
    target = resolve_transfer_syntax(wanted, syntax)
    write_dicom(derived, pixels, tmp_path / "out.dcm", syntax=target)
    written = read_source(tmp_path / "out.dcm")
    assert written.transfer_syntax == target
    assert np.array_equal(decode(written), pixels)
    dataset = written.dataset
    assert dataset.PatientName == "Example^Chest"
    assert dataset.WindowWidth == 4096
    assert dataset.PixelPaddingValue == 0
    assert dataset.SmallestImagePixelValue == pixels.min()
    if syntax != ImplicitVRLittleEndian:  # which does not say what a private element is
        assert dataset.private_block(0x0009, "TEST")[0x02].value == 258


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (JPEG2000Lossless, JPEG2000Lossless),
        (RLELossless, RLELossless),
        (ImplicitVRLittleEndian, ImplicitVRLittleEndian),
        (DeflatedExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian),
        (ExplicitVRBigEndian, ExplicitVRLittleEndian),
        (JPEGBaseline8Bit, ExplicitVRLittleEndian),
        (JPEG2000, ExplicitVRLittleEndian),
        (JPEGLosslessSV1, ExplicitVRLittleEndian),
    ],
    ids=lambda syntax: UID(syntax).keyword,
)
def test_same_means_the_source_syntax_if_lossless_and_writable_else_explicit(
    source: UID, expected: UID
) -> None:
    assert resolve_transfer_syntax(OutputTransferSyntax.SAME, source) == expected


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize(
    "wanted", [OutputTransferSyntax.JPEGLS, OutputTransferSyntax.J2K, OutputTransferSyntax.RLE]
)
def test_values_survive_compression_at_any_high_bit(
    chest: pydicom.FileDataset,
    tmp_path: Path,
    wanted: OutputTransferSyntax,
    bits: int,
    signed: bool,
) -> None:
    """RLE keeps cells as they are; the other codecs do not keep High Bit."""
    pixels = PixelFormat(16, bits, 15, signed)
    values = (chest.pixel_array.astype(np.int32) >> (12 - bits)) + pixels.minimum
    chest.BitsStored, chest.HighBit, chest.PixelRepresentation = bits, 15, int(signed)
    chest.PixelData = pixels.pack(values).tobytes()
    chest.save_as(tmp_path / "in.dcm")
    dataset = pydicom.dcmread(tmp_path / "in.dcm")
    target = resolve_transfer_syntax(wanted, ExplicitVRLittleEndian)
    write_dicom(dataset, values[None], tmp_path / "out.dcm", syntax=target)
    written = read_source(tmp_path / "out.dcm")
    assert np.array_equal(decode(written)[0], values)
    assert written.dataset.BitsStored == bits
    assert written.dataset.HighBit == (15 if wanted is OutputTransferSyntax.RLE else bits - 1)


def test_the_error_names_a_syntax_that_cannot_hold_the_image(
    chest: pydicom.FileDataset, tmp_path: Path
) -> None:
    """OpenJPEG does not encode images narrower than 32 pixels."""
    chest.Rows = chest.Columns = 16
    chest.PixelData = chest.PixelData[:512]
    chest.save_as(tmp_path / "in.dcm")
    pixels = decode(read_source(tmp_path / "in.dcm"))
    written = pydicom.dcmread(tmp_path / "in.dcm")
    with pytest.raises(OutputError, match=r"JPEG 2000.*use --transfer-syntax explicit"):
        write_dicom(written, pixels, tmp_path / "out.dcm", syntax=JPEG2000Lossless)
    assert not (tmp_path / "out.dcm").exists()


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian],
    ids=lambda syntax: UID(syntax).keyword,
)  # fmt: skip
def test_files_without_preamble_and_meta_information_are_read(
    chest: pydicom.FileDataset, tmp_path: Path, syntax: UID
) -> None:
    expected = decode(read_source(EXAMPLE))
    whole = encoded(chest, syntax, tmp_path / "whole.dcm").read_bytes()
    length = int.from_bytes(whole[140:144], "little")  # of the meta information's group
    (tmp_path / "bare.img").write_bytes(whole[144 + length :])
    assert np.array_equal(decode(read_source(tmp_path / "bare.img")), expected)
    derived, _ = derived_from(tmp_path / "bare.img")
    assert derived.file_meta.MediaStorageSOPInstanceUID == derived.SOPInstanceUID


def test_encapsulated_pixels_without_meta_information_are_refused(
    chest: pydicom.FileDataset, tmp_path: Path
) -> None:
    whole = encoded(chest, JPEGLSLossless, tmp_path / "whole.dcm").read_bytes()
    length = int.from_bytes(whole[140:144], "little")
    (tmp_path / "bare.dcm").write_bytes(whole[144 + length :])
    with pytest.raises(NotDicomError, match="encoding"):
        read_source(tmp_path / "bare.dcm")
