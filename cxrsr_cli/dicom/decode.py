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

# A file that claims more pixels than these factors give is damaged or hostile,
# and decoding it would exhaust the memory. The first are what the formats can
# reach: 128 bytes from 2, 16 bits from 1, and 64 values of 16 bits from 2 bits.
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
"""Pixels that are turned into stored values at a time."""

_Values = TypeVar("_Values", bound=NDArray[np.integer])


def decode(source: DicomSource) -> NDArray[np.int32]:
    """Decode every frame.

    Parameters
    ----------
    source : Source
        An accepted monochrome image.

    Returns
    -------
    numpy.ndarray
        ``(F, H, W)`` int32 stored values, inside the legal range of their
        `PixelFormat`.

    Raises
    ------
    UndecodablePixelDataError
        If the transfer syntax is unknown or has no codec here, or the data
        are damaged or shorter than Rows and Columns claim.
    UnsupportedImageError
        As `PixelFormat.from_network`.
    NoPixelDataError
        If there are none.
    """
    decoded = decode_raw(source)
    return _decode_into(np.empty(decoded.shape, np.int32), source, decoded)


def decode_compact(source: DicomSource) -> NDArray[np.integer]:
    """Decode every frame of a large image; as `decode`, but of `PixelFormat.dtype`.

    Arithmetic on the values must be done in a wider type.
    """
    decoded = decode_raw(source)
    values: NDArray[np.integer] = np.empty(
        decoded.shape, PixelFormat.from_dataset(source.dataset).dtype
    )
    return _decode_into(values, source, decoded)


def decodes_equal(source: DicomSource, values: NDArray[np.integer]) -> bool:
    """Tell whether decoding gives the very stored values; it raises as `decode`."""
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
    """Cut frames into bands of rows, so that none but the result is as large as the image."""
    frames, rows, columns = shape
    height = max(1, _CHUNK_PIXELS // columns)
    for frame, top in itertools.product(range(frames), range(0, rows, height)):
        yield frame, slice(top, top + height)


def _values(source: DicomSource, decoded: NDArray[np.integer]) -> NDArray[np.int32]:
    """Take the stored values from what a codec gave."""
    pixel_format = PixelFormat.from_dataset(source.dataset)
    if decodes_to_raw_cells(source.transfer_syntax):
        return pixel_format.unpack(decoded)
    if source.transfer_syntax in LOSSY_METHODS:
        # A lossy codec overshoots; cutting off the high bits would turn white to black.
        beyond = (1 << pixel_format.bits_stored) // 2
        _check_range(decoded, pixel_format.minimum - beyond, pixel_format.maximum + beyond)
        return decoded.astype(np.int32).clip(pixel_format.minimum, pixel_format.maximum)
    # Some codecs give signed values as the bits they have.
    _check_range(decoded, pixel_format.minimum, (1 << pixel_format.bits_stored) - 1)
    return replace(pixel_format, high_bit=pixel_format.bits_stored - 1).unpack(decoded)


def _check_range(decoded: NDArray[np.integer], lowest: int, highest: int) -> None:
    if decoded.min() < lowest or decoded.max() > highest:
        raise UndecodablePixelDataError("the compressed pixels have more bits than Bits Stored")


def decode_raw(source: DicomSource) -> NDArray[np.integer]:
    """Decode every frame to what the transfer syntax holds: cells or values.

    Parameters and errors are those of `decode`; the result is ``(F, H, W)``.
    """
    dataset, syntax = source.dataset, source.transfer_syntax
    if "PixelData" not in dataset:
        raise NoPixelDataError("the object holds no Pixel Data")
    pixel_format = PixelFormat.from_dataset(dataset)
    frames = number_of_frames(dataset)
    check_standard_syntax(syntax)
    _check_size(dataset, frames, pixel_format, syntax)
    if pixel_format.signed and syntax in _UNSIGNED_ONLY:
        raise UnsupportedImageError("signed pixels in lossy JPEG, which has no sign (PS3.5 8.2.1)")
    with quiet_libraries():
        if syntax.is_encapsulated and syntax != RLELossless:
            _check_streams(source, frames, signed=pixel_format.signed)
        return _decode(source, (frames, int(dataset.Rows), int(dataset.Columns)))


def _check_streams(source: DicomSource, frames: int, *, signed: bool) -> None:
    """Hold what compressed frames say of themselves against the header.

    A codec allocates what a frame claims. And if the two disagree on the sign
    of JPEG 2000, which one lies is not known.
    """
    dataset = source.dataset
    try:
        streams = list(_frames(dataset, frames))
        sizes = {stated for stream in streams if (stated := FrameSize.from_stream(stream))}
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
    for stated in sizes:
        if stated.rows not in (0, dataset.Rows) or stated.columns != dataset.Columns:
            raise UndecodablePixelDataError(
                "the compressed pixels are of another size than Rows and Columns"
            )
    if signs - {signed}:
        raise UndecodablePixelDataError(
            "the JPEG 2000 stream and Pixel Representation disagree on whether values are signed"
        )


def _frames(dataset: Dataset, frames: int) -> Iterator[bytes]:
    """Find the frames as pydicom's decoders do."""
    offsets, lengths = (
        dataset.get(keyword) for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    )
    usable = offsets and lengths and len(offsets) == len(lengths)
    extended = (offsets, lengths) if usable else None
    return generate_frames(dataset.PixelData, number_of_frames=frames, extended_offsets=extended)


def number_of_frames(dataset: Dataset) -> int:
    """Read Number of Frames, 1 if absent.

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
            f"Rows and Columns claim {claimed} bytes of pixels, the file holds {held} at most"
        )


def _decode(source: DicomSource, shape: tuple[int, int, int]) -> NDArray[np.integer]:
    decoder = find_decoder(source.transfer_syntax)
    try:
        # pydicom's own correction of unused bits wraps what a lossy codec
        # overshoots, and ignores High Bit. And nobody writes on the cells.
        array, _ = decoder.as_array(
            source.dataset,
            raw=True,
            # pydicom's own annotation of options is off
            view_only=True,  # type: ignore[arg-type]
            correct_unused_bits=False,  # type: ignore[arg-type]
        )
    except MemoryError:
        raise UndecodablePixelDataError("the pixels do not fit in memory") from None
    except (KeyboardInterrupt, SystemExit):
        raise
    # Codecs raise anything on damaged data, with header values in the text; the
    # panic of one written in Rust is not even an Exception.
    except BaseException as error:
        raise UndecodablePixelDataError(_reason(source, error)) from None
    if array.size != np.prod(shape):
        raise UndecodablePixelDataError("the pixels are not as many as Rows and Columns say")
    return np.reshape(array, shape)


def _reason(source: DicomSource, error: BaseException) -> str:
    syntax = source.transfer_syntax
    if syntax == JPEGExtended12Bit and "imagecodecs" not in find_decoder(syntax).available_plugins:
        return "12-bit JPEG Extended needs the codecs extra: pip install 'cxrsr[codecs]'"
    return f"damaged pixel data, or not {syntax.name} as the file says ({type(error).__name__})"
