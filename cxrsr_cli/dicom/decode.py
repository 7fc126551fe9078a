"""Decode pixel data to stored values."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, generate_frames
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    RLELossless,
)

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.attributes import number_of_frames
from cxrsr_cli.dicom.codec_process import CODECS, CodecError, CodecRequest
from cxrsr_cli.dicom.codecs import LOSSY_METHODS, decodes_to_raw_cells, find_decoder
from cxrsr_cli.dicom.frame_header import (
    FrameHeader,
    add_end_of_image,
    has_all_tiles,
    is_reversible,
)
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.errors import NoPixelDataError, UndecodablePixelDataError, UnsupportedImageError

# Bytes of pixels per byte of compressed data. A file that claims more is damaged or
# malicious, and decoding it would exhaust the memory. The factors of single syntaxes are
# the limits of their formats: RLE makes 128 bytes from 2, lossless JPEG 16 bits from 1,
# and lossy JPEG 64 values of 16 bits from 2 bits.
_MAX_EXPANSION = {
    RLELossless: 64,
    JPEGLossless: 16,
    JPEGLosslessSV1: 16,
    JPEGBaseline8Bit: 512,
    JPEGExtended12Bit: 512,
}
_DEFAULT_MAX_EXPANSION = 10_000

_UNSIGNED_ONLY = (JPEGBaseline8Bit, JPEGExtended12Bit)
_DTYPES = ("|u1", "|i1", "<u2", "<i2")
"""Types in which codecs give pixels."""

_CHUNK_PIXELS = 1 << 18
"""Pixels that are converted to stored values at a time."""

_Values = TypeVar("_Values", bound=NDArray[np.integer])


def decode(source: DicomSource) -> NDArray[np.int32]:
    """Decode every frame.

    Parameters
    ----------
    source : DicomSource
        An accepted monochrome image.

    Returns
    -------
    numpy.ndarray
        ``(F, H, W)`` int32 stored values, inside the range of their `PixelFormat`.

    Raises
    ------
    UndecodablePixelDataError
        If the transfer syntax is unknown or has no codec installed, or the data are
        damaged or shorter than Rows and Columns claim.
    UnsupportedImageError
        As for `PixelFormat.from_dataset`.
    NoPixelDataError
        If the object has no Pixel Data.
    """
    decoded = decode_raw(source)
    return _decode_into(np.empty(decoded.shape, np.int32), source, decoded)


def decode_compact(source: DicomSource) -> NDArray[np.integer]:
    """Decode every frame as `decode` does, but to `PixelFormat.dtype`, to save memory.

    Arithmetic on the values needs a wider type.
    """
    decoded = decode_raw(source)
    values: NDArray[np.integer] = np.empty(
        decoded.shape, PixelFormat.from_dataset(source.dataset).dtype
    )
    return _decode_into(values, source, decoded)


def decodes_equal(source: DicomSource, values: NDArray[np.integer]) -> bool:
    """Return whether decoding gives exactly these stored values; raises as `decode` does."""
    decoded = decode_raw(source)
    return decoded.shape == values.shape and all(
        np.array_equal(_values(source, decoded[part]), values[part])
        for part in _parts(decoded.shape)
    )


def _decode_into(values: _Values, source: DicomSource, decoded: NDArray[np.integer]) -> _Values:
    for part in _parts(decoded.shape):
        values[part] = _values(source, decoded[part])
    return values


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
    """Cut frames into strips, so that no temporary array is as large as the image."""
    frames, rows, columns = shape
    height = max(1, _CHUNK_PIXELS // columns)
    for frame, top in itertools.product(range(frames), range(0, rows, height)):
        yield frame, slice(top, top + height)


def _values(source: DicomSource, decoded: NDArray[np.integer]) -> NDArray[np.int32]:
    """Convert the output of a codec to stored values."""
    pixel_format = PixelFormat.from_dataset(source.dataset)
    if decodes_to_raw_cells(source.transfer_syntax):
        return pixel_format.unpack(decoded)
    if source.transfer_syntax in LOSSY_METHODS:
        # A lossy codec overshoots; dropping the high bits would turn white into black.
        overshoot = (1 << pixel_format.bits_stored) // 2
        _check_range(decoded, pixel_format.minimum - overshoot, pixel_format.maximum + overshoot)
        return decoded.astype(np.int32).clip(pixel_format.minimum, pixel_format.maximum)
    # Where the stream does not state the sign, signed values come as unsigned bit patterns.
    states_sign = source.transfer_syntax in JPEG2000TransferSyntaxes
    maximum = pixel_format.maximum if states_sign else (1 << pixel_format.bits_stored) - 1
    _check_range(decoded, pixel_format.minimum, maximum)
    return replace(pixel_format, high_bit=pixel_format.bits_stored - 1).unpack(decoded)


def _check_range(decoded: NDArray[np.integer], lowest: int, highest: int) -> None:
    if decoded.min() < lowest or decoded.max() > highest:
        raise UndecodablePixelDataError("the compressed pixels have more bits than Bits Stored")


def decode_raw(source: DicomSource) -> NDArray[np.integer]:
    """Decode every frame to ``(F, H, W)`` cells or values (`decodes_to_raw_cells`).

    Parameters and errors are those of `decode`.
    """
    image = _EncodedImage.from_source(source)
    try:
        with quiet_libraries():
            return image.decode_frames() if image.streams else image.decode_native(source.dataset)
    except MemoryError:
        raise UndecodablePixelDataError("the pixels do not fit in memory") from None


def check_pixel_data(source: DicomSource) -> tuple[int, int, int]:
    """Check everything about the pixels that shows before they are decoded.

    Returns
    -------
    tuple of int
        Frames, rows and columns.

    Raises
    ------
    InputError
        As `decode`.
    """
    return _EncodedImage.from_source(source).shape


@dataclass(frozen=True, slots=True)
class _EncodedImage:
    """Pixel data whose headers were checked.

    Attributes
    ----------
    shape : tuple of int
        Frames, rows and columns.
    options : dict
        Of pydicom's decoder, for one frame.
    streams : list of bytes
        The frames if they are compressed.
    """

    syntax: UID
    shape: tuple[int, int, int]
    options: dict[str, Any] = field(default_factory=dict)
    streams: list[bytes] = field(default_factory=list)

    @classmethod
    def from_source(cls, source: DicomSource) -> Self:
        """Check the pixel data against the object's attributes; raises as `decode`."""
        dataset, syntax = source.dataset, source.transfer_syntax
        if "PixelData" not in dataset:
            raise NoPixelDataError("the object has no Pixel Data")
        pixel_format = PixelFormat.from_dataset(dataset)
        shape = number_of_frames(dataset), int(dataset.Rows), int(dataset.Columns)
        find_decoder(syntax)
        _check_size(dataset, shape, pixel_format, syntax)
        if pixel_format.signed and syntax in _UNSIGNED_ONLY:
            raise UnsupportedImageError("signed pixels, which lossy JPEG does not support")
        if not syntax.is_compressed:
            return cls(syntax, shape)
        with quiet_libraries():
            streams = _frames(dataset, shape[0])
        allocated, stored = pixel_format.bits_allocated, pixel_format.bits_stored
        if syntax == RLELossless:
            _check_rle(streams, pixel_format)
        else:
            stored = _check_frames(streams, shape, pixel_format, syntax)
            allocated = 8 if stored <= 8 else 16
        options = {
            "rows": shape[1],
            "columns": shape[2],
            "number_of_frames": 1,
            "samples_per_pixel": 1,
            "photometric_interpretation": "MONOCHROME2",
            "bits_allocated": allocated,
            "bits_stored": stored,
            "pixel_representation": int(pixel_format.signed),
            "pixel_keyword": "PixelData",
        }
        return cls(syntax, shape, options, streams)

    def decode_frames(self) -> NDArray[np.integer]:
        """Decode compressed frames, in the process of the codecs."""
        _, rows, columns = self.shape
        frames = []
        for stream in self.streams:
            request = CodecRequest(self.syntax, self.options, stream, rows * columns)
            try:
                response, data = CODECS.run(request)
            except CodecError as error:
                raise _damaged(self.syntax, str(error)) from None
            if response["damaged"]:
                raise _damaged(self.syntax, "pixels are missing or have errors")
            if response["dtype"] not in _DTYPES or response["size"] != rows * columns:
                raise UndecodablePixelDataError(
                    "the number or the type of the pixels differs from the header"
                )
            frames.append(np.frombuffer(data, response["dtype"]).reshape(1, rows, columns))
        return frames[0] if len(frames) == 1 else np.concatenate(frames)

    def decode_native(self, dataset: Dataset) -> NDArray[np.integer]:
        """Return uncompressed pixels."""
        try:
            # pydicom's correction of unused bits wraps the overshoot of lossy codecs and
            # ignores High Bit. A view is enough, because the cells are only read.
            array, _ = find_decoder(self.syntax).as_array(
                dataset,
                raw=True,
                # pydicom annotates these options wrongly
                view_only=True,  # type: ignore[arg-type]
                correct_unused_bits=False,  # type: ignore[arg-type]
            )
        # On damaged data pydicom raises any exception, with header values in its text.
        except Exception as error:
            raise _damaged(self.syntax, type(error).__name__) from None
        if array.size != np.prod(self.shape):
            raise UndecodablePixelDataError("the number of pixels differs from Rows and Columns")
        return np.reshape(array, self.shape)


