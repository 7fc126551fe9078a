"""Which elements a derivation may touch; all others are the source's bytes."""

from functools import cache

from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag

from cxrsr_cli.derive import lossy, provenance
from cxrsr_cli.derive.geometry import PIXEL_GEOMETRY
from cxrsr_cli.derive.overlays import is_overlay_or_curve

_PIXELS = ("PixelData", "SmallestImagePixelValue", "LargestImagePixelValue")


def is_modified(tag: BaseTag) -> bool:
    """Tell whether a derivation writes, removes or magnifies an element.

    Parameters
    ----------
    tag : pydicom.tag.BaseTag
        Of an element of the data set itself, not of a sequence's item.
    """
    return is_overlay_or_curve(tag) or keyword_for_tag(tag) in _changed_keywords()


@cache
def _changed_keywords() -> frozenset[str]:
    geometry = {line.element for line in PIXEL_GEOMETRY}
    written = {*_PIXELS, *provenance.WRITTEN_KEYWORDS, *provenance.INVALIDATED, *lossy.LOSSY_KEYWORDS}
    return frozenset(geometry | written)
