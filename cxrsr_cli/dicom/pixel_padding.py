"""Keep padding out of the image, and the image out of the padding."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy.ndimage import distance_transform_edt


@dataclass(frozen=True, slots=True)
class Padding:
    """An inclusive range of stored values.

    Attributes
    ----------
    first, last : int
        From Pixel Padding Value and Pixel Padding Range Limit, in order.
    """

    first: int
    last: int

    @classmethod
    def of(cls, dataset: Dataset) -> Self | None:
        """Read the attributes; None if the object states no padding."""
        value = dataset.get("PixelPaddingValue")
        if not isinstance(value, int):
            return None
        limit = dataset.get("PixelPaddingRangeLimit")
        ends = [value, limit] if isinstance(limit, int) else [value]
        stored = [_as_stored(dataset, end) for end in ends]
        return cls(min(stored), max(stored))

    def mask(self, stored: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return where `stored` is padding."""
        return (stored >= self.first) & (stored <= self.last)


def _as_stored(dataset: Dataset, value: int) -> int:
    """Read a value that vendors write as US though the pixels are signed."""
    signed = dataset.get("PixelRepresentation") == 1
    return value - (1 << 16) if signed and value >= 1 << 15 else value


def fill_padding(stored: NDArray[np.int32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Continue the image into its padding, so that no edge rings into it.

    Parameters
    ----------
    stored : numpy.ndarray
        ``(H, W)`` stored values.
    mask : numpy.ndarray
        ``(H, W)``, True where padded.

    Returns
    -------
    numpy.ndarray
        `stored` with every padded pixel set to its nearest image pixel.
    """
    if not mask.any() or mask.all():
        return stored
    nearest = distance_transform_edt(mask, return_distances=False, return_indices=True)
    return np.asarray(stored[tuple(nearest)])


def reapply_padding(
    band: NDArray[np.integer],
    stored: NDArray[np.int32],
    padding: Padding,
    *,
    minimum: int,
    maximum: int,
) -> NDArray[np.integer]:
    """Put the padding back, and move image values that would read as padding.

    Parameters
    ----------
    band : numpy.ndarray
        ``(scale * H, scale * W)`` stored values: an image, or whole
        low-resolution rows of one.
    stored : numpy.ndarray
        ``(H, W)``, the same rows of the input, with their padding.
    padding : Padding
        What is padding.
    minimum, maximum : int
        Legal range of stored values.

    Returns
    -------
    numpy.ndarray
        Like `band`, with padding exactly where the magnified input has it.
    """
    covered = band.copy()
    below, above = padding.first - 1, padding.last + 1
    taken = padding.mask(band)
    values = band[taken].astype(np.int32)
    nearer_below = values - below < above - values
    upwards = ~(nearer_below | (above > maximum)) | (below < minimum)
    # Where neither is legal all is padding, and nothing of this remains.
    covered[taken] = np.where(upwards, min(above, maximum), max(below, minimum))
    (rows, columns), scale = stored.shape, band.shape[1] // stored.shape[1]
    blocks = covered.reshape(rows, scale, columns, scale)
    original = stored.astype(band.dtype)[:, None, :, None]
    np.copyto(blocks, original, where=padding.mask(stored)[:, None, :, None])
    return covered
