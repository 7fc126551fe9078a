"""Which elements a derivation may touch; all others are the source's bytes."""

from functools import cache

from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag

from cxrsr_cli.derive import lossy, provenance
from cxrsr_cli.derive.geometry import TABLE

_PIXELS = ("PixelData", "SmallestImagePixelValue", "LargestImagePixelValue")
_CURVES_AND_OVERLAYS = (*range(0x5000, 0x5100, 2), *range(0x6000, 0x6100, 2))


def may_change(tag: BaseTag) -> bool:
    """Tell whether a derivation writes, removes or magnifies an element.

    Parameters
    ----------
    tag : pydicom.tag.BaseTag
        Of an element of the data set itself, not of a sequence's item.
    """
    return tag.group in _CURVES_AND_OVERLAYS or keyword_for_tag(tag) in _touched()


@cache
def _touched() -> frozenset[str]:
    geometry = {line.within[0] if line.within else line.keyword for line in TABLE}
    written = {*_PIXELS, *provenance.WRITTEN, *provenance.UNTRUE, *lossy.WRITTEN}
    return frozenset(geometry | written)
