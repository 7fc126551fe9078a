"""Decode pixel data to stored values."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import get_j2k_parameters
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
from cxrsr_cli.dicom.codecs import (
    LOSSY_METHODS,
    check_standard_syntax,
    decodes_to_raw_cells,
    find_decoder,
)
from cxrsr_cli.dicom.frame_header import FrameSize
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
    # Some codecs return signed values as unsigned bit patterns.
    _check_range(decoded, pixel_format.minimum, (1 << pixel_format.bits_stored) - 1)
    return replace(pixel_format, high_bit=pixel_format.bits_stored - 1).unpack(decoded)


def _check_range(decoded: NDArray[np.integer], lowest: int, highest: int) -> None:
    if decoded.min() < lowest or decoded.max() > highest:
        raise UndecodablePixelDataError("the compressed pixels have more bits than Bits Stored")


def decode_raw(source: DicomSource) -> NDArray[np.integer]:
    """Decode every frame to ``(F, H, W)`` cells or values (`decodes_to_raw_cells`).

    Parameters and errors are those of `decode`.
    """
    dataset, syntax = source.dataset, source.transfer_syntax
    if "PixelData" not in dataset:
        raise NoPixelDataError("the object has no Pixel Data")
    pixel_format = PixelFormat.from_dataset(dataset)
    frames = number_of_frames(dataset)
    check_standard_syntax(syntax)
    _check_size(dataset, frames, pixel_format, syntax)
    if pixel_format.signed and syntax in _UNSIGNED_ONLY:
        raise UnsupportedImageError("signed pixels, which lossy JPEG does not support")
    with quiet_libraries():
        if syntax.is_encapsulated and syntax != RLELossless:
            _check_frames(source, frames, signed=pixel_format.signed)
        return _decode(source, (frames, int(dataset.Rows), int(dataset.Columns)))


def _check_frames(source: DicomSource, frames: int, *, signed: bool) -> None:
    """Compare the headers of compressed frames with the object's attributes (PS3.5 8.2).

    A codec allocates the size that a frame states. If the attributes and a JPEG 2000 frame
    disagree on the sign, it is unknown which of them is right.
    """
    dataset = source.dataset
    try:
        streams = list(_frames(dataset, frames))
        sizes = {size for stream in streams if (size := FrameSize.from_stream(stream))}
        signs = (
            {get_j2k_parameters(stream).get("is_signed", signed) for stream in streams}
            if source.transfer_syntax in JPEG2000TransferSyntaxes
            else set()
        )
    # Damaged encapsulation raises anything.
    except Exception as error:
        raise UndecodablePixelDataError(
            f"the encapsulated pixel data are damaged ({type(error).__name__})"
        ) from None
    for size in sizes:
        if size.rows not in (0, dataset.Rows) or size.columns != dataset.Columns:
            raise UndecodablePixelDataError(
                "the compressed pixels have another size than Rows and Columns"
            )
    if signs - {signed}:
        raise UndecodablePixelDataError(
            "the JPEG 2000 stream and Pixel Representation disagree on whether values are signed"
        )


def _frames(dataset: Dataset, frames: int) -> Iterator[bytes]:
    """Yield the compressed frames that pydicom's decoders would find."""
    offsets, lengths = (
        dataset.get(keyword) for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    )
    usable = offsets and lengths and len(offsets) == len(lengths)
    extended = (offsets, lengths) if usable else None
    return generate_frames(dataset.PixelData, number_of_frames=frames, extended_offsets=extended)


def number_of_frames(dataset: Dataset) -> int:
    """Return Number of Frames, or 1 if it is absent.

    Raises
    ------
    UnsupportedImageError
        If it is not a positive number.
    """
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        frames = 0
    if frames < 1:
        raise UnsupportedImageError("Number of Frames is not a positive number")
    return frames


def _check_size(dataset: Dataset, frames: int, pixel_format: PixelFormat, syntax: UID) -> None:
    claimed = frames * dataset.Rows * dataset.Columns * pixel_format.bits_allocated // 8
    held = len(dataset.PixelData)
    if syntax.is_compressed:
        held *= _MAX_EXPANSION.get(syntax, _DEFAULT_MAX_EXPANSION)
    if claimed > held:
        raise UndecodablePixelDataError(
            f"Rows and Columns claim {claimed} bytes of pixels, the file holds at most {held}"
        )


def _decode(source: DicomSource, shape: tuple[int, int, int]) -> NDArray[np.integer]:
    decoder = find_decoder(source.transfer_syntax)
    try:
        # pydicom's correction of unused bits wraps the overshoot of lossy codecs and
        # ignores High Bit. A view is enough, because the cells are only read.
        array, _ = decoder.as_array(
            source.dataset,
            raw=True,
            # pydicom annotates these options wrongly
            view_only=True,  # type: ignore[arg-type]
            correct_unused_bits=False,  # type: ignore[arg-type]
        )
    except MemoryError:
        raise UndecodablePixelDataError("the pixels do not fit in memory") from None
    except (KeyboardInterrupt, SystemExit):
        raise
    # On damaged data codecs raise any exception, with header values in its text. A
    # panic of a codec written in Rust is not even an Exception.
    except BaseException as error:
        raise UndecodablePixelDataError(_describe_failure(source, error)) from None
    if array.size != np.prod(shape):
        raise UndecodablePixelDataError("the number of pixels differs from Rows and Columns")
    return np.reshape(array, shape)


def _describe_failure(source: DicomSource, error: BaseException) -> str:
    syntax = source.transfer_syntax
    if syntax == JPEGExtended12Bit and "imagecodecs" not in find_decoder(syntax).available_plugins:
        return "12-bit JPEG Extended needs the codecs extra: pip install 'cxrsr[codecs]'"
    return f"damaged pixel data, or not {syntax.name} as the file says ({type(error).__name__})"
