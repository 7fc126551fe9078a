"""Radiographs in every transfer syntax, encoded by other software, are decoded."""

import struct
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.codecs import find_decoder
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax, resolve_transfer_syntax
from cxrsr_cli.dicom.write import write_dicom
from cxrsr_cli.errors import UndecodablePixelDataError, UnsupportedImageError
from tests.derive.test_derive import derived_from
from tests.helpers.encodings import LOSSLESS, LOSSY, PICTURES, Encode, encapsulated


@pytest.fixture
def save(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[str, Encode], tuple[Path, NDArray[np.int32]]]:
    """Encode a picture; return the file and the values that went in."""

    def encode_picture(name: str, encode: Encode) -> tuple[Path, NDArray[np.int32]]:
        dataset = PICTURES[name].dataset(lambda: request.getfixturevalue("shared"))
        with quiet_libraries():
            dataset.save_as(tmp_path / "plain.dcm", implicit_vr=False, little_endian=True)
            encode(tmp_path / "plain.dcm", tmp_path / "in.dcm")
        return tmp_path / "in.dcm", dataset.pixel_array.astype(np.int32)

    return encode_picture


Save = Callable[[str, Encode], tuple[Path, NDArray[np.int32]]]


@pytest.mark.process
@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: UID(syntax).keyword)
def test_lossless_pixels_are_decoded_bit_for_bit(save: Save, syntax: UID, picture: str) -> None:
    path, values = save(picture, LOSSLESS[syntax])
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(decode(read_source(path))[0], values)
    derived, _ = derived_from(path, scale=2)
    assert derived.get("LossyImageCompression") in (None, "00")


@pytest.mark.process
@pytest.mark.parametrize(
    ("syntax", "picture"),
    [(syntax, picture) for syntax, lossy in LOSSY.items() for picture in lossy.pictures],
    ids=lambda value: UID(value).keyword if str(value).startswith("1.2") else value,
)
def test_the_output_of_a_lossy_source_is_marked_lossy_and_written_losslessly(
    save: Save, tmp_path: Path, syntax: UID, picture: str
) -> None:
    lossy = LOSSY[syntax]
    path, values = save(picture, lossy.encode)
    source = read_source(path)
    assert source.transfer_syntax == syntax
    decoded = decode(source)
    error = abs(decoded[0] - values)
    assert 0 < error.max() <= lossy.bound * 2 ** PICTURES[picture].bits
    derived, _ = derived_from(path, scale=2)
    target = resolve_transfer_syntax(OutputTransferSyntax.SAME, syntax)
    larger = decoded.repeat(2, 1).repeat(2, 2)
    write_dicom(derived, larger, tmp_path / "out.dcm", syntax=target)
    written = read_source(tmp_path / "out.dcm")
    assert written.transfer_syntax == ExplicitVRLittleEndian
    assert np.array_equal(decode(written), larger)
    assert written.dataset.LossyImageCompression == "01"
    assert written.dataset.LossyImageCompressionMethod == lossy.method
    assert float(written.dataset.LossyImageCompressionRatio) > 1


@pytest.mark.process
@pytest.mark.parametrize(
    ("syntax", "missing"),
    [
        (syntax, missing)
        for syntax in (*LOSSLESS, *LOSSY)
        for missing in (4, 400)
        if UID(syntax).is_encapsulated
        # CharLS can take seconds to give up.
        and (syntax, missing) != (JPEGLSLossless, 400)
        and syntax != JPEGLSNearLossless
    ],
    ids=lambda value: value.keyword if isinstance(value, UID) else value,
)
def test_a_truncated_frame_is_refused(save: Save, syntax: UID, missing: int) -> None:
    """Codecs would fill missing pixels with grey and report no error."""
    encode = LOSSY[syntax].encode if syntax in LOSSY else LOSSLESS[syntax]
    path, _ = save("8 bits" if syntax == JPEGBaseline8Bit else "12 bits", encode)
    dataset = pydicom.dcmread(path)
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1)).rstrip(b"\0")
    encapsulated(dataset, stream[:-missing], syntax)
    dataset.save_as(path)
    with pytest.raises(UndecodablePixelDataError, match="damaged"):
        decode(read_source(path))


@pytest.mark.process
def test_a_frame_that_makes_a_codec_panic_is_refused(save: Save) -> None:
    """A codec written in Rust raises a BaseException, which would end a whole run."""
    path, values = save("12 bits", LOSSLESS[RLELossless])
    dataset = pydicom.dcmread(path)
    run = bytes([129, 0])  # 128 zeros
    segment = run * (values.size // 128 + 2)  # more than there are pixels
    header = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13)
    encapsulated(dataset, header + 2 * segment, RLELossless)
    dataset.save_as(path)
    with pytest.raises(UndecodablePixelDataError, match="damaged"):
        decode(read_source(path))