def _damaged(syntax: UID, how: str) -> UndecodablePixelDataError:
    return UndecodablePixelDataError(
        f"damaged pixel data, or not {syntax.name} as the file says ({how})"
    )


def _check_frames(
    streams: list[bytes], shape: tuple[int, int, int], pixel_format: PixelFormat, syntax: UID
) -> int:
    """Compare the headers of compressed frames with the object's attributes (PS3.5 8.2.1).

    The frames govern. If they and the attributes disagree, it is unknown which image was meant.

    Returns
    -------
    int
        Bits of a sample.
    """
    headers = {FrameHeader.from_stream(stream) for stream in streams}
    for header in headers:
        if header is None:
            raise _damaged(syntax, "a frame has no header")
        if header.components != 1:
            raise _mismatch(f"{header.components} components", "Samples per Pixel is 1")
        if header.rows not in (0, shape[1]) or header.columns != shape[2]:
            raise _mismatch(
                f"another size, {header.columns}x{header.rows}",
                f"Columns and Rows are {shape[2]}x{shape[1]}",
            )
        if header.signed not in (None, pixel_format.signed):
            raise _mismatch(
                "signed values" if header.signed else "unsigned values, not signed ones",
                f"Pixel Representation is {int(pixel_format.signed)}",
            )
        # Many encoders state the size of the cell. Values above Bits Stored are refused later.
        # Fewer bits are unambiguous only if the values were not scaled and have no sign.
        if header.bits > pixel_format.bits_allocated:
            raise _mismatch(
                f"samples of {header.bits} bits",
                f"Bits Allocated is {pixel_format.bits_allocated}",
            )
        if header.bits < pixel_format.bits_stored and (
            pixel_format.signed or syntax in _UNSIGNED_ONLY
        ):
            raise _mismatch(
                f"samples of {header.bits} bits", f"Bits Stored is {pixel_format.bits_stored}"
            )
    if len(headers) > 1:
        raise UndecodablePixelDataError("the headers of the compressed frames differ")
    if syntax in JPEG2000TransferSyntaxes and not all(map(has_all_tiles, streams)):
        raise _damaged(syntax, "tiles are missing")
    bits = next(header.bits for header in headers if header)
    if (
        syntax == JPEGExtended12Bit
        and bits > 8
        and "imagecodecs" not in find_decoder(syntax).available_plugins
    ):
        raise UndecodablePixelDataError(
            "12-bit JPEG Extended needs the codecs extra: pip install 'cxrsr[codecs]'"
        )
    return bits


