"""Keep padding out of the image, and the image out of the padding."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from cxrsr_cli.read.padding import Padding


def fill(stored: NDArray[np.int32], mask: NDArray[np.bool_]) -> NDArray[np.int32]:
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


def cover(
    restored: NDArray[np.int32],
    stored: NDArray[np.int32],
    padding: Padding,
    *,
    minimum: int,
    maximum: int,
) -> NDArray[np.int32]:
    """Put the padding back, and move image values that would read as padding.

    Parameters
    ----------
    restored : numpy.ndarray
        ``(scale * H, scale * W)`` stored values.
    stored : numpy.ndarray
        ``(H, W)``, with its padding.
    padding : Padding
        What is padding.
    minimum, maximum : int
        Legal range of stored values.

    Returns
    -------
    numpy.ndarray
        Padding exactly where the magnified input has it.
    """
    scale = restored.shape[0] // stored.shape[0]
    padded = padding.mask(stored).repeat(scale, 0).repeat(scale, 1)
    below, above = padding.first - 1, padding.last + 1
    nearer_below = restored - below < above - restored
    moved = np.where((nearer_below | (above > maximum)) & (below >= minimum), below, above)
    free = np.where(padding.mask(restored), moved, restored)
    original = stored.repeat(scale, 0).repeat(scale, 1)
    return np.where(padded, original, free).astype(np.int32)
