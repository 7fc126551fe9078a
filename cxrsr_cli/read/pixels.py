"""Decode pixel data to stored values."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

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

from cxrsr_cli.errors import NoPixelDataError, UndecodablePixelDataError, UnsupportedImageError
from cxrsr_cli.read.codecs import LOSSY_METHODS, check_public, find_decoder, holds_cells
from cxrsr_cli.read.dataset import Source
from cxrsr_cli.read.silence import quiet_pydicom
from cxrsr_cli.read.streams import Stated

# A file that claims more pixels than these factors give is damaged or hostile,
# and decoding it would exhaust the memory. The first are what the formats can
# reach: 128 bytes from 2, 16 bits from 1, and 64 values of 16 bits from 2 bits.
_FURTHEST = {
    RLELossless: 64,
    JPEGLossless: 16,
    JPEGLosslessSV1: 16,
    JPEGBaseline8Bit: 512,
    JPEGExtended12Bit: 512,
}
_FURTHER_THAN_ANYTHING_REAL = 10_000

_DEPTHS = range(8, 17)
_UNSIGNED_ONLY = (JPEGBaseline8Bit, JPEGExtended12Bit)


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How stored values sit in their cells (PS3.5 8.1.1).

    Attributes
    ----------
    bits_allocated, bits_stored, high_bit : int
        As in the object.
    signed : bool
        Pixel Representation 1.
    """

    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Read and check the Image Pixel module.

        Raises
        ------
        UnsupportedImageError
            If the format is illegal or outside 8 to 16 bits.
        """
        fields = ("BitsAllocated", "BitsStored", "PixelRepresentation")
        allocated, stored, representation = (dataset.get(field) for field in fields)
        high = dataset.get("HighBit", (stored or 0) - 1)
        if allocated not in (8, 16) or stored not in _DEPTHS or representation not in (0, 1):
            raise UnsupportedImageError("pixels are not whole numbers of 8 to 16 bits stored")
        if not stored - 1 <= high < allocated:
            raise UnsupportedImageError("High Bit does not fit Bits Stored and Bits Allocated")
        return cls(allocated, stored, high, bool(representation))

    @property
    def minimum(self) -> int:
        """Smallest legal stored value."""
        return -(1 << self.bits_stored - 1) if self.signed else 0

    @property
    def maximum(self) -> int:
        """Largest legal stored value."""
        return (1 << self.bits_stored - self.signed) - 1

    @property
    def cell(self) -> np.dtype[np.unsignedinteger]:
        """Little-endian cell of one pixel in uncompressed pixel data."""
        return np.dtype("<u2" if self.bits_allocated == 16 else "u1")

    def unpack(self, cells: NDArray[np.integer]) -> NDArray[np.int32]:
        """Take stored values out of cells, whatever the other bits hold."""
        values = cells.astype(np.int32) >> (self.high_bit + 1 - self.bits_stored)
        values &= (1 << self.bits_stored) - 1
        if self.signed:
            sign = 1 << self.bits_stored - 1
            values = (values ^ sign) - sign
        return values

    def pack(self, values: NDArray[np.int32]) -> NDArray[np.unsignedinteger]:
        """Put stored values into cells, the other bits zero."""
        bits = values & ((1 << self.bits_stored) - 1)
        shift = self.high_bit + 1 - self.bits_stored
        if self.signed and not shift:
            bits = values & ((1 << self.bits_allocated) - 1)  # sign-extended, as usual
        return (bits << shift).astype(self.cell)


def decode(source: Source) -> NDArray[np.int32]:
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
        As `PixelFormat.of`.
    NoPixelDataError
        If there are none.
    """
    pixel_format = PixelFormat.of(source.dataset)
    decoded = decode_raw(source)
    if holds_cells(source.transfer_syntax):
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


def decode_raw(source: Source) -> NDArray[np.integer]:
    """Decode every frame to what the transfer syntax holds: cells or values.

    Parameters and errors are those of `decode`; the result is ``(F, H, W)``.
    """
    dataset, syntax = source.dataset, source.transfer_syntax
    if "PixelData" not in dataset:
        raise NoPixelDataError("the object holds no Pixel Data")
    pixel_format = PixelFormat.of(dataset)
    frames = count_frames(dataset)
    check_public(syntax)
    _check_size(dataset, frames, pixel_format, syntax)
    if pixel_format.signed and syntax in _UNSIGNED_ONLY:
        raise UnsupportedImageError("signed pixels in lossy JPEG, which has no sign (PS3.5 8.2.1)")
    with quiet_pydicom():
        if syntax.is_encapsulated and syntax != RLELossless:
            _check_streams(source, frames, signed=pixel_format.signed)
        return _decode(source, (frames, int(dataset.Rows), int(dataset.Columns)))


def _check_streams(source: Source, frames: int, *, signed: bool) -> None:
    """Hold what compressed frames say of themselves against the header.

    A codec allocates what a frame claims. And if the two disagree on the sign
    of JPEG 2000, which one lies is not known.
    """
    dataset = source.dataset
    try:
        streams = list(_frames(dataset, frames))
        sizes = {stated for stream in streams if (stated := Stated.by(stream))}
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


def count_frames(dataset: Dataset) -> int:
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
        held *= _FURTHEST.get(syntax, _FURTHER_THAN_ANYTHING_REAL)
    if claimed > held:
        raise UndecodablePixelDataError(
            f"Rows and Columns claim {claimed} bytes of pixels, the file holds {held} at most"
        )


def _decode(source: Source, shape: tuple[int, int, int]) -> NDArray[np.integer]:
    decoder = find_decoder(source.transfer_syntax)
    try:
        # pydicom's own correction of unused bits wraps what a lossy codec
        # overshoots, and ignores High Bit.
        array, _ = decoder.as_array(
            source.dataset,
            raw=True,
            correct_unused_bits=False,  # type: ignore[arg-type] # pydicom's own annotation is off
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


def _reason(source: Source, error: BaseException) -> str:
    syntax = source.transfer_syntax
    if syntax == JPEGExtended12Bit and "imagecodecs" not in find_decoder(syntax).available_plugins:
        return "12-bit JPEG Extended needs the codecs extra: pip install 'cxrsr[codecs]'"
    return f"damaged pixel data, or not {syntax.name} as the file says ({type(error).__name__})"
