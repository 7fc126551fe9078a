"""Find out whether every size, edge and position is the source's, magnified."""

import copy
from collections.abc import Iterator

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from cxrsr_cli.derive.geometry import PIXEL_GEOMETRY, rescale_geometry
from cxrsr_cli.derive.overlays import is_overlay_or_curve, upscale_overlays
from cxrsr_cli.read.dataset import DicomSource
from cxrsr_cli.verify.finding import Aspect, Finding

_COUNTED = frozenset(line.element for line in PIXEL_GEOMETRY)
_ROUNDED = 1e-9
"""Relative error of a decimal string cut to 16 characters."""


def check_geometry(old: DicomSource, new: DicomSource, scale: int) -> Iterator[Finding]:
    """Check what is counted in pixels against the table.

    Parameters
    ----------
    old, new : Source
        The original and what was derived from it.
    scale : int
        Factor between them.

    Yields
    ------
    Finding
        For each claim.

    Raises
    ------
    UnsupportedImageError
        If the source's geometry cannot be rescaled.
    """
    expected = copy.deepcopy(old.dataset)
    rescale_geometry(expected, old.dataset, scale)
    upscale_overlays(expected, old, scale)
    wrong = {
        tag
        for tag in {*expected.keys(), *new.dataset.keys()}
        if _is_counted(tag) and not _same_number(expected, new.dataset, tag)
    }
    layers = {tag for tag in wrong if is_overlay_or_curve(tag)}
    yield Finding.from_differences(
        Aspect.GEOMETRY,
        "sizes, spacings, edges and positions are the source's, magnified",
        wrong - layers,
    )
    yield Finding.from_differences(Aspect.GEOMETRY, "overlays are the source's, magnified", layers)


def _is_counted(tag: BaseTag) -> bool:
    return is_overlay_or_curve(tag) or keyword_for_tag(tag) in _COUNTED


def _same_number(expected: Dataset, found: Dataset, tag: BaseTag) -> bool:
    if tag not in expected or tag not in found:
        return False
    before, after = expected[tag].value, found[tag].value
    if before == after:
        return True
    try:
        numbers = [[float(n) for n in ([v] if isinstance(v, (str, int, float)) else v)]
                   for v in (before, after)]  # fmt: skip
    except (TypeError, ValueError):
        return False
    return len(numbers[0]) == len(numbers[1]) and all(
        abs(a - b) <= _ROUNDED * max(abs(a), 1) for a, b in zip(*numbers, strict=True)
    )
