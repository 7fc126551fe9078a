"""Real radiographs in every transfer syntax in the wild, from encoders that are not ours."""

import copy
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
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

from cxrsr_cli.errors import UndecodablePixelDataError, UnsupportedImageError
from cxrsr_cli.read.codecs import find_decoder
from cxrsr_cli.read.dataset import quiet_pydicom, read_source
from cxrsr_cli.read.pixels import decode
from cxrsr_cli.write.dicom import write_dicom
from cxrsr_cli.write.syntax import OutputSyntax, resolve
from tests.conftest import EXAMPLE, _skip_or_fail
from tests.test_derive import derived_from

ROWS, COLUMNS = 57, 66
"""Odd, so that nothing is right by alignment alone; an even number of bytes."""


@cache
def _read(path: Path) -> tuple[pydicom.FileDataset, NDArray[np.int32]]:
    """Return the middle of a picture, and an object without it."""
    with quiet_pydicom():
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
            _skip_or_fail(f"needs {program} (Debian: dcmtk)")
        subprocess.run([str(found), *options, source, target], check=True, capture_output=True)

    return encode


def by_imagecodecs(codec: str, syntax: UID, **options: object) -> Encode:
    """Encode with a codec of imagecodecs, OpenJPH or OpenJPEG inside."""

    def encode(source: Path, target: Path) -> None:
        try:
            import imagecodecs
        except ImportError:
            _skip_or_fail("needs imagecodecs (pip install 'cxrsr[codecs]')")
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


@pytest.fixture
def save(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[str, Encode], tuple[Path, NDArray[np.int32]]]:
    """Encode a picture; return the file and the values that went in."""

    def encode_picture(name: str, encode: Encode) -> tuple[Path, NDArray[np.int32]]:
        dataset = PICTURES[name].dataset(lambda: request.getfixturevalue("shared"))
        with quiet_pydicom():
            dataset.save_as(tmp_path / "plain.dcm", implicit_vr=False, little_endian=True)
            encode(tmp_path / "plain.dcm", tmp_path / "in.dcm")
        return tmp_path / "in.dcm", dataset.pixel_array.astype(np.int32)

    return encode_picture


Save = Callable[[str, Encode], tuple[Path, NDArray[np.int32]]]


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: UID(syntax).keyword)
def test_lossless_is_bit_identical(save: Save, syntax: UID, picture: str) -> None:
    path, values = save(picture, LOSSLESS[syntax])
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(decode(read_source(path))[0], values)
    derived, _ = derived_from(path, scale=2)
    assert derived.get("LossyImageCompression") in (None, "00")


@pytest.mark.parametrize(
    ("syntax", "picture"),
    [(syntax, picture) for syntax, lossy in LOSSY.items() for picture in lossy.pictures],
    ids=lambda value: UID(value).keyword if str(value).startswith("1.2") else value,
)
def test_lossy_is_close_flagged_and_not_compressed_again(
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
    target = resolve(OutputSyntax.SAME, syntax)
    larger = decoded.repeat(2, 1).repeat(2, 2)
    write_dicom(derived, larger, tmp_path / "out.dcm", syntax=target)
    written = read_source(tmp_path / "out.dcm")
    assert written.transfer_syntax == ExplicitVRLittleEndian
    assert np.array_equal(decode(written), larger)
    assert written.dataset.LossyImageCompression == "01"
    assert written.dataset.LossyImageCompressionMethod == lossy.method
    assert float(written.dataset.LossyImageCompressionRatio) > 1


@pytest.mark.parametrize("missing", [6, 400])
@pytest.mark.parametrize(
    "syntax",
    [syntax for syntax in (*LOSSLESS, *LOSSY) if UID(syntax).is_encapsulated],
    ids=lambda syntax: UID(syntax).keyword,
)
def test_a_truncated_frame_is_refused(save: Save, syntax: UID, missing: int) -> None:
    """Codecs would fill what is missing with grey, and say nothing."""
    encode = LOSSY[syntax].encode if syntax in LOSSY else LOSSLESS[syntax]
    path, _ = save("8 bits" if syntax == JPEGBaseline8Bit else "12 bits", encode)
    dataset = pydicom.dcmread(path)
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1)).rstrip(b"\0")
    encapsulated(dataset, stream[:-missing], syntax)
    dataset.save_as(path)
    with pytest.raises(UndecodablePixelDataError, match="damaged"):
        decode(read_source(path))


def test_every_syntax_that_is_decoded_is_in_the_tables() -> None:
    """A syntax that pydicom learns must be tested here before it is said to be read."""
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
def test_a_syntax_without_decoder_is_named(syntax: str, says: str) -> None:
    with quiet_pydicom(), pytest.raises(UndecodablePixelDataError, match=says) as refusal:
        find_decoder(UID(syntax))
    assert "Doe" not in str(refusal.value)


@pytest.mark.parametrize("core", [True, False], ids=["core codecs", "no codecs"])
def test_a_missing_codec_names_the_extra(save: Save, core: bool) -> None:
    """12-bit JPEG Extended is beyond the codecs in the core, with or without them."""
    path, _ = save("12 bits", LOSSY[JPEGExtended12Bit].encode)
    decoder = get_decoder(JPEGExtended12Bit)
    without = {name: decoder._available[name] for name in ("gdcm", "pillow")} if core else {}
    with (
        patch.object(decoder, "_available", without),
        patch("cxrsr_cli.read.codecs.find_spec", return_value=None),
        pytest.raises(UndecodablePixelDataError, match=r"pip install .*'cxrsr\[codecs\]'"),
    ):
        decode(read_source(path))


def test_signed_lossy_jpeg_is_refused(save: Save) -> None:
    """Its codec knows no sign, so its values would be clipped or wrapped."""
    path, _ = save("12 bits", LOSSY[JPEGExtended12Bit].encode)
    dataset = pydicom.dcmread(path)
    dataset.PixelRepresentation = 1
    dataset.save_as(path)
    with pytest.raises(UnsupportedImageError, match="signed"):
        decode(read_source(path))


@pytest.mark.parametrize("syntax", [JPEG2000, HTJ2K], ids=lambda syntax: UID(syntax).keyword)
def test_a_lossy_stream_deeper_than_the_header_is_refused(save: Save, syntax: UID) -> None:
    """What a codec overshoots is clipped; twice the range is no overshoot."""
    path, _ = save("16 bits", LOSSY[syntax].encode)
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(path)
    with pytest.raises(UndecodablePixelDataError, match="more bits than Bits Stored"):
        decode(read_source(path))
