"""The stored values of an image: their cells (PS3.5 section 8) and their padding."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cxrsr_cli.dicom.attributes import single_value
from cxrsr_cli.errors import UnsupportedImageError

_BITS_STORED = range(8, 17)


@dataclass(frozen=True, slots=True)
class PixelRange:
    """Legal pixel values of an image, and their polarity.

    Attributes
    ----------
    minimum, maximum : float
        Smallest and largest legal value.
    inverted : bool
        Whether large values are dark (MONOCHROME1).
    """

    minimum: float
    maximum: float
    inverted: bool = False

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> Self:
        """Read the range of stored values from the Image Pixel module (PS3.3 C.7.6.3).

        Raises
        ------
        UnsupportedImageError
            As `PixelFormat.from_dataset`.
        """
        pixels = PixelFormat.from_dataset(dataset)
        inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
        return cls(pixels.minimum, pixels.maximum, inverted)


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How stored values are placed in their cells (PS3.5 8.1.1).

    Attributes
    ----------
    bits_allocated, bits_stored, high_bit : int
        As in the object.
    signed : bool
        Whether Pixel Representation is 1.
    """

    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> Self:
        """Read and check the Image Pixel Module (PS3.3 C.7.6.3).

        Raises
        ------
        UnsupportedImageError
            If the format is illegal or does not have 8 to 16 bits.
        """
        fields = ("BitsAllocated", "BitsStored", "PixelRepresentation")
        allocated, stored, representation = (single_value(dataset, field) for field in fields)
        are_legal = allocated in (8, 16) and stored in _BITS_STORED and representation in (0, 1)
        if not (are_legal and isinstance(allocated, int) and isinstance(stored, int)):
            raise UnsupportedImageError("pixels are not integers of 8 to 16 bits stored")
        high = single_value(dataset, "HighBit") if "HighBit" in dataset else stored - 1
        if not isinstance(high, int) or not stored - 1 <= high < allocated:
            raise UnsupportedImageError(
                "High Bit is not one number that fits Bits Stored and Bits Allocated"
            )
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
    def cell_dtype(self) -> np.dtype[np.unsignedinteger]:
        """Little endian type of one cell in uncompressed Pixel Data."""
        return np.dtype("<u2" if self.bits_allocated == 16 else "u1")

    @property
    def dtype(self) -> np.dtype[np.integer]:
        """Smallest type that holds every stored value."""
        return np.dtype(f"{'i' if self.signed else 'u'}{1 if self.bits_stored == 8 else 2}")

    def unpack(self, cells: NDArray[np.integer]) -> NDArray[np.int32]:
        """Return the stored values in cells; the unused bits may hold anything."""
        values = cells.astype(np.int32)
        values >>= self.high_bit + 1 - self.bits_stored
        values &= (1 << self.bits_stored) - 1
        if self.signed:
            sign = 1 << self.bits_stored - 1
            values ^= sign
            values -= sign
        return values

    def pack(self, values: NDArray[np.integer]) -> NDArray[np.unsignedinteger]:
        """Return the cells of stored values; a view where the memory layout is the same.

        Unused bits are zero, except that values at the bottom of a cell are sign-extended.
        """
        width = self.cell_dtype.itemsize
        extended = values.astype(f"<{'i' if self.signed else 'u'}{width}", copy=False)
        cells: NDArray[np.unsignedinteger] = extended.view(self.cell_dtype)
        shift = self.high_bit + 1 - self.bits_stored
        if shift:
            cells = cells.copy()
            cells &= (1 << self.bits_stored) - 1
            cells <<= shift
        return cells


@dataclass(frozen=True, slots=True)
class Padding:
    """The inclusive range of stored values that are pixel padding (PS3.3 C.7.5.1.1.2).

    Attributes
    ----------
    first, last : int
        Pixel Padding Value and Pixel Padding Range Limit, in ascending order.
    """

    first: int
    last: int

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> Self | None:
        """Read the attributes; None if the object states no padding."""
        value = dataset.get("PixelPaddingValue")
        if not isinstance(value, int):
            return None
        limit = dataset.get("PixelPaddingRangeLimit")
        ends = [value, limit] if isinstance(limit, int) else [value]
        stored = [_as_stored(dataset, end) for end in ends]
        return cls(min(stored), max(stored))

    def mask(self, stored: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return a mask, of the shape of `stored`, that is True where a pixel is padding."""
        return (stored >= self.first) & (stored <= self.last)

    def exclude_from(self, pixel_range: PixelRange) -> PixelRange:
        """Return the range without padding at its ends; the same range if nothing is left."""
        first, last = pixel_range.minimum, pixel_range.maximum
        minimum = self.last + 1 if self.first <= first else first
        maximum = self.first - 1 if self.last >= last else last
        if minimum > maximum:
            return pixel_range
        return PixelRange(minimum, maximum, pixel_range.inverted)


def _as_stored(dataset: Dataset, value: int) -> int:
    """Correct a value that a vendor wrote as US although the pixels are signed."""
    signed = dataset.get("PixelRepresentation") == 1
    return value - (1 << 16) if signed and value >= 1 << 15 else value


def fill_padding(stored: NDArray[np.int32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Extend the image into its padding, so that the network sees no edge there.

    Parameters
    ----------
    stored : numpy.ndarray
        ``(H, W)`` stored values.
    mask : numpy.ndarray
        ``(H, W)``, True where padded.

    Returns
    -------
    numpy.ndarray
        `stored`, with every padding pixel set to its nearest image pixel.
    """
    if not mask.any() or mask.all():
        return stored
    # Imported here, because most users of a pixel format need no SciPy.
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(mask, return_distances=False, return_indices=True)
    return np.asarray(stored[tuple(nearest)])


def reapply_padding(
    strip: NDArray[np.integer],
    stored: NDArray[np.int32],
    padding: Padding,
    pixel_range: PixelRange,
) -> NDArray[np.integer]:
    """Put the padding back, and change image values that would read as padding.

    Parameters
    ----------
    strip : numpy.ndarray
        ``(scale * H, scale * W)`` stored values: an image or a strip of whole
        low-resolution rows.
    stored : numpy.ndarray
        ``(H, W)``, the same rows of the source, with their padding.
    padding : Padding
        Which values are padding.
    pixel_range : PixelRange
        Legal stored values.

    Returns
    -------
    numpy.ndarray
        A copy of `strip`, with padding exactly where the upscaled source has it.
    """
    result = strip.copy()
    below, above = padding.first - 1, padding.last + 1
    conflicts = padding.mask(strip)
    values = strip[conflicts].astype(np.int32)
    minimum, maximum = pixel_range.minimum, pixel_range.maximum
    nearer_below = values - below < above - values
    upwards = ~(nearer_below | (above > maximum)) | (below < minimum)
    # If neither value is legal, every pixel is padding and is overwritten below.
    result[conflicts] = np.where(upwards, min(above, maximum), max(below, minimum))
    (rows, columns), scale = stored.shape, strip.shape[1] // stored.shape[1]
    blocks = result.reshape(rows, scale, columns, scale)
    original = stored.astype(strip.dtype)[:, None, :, None]
    np.copyto(blocks, original, where=padding.mask(stored)[:, None, :, None])
    return result
