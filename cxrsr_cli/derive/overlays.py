"""Upscale overlay planes (60xx, PS3.3 C.9.2), and drop retired curves (50xx)."""

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from cxrsr_cli.dicom.attributes import number_of_frames
from cxrsr_cli.dicom.codecs import decodes_to_raw_cells
from cxrsr_cli.dicom.decode import decode_raw
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.source import DicomSource

OVERLAY_GROUPS = range(0x6000, 0x6100, 2)
CURVE_GROUPS = range(0x5000, 0x5100, 2)

_ROWS, _COLUMNS, _FRAMES = 0x0010, 0x0011, 0x0015
_BITS_ALLOCATED, _BIT_POSITION = 0x0100, 0x0102
_DATA = 0x3000

_MAX_RATIO = 4
"""Of a plane's bits to the image's pixels; a plane has the size of the image, or little more."""
_STRIP_ROWS = 64
"""Rows that are upscaled at a time: a multiple of 8, so that a strip ends with a whole byte."""


def is_overlay_or_curve(tag: BaseTag) -> bool:
    """Return whether an element belongs to an overlay or a curve."""
    return tag.group in OVERLAY_GROUPS or tag.group in CURVE_GROUPS


def upscale_overlays(derived: Dataset, source: DicomSource, scale: int) -> list[str]:
    """Upscale the bits of overlays, and drop curves.

    The overlays' rows, columns, origin and area are in the table of `geometry`. Changes
    `derived` in place, and returns warnings about what was dropped.

    A plane that is damaged, or inside the stored bits, is dropped.
    """
    warnings = []
    groups = {BaseTag(tag).group for tag in source.dataset.keys()}
    for group in sorted(groups.intersection(OVERLAY_GROUPS)):
        try:
            dropped = _upscale_overlay(derived, source, group, scale)
        # pydicom raises these on damaged overlays, with values in the text.
        except (AttributeError, KeyError, TypeError, ValueError, IndexError):
            _delete_group(derived, group)
            dropped = "a damaged overlay was dropped"
        if dropped:
            warnings.append(dropped)
    for group in groups.intersection(CURVE_GROUPS):
        warnings.append("a retired curve was dropped")
        _delete_group(derived, group)
    return warnings


def _upscale_overlay(derived: Dataset, source: DicomSource, group: int, scale: int) -> str | None:
    """Upscale one overlay; return a warning if it had to be dropped."""
    dataset = source.dataset
    embedded = _is_embedded(dataset, group)
    if embedded and not decodes_to_raw_cells(source.transfer_syntax):
        _delete_group(derived, group)
        return "an overlay in unused bits of the pixels was dropped: the codec does not keep them"
    if embedded and not _is_in_unused_bits(dataset, group):
        _delete_group(derived, group)
        return "an overlay was dropped: its bit is not an unused bit of the pixels"
    has_data = _has_value(dataset, group, _DATA)
    if has_data and _bits(dataset, group) > _MAX_RATIO * _pixels(dataset):
        _delete_group(derived, group)
        return "an overlay was dropped: it is far larger than the image"
    if has_data and not all((group, element) in derived for element in (_ROWS, _COLUMNS)):
        raise KeyError  # too large, or not numbers
    if embedded or has_data:
        plane = _embedded_plane(source, group) if embedded else dataset.overlay_array(group)
        derived.add_new((group, _DATA), "OW", _upscaled_bits(plane, scale))
        derived.add_new((group, _BITS_ALLOCATED), "US", 1)
        derived.add_new((group, _BIT_POSITION), "US", 0)
        if embedded:
            # PS3.3 C.9.2 before 2004: an embedded plane has the image's matrix.
            derived.add_new((group, _ROWS), "US", dataset.Rows * scale)
            derived.add_new((group, _COLUMNS), "US", dataset.Columns * scale)
        if embedded and len(plane) > 1:
            derived.add_new((group, _FRAMES), "IS", len(plane))
    return None


def overlay_memory(dataset: Dataset, scale: int) -> int:
    """Return the bytes that upscaling the overlays of an image takes, beside the image."""
    sizes = []
    for group in {BaseTag(tag).group for tag in dataset.keys()}.intersection(OVERLAY_GROUPS):
        with suppress(AttributeError, KeyError, TypeError, ValueError, IndexError):
            bits = _bits(dataset, group)
            sizes.append(bits if bits <= _MAX_RATIO * _pixels(dataset) else 0)
    # A byte for each bit of one plane; of all, what is kept, and once more while one is joined.
    return max(sizes, default=0) + (sum(sizes) + max(sizes, default=0)) * scale**2 // 8


def _bits(dataset: Dataset, group: int) -> int:
    """Return the bits of a plane; those of an embedded one are the image's pixels."""
    if _is_embedded(dataset, group):
        return _pixels(dataset)
    frames = dataset[group, _FRAMES].value if (group, _FRAMES) in dataset else 1
    rows, columns = (dataset[group, element].value for element in (_ROWS, _COLUMNS))
    return int(rows) * int(columns) * int(frames or 1)


def _pixels(dataset: Dataset) -> int:
    return int(dataset.Rows * dataset.Columns) * number_of_frames(dataset)


def _upscaled_bits(plane: NDArray[np.uint8], scale: int) -> bytes:
    """Upscale and pack a plane of bits.

    Strip by strip, because a byte for each bit would take as much memory as the image.
    """
    rows = plane.reshape(-1, plane.shape[-1])
    strips = (rows[top : top + _STRIP_ROWS] for top in range(0, len(rows), _STRIP_ROWS))
    packed = b"".join(
        np.packbits(strip.repeat(scale, 0).repeat(scale, 1), bitorder="little").tobytes()
        for strip in strips
    )
    return packed + bytes(len(packed) % 2)


def _has_value(dataset: Dataset, group: int, element: int) -> bool:
    return (group, element) in dataset and dataset[group, element].value not in (None, "", b"")


def _is_embedded(dataset: Dataset, group: int) -> bool:
    """Return whether the plane is in unused bits of Pixel Data (retired in 2004)."""
    return (
        not _has_value(dataset, group, _DATA)
        and _has_value(dataset, group, _BITS_ALLOCATED)
        and dataset[group, _BITS_ALLOCATED].value != 1
    )


def _is_in_unused_bits(dataset: Dataset, group: int) -> bool:
    """Return whether no value uses the bit of the cells (PS3.5 8.1.2)."""
    pixels = PixelFormat.from_dataset(dataset)
    position = dataset[group, _BIT_POSITION].value
    used = range(pixels.high_bit + 1 - pixels.bits_stored, pixels.high_bit + 1)
    return position in range(pixels.bits_allocated) and position not in used


def _embedded_plane(source: DicomSource, group: int) -> NDArray[np.uint8]:
    cells = decode_raw(source)
    position = int(source.dataset[group, _BIT_POSITION].value)
    return np.asarray((cells >> position) & 1, np.uint8)


def _delete_group(derived: Dataset, group: int) -> None:
    for tag in [tag for tag in derived.keys() if BaseTag(tag).group == group]:
        del derived[tag]