def _check_rle(streams: list[bytes], pixel_format: PixelFormat) -> None:
    """Check the number of RLE segments: a byte of each cell in each (PS3.5 G.2)."""
    for stream in streams:
        segments = int.from_bytes(stream[:4], "little")
        if segments * 8 != pixel_format.bits_allocated:
            raise _mismatch(
                f"{segments} RLE segments",
                f"Samples per Pixel is 1 and Bits Allocated {pixel_format.bits_allocated}",
            )


def _mismatch(found: str, stated: str) -> UndecodablePixelDataError:
    return UndecodablePixelDataError(f"the compressed pixels have {found}, but {stated}")


def _frames(dataset: Dataset, frames: int) -> list[bytes]:
    """Return the compressed frames."""
    pixels = dataset.PixelData
    offsets, lengths = (
        dataset.get(keyword) for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    )
    usable = offsets and lengths and len(offsets) == len(lengths)
    extended = (offsets, lengths) if usable else None
    # Damaged encapsulation raises anything.
    try:
        if frames == 1:
            # An offset table may have an entry for each fragment, or be damaged.
            start = 8 + int.from_bytes(pixels[4:8], "little")
            found = [b"".join(generate_fragments(pixels[start:]))]
        else:
            found = list(
                generate_frames(pixels, number_of_frames=frames, extended_offsets=extended)
            )
    except Exception as error:
        raise UndecodablePixelDataError(
            f"the encapsulated pixel data are damaged ({type(error).__name__})"
        ) from None
    if len(found) < frames:
        raise UndecodablePixelDataError(
            f"Number of Frames is {frames}, but there are {len(found)} compressed frames"
        )
    return [add_end_of_image(stream) for stream in found[:frames]]


def lossy_method(source: DicomSource) -> str | None:
    """Return how the compressed pixels of a source lost information (C.7.6.1.1.5.1), or None.

    Of a transfer syntax that allows both, the frames themselves tell.
    """
    method = LOSSY_METHODS.get(source.transfer_syntax)
    if method is None:
        return None
    frames = _frames(source.dataset, number_of_frames(source.dataset))
    return None if all(map(is_reversible, frames)) else method


def _check_size(
    dataset: Dataset, shape: tuple[int, int, int], pixel_format: PixelFormat, syntax: UID
) -> None:
    claimed = math.prod(shape) * pixel_format.bits_allocated // 8
    held = len(dataset.PixelData)
    if syntax.is_compressed:
        held *= _MAX_EXPANSION.get(syntax, _DEFAULT_MAX_EXPANSION)
    if claimed > held:
        raise UndecodablePixelDataError(
            f"Rows and Columns claim {claimed} bytes of pixels, the file holds at most {held}"
        )