def test_every_syntax_that_pydicom_decodes_is_tested_here() -> None:
    """A syntax that pydicom adds must be tested here before the documentation names it."""
    from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS

    assert _PIXEL_DATA_DECODERS.keys() == LOSSLESS.keys() | LOSSY.keys()


# Refused, by name


@pytest.mark.parametrize(
    ("syntax", "says"),
    [
        ("1.2.840.10008.1.2.4.110", "transfer syntax JPEG XL Lossless"),
        ("1.2.840.10008.1.2.4.111", "transfer syntax JPEG XL JPEG Recompression"),
        ("1.2.840.10008.1.2.4.112", "transfer syntax JPEG XL$"),
        ("1.2.840.10008.1.2.8.1", "transfer syntax Deflated Image Frame Compression"),
        ("1.2.840.10008.1.2.4.102", "transfer syntax MPEG-4"),
        ("1.2.840.10008.1.2.4.53", "transfer syntax JPEG Spectral Selection"),
        ("1.2.840.10008.1.2.4.999", r"transfer syntax 1\.2\.840\.10008\.1\.2\.4\.999"),
        ("1.2.840.113619.5.2", "not one of the DICOM standard"),
        ("1.2.840.10008.1.2.Doe^John", "not one of the DICOM standard"),
    ],
)
def test_the_error_names_a_syntax_without_decoder(syntax: str, says: str) -> None:
    with quiet_libraries(), pytest.raises(UndecodablePixelDataError, match=says) as refusal:
        find_decoder(UID(syntax))
    assert "Doe" not in str(refusal.value)


@pytest.mark.process
@pytest.mark.parametrize("core", [True, False], ids=["core codecs", "no codecs"])
def test_the_error_for_a_missing_codec_names_the_extra(save: Save, core: bool) -> None:
    """The codecs of the core package cannot decode 12-bit JPEG Extended."""
    path, _ = save("12 bits", LOSSY[JPEGExtended12Bit].encode)
    decoder = get_decoder(JPEGExtended12Bit)
    without = {name: decoder._available[name] for name in ("gdcm", "pillow")} if core else {}
    with (
        patch.object(decoder, "_available", without),
        patch.object(decoder, "_unavailable", {}),
        patch("cxrsr_cli.dicom.codecs.find_spec", return_value=None),
        pytest.raises(UndecodablePixelDataError, match=r"pip install .*'cxrsr\[codecs\]'"),
    ):
        decode(read_source(path))


FILLED: dict[str, Callable[[bytes, int], bytes]] = {
    "zeros": lambda stream, at: stream[:at] + bytes(len(stream) - at - 2) + b"\xff\xd9",
    "fill bytes": lambda stream, at: stream[:at] + b"\xff" * (len(stream) - at - 1) + b"\xd9",
    "a hole": lambda stream, at: stream[:at] + bytes(512) + stream[at + 512 :],
}


@pytest.mark.process
@pytest.mark.parametrize("damage", FILLED.values(), ids=FILLED)
def test_a_frame_of_12_bits_that_was_cut_and_filled_is_refused(
    save: Save, damage: Callable[[bytes, int], bytes]
) -> None:
    """Its codec reports neither missing nor left over data."""
    path, _ = save("12 bits", LOSSY[JPEGExtended12Bit].encode)
    dataset = pydicom.dcmread(path)
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1)).rstrip(b"\0")
    dataset.PixelData = encapsulate([damage(stream, len(stream) // 2)])
    dataset.save_as(path)
    with pytest.raises(UndecodablePixelDataError, match="damaged"):
        decode(read_source(path))


@pytest.mark.process
def test_signed_lossy_jpeg_is_refused(save: Save) -> None:
    """The codec supports no sign, so values would be clipped or wrapped."""
    path, _ = save("12 bits", LOSSY[JPEGExtended12Bit].encode)
    dataset = pydicom.dcmread(path)
    dataset.PixelRepresentation = 1
    dataset.save_as(path)
    with pytest.raises(UnsupportedImageError, match="signed"):
        decode(read_source(path))


@pytest.mark.parametrize("syntax", [JPEG2000, HTJ2K], ids=lambda syntax: UID(syntax).keyword)
def test_a_lossy_stream_with_more_bits_than_bits_stored_is_refused(save: Save, syntax: UID) -> None:
    """A small overshoot is clipped; twice the range is not an overshoot."""
    path, _ = save("16 bits", LOSSY[syntax].encode)
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(path)
    with pytest.raises(UndecodablePixelDataError, match="more bits than Bits Stored"):
        decode(read_source(path))
