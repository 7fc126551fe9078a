"""Overlay planes (60xx, PS3.3 C.9.2) and retired curves (50xx)."""

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.tag import BaseTag

from cxrsr_cli.errors import UnsupportedImageError
from cxrsr_cli.read.dataset import Source
from cxrsr_cli.read.pixels import PixelFormat

_OVERLAY_GROUPS = range(0x6000, 0x6100, 2)
_CURVE_GROUPS = range(0x5000, 0x5100, 2)

_ROWS, _COLUMNS = 0x0010, 0x0011
_ORIGIN = 0x0050
_BITS_ALLOCATED, _BIT_POSITION = 0x0100, 0x0102
_ROI_AREA = 0x1301
_DATA = 0x3000


def rescale_overlays(derived: Dataset, source: Source, scale: int) -> list[str]:
    """Magnify overlays with the image, and drop curves.

    Parameters
    ----------
    derived : pydicom.Dataset
        Changed in place.
    source : Source
        The original.
    scale : int
        Factor of magnification.

    Returns
    -------
    list of str
        What was dropped.

    Raises
    ------
    UnsupportedImageError
        If an overlay's data are damaged.
    """
    warnings = []
    groups = {BaseTag(tag).group for tag in source.dataset.keys()}
    for group in sorted(groups.intersection(_OVERLAY_GROUPS)):
        try:
            _rescale_overlay(derived, source, group, scale)
        # pydicom raises anything on damaged overlays, with values in the text.
        except (AttributeError, KeyError, TypeError, ValueError, IndexError):
            raise UnsupportedImageError("an overlay plane is damaged") from None
    for group in groups.intersection(_CURVE_GROUPS):
        warnings.append("a retired curve was dropped")
        for tag in [tag for tag in derived.keys() if BaseTag(tag).group == group]:
            del derived[tag]
    return warnings


def _rescale_overlay(derived: Dataset, source: Source, group: int, scale: int) -> None:
    dataset = source.dataset
    plane = _plane(source, group)
    if plane is not None:
        enlarged = plane.repeat(scale, axis=-2).repeat(scale, axis=-1)
        data = pack_bits(enlarged.ravel(), pad=True)
        derived.add_new((group, _DATA), "OW", data)
        derived.add_new((group, _BITS_ALLOCATED), "US", 1)
        derived.add_new((group, _BIT_POSITION), "US", 0)
    for element in (_ROWS, _COLUMNS):
        if (group, element) in dataset:
            derived.add_new((group, element), "US", dataset[group, element].value * scale)
    if (group, _ORIGIN) in dataset:
        origin = [(int(number) - 1) * scale + 1 for number in dataset[group, _ORIGIN].value]
        derived.add_new((group, _ORIGIN), "SS", origin)
    if (group, _ROI_AREA) in dataset and dataset[group, _ROI_AREA].value not in (None, ""):
        area = int(dataset[group, _ROI_AREA].value) * scale**2
        derived.add_new((group, _ROI_AREA), "IS", area)


def _plane(source: Source, group: int) -> NDArray[np.uint8] | None:
    """Return the overlay's bits, wherever they are kept."""
    dataset = source.dataset
    if (group, _DATA) in dataset:
        plane: NDArray[np.uint8] = dataset.overlay_array(group)
        return plane
    if (group, _BITS_ALLOCATED) not in dataset or dataset[group, _BITS_ALLOCATED].value == 1:
        return None
    if source.transfer_syntax.is_compressed:
        return None  # no codec but RLE keeps bits beside the stored ones
    pixel_format = PixelFormat.of(dataset)
    cells = np.frombuffer(dataset.PixelData, pixel_format.cell)
    count = dataset.Rows * dataset.Columns * int(dataset.get("NumberOfFrames") or 1)
    bits = (cells[:count] >> dataset[group, _BIT_POSITION].value & 1).astype(np.uint8)
    return np.reshape(bits, (-1, int(dataset.Rows), int(dataset.Columns)))
