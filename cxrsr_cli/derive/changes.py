"""Which elements a derivation may touch; all others are the source's bytes."""

from functools import cache

from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag

from cxrsr_cli.derive import lossy, provenance
from cxrsr_cli.derive.geometry import TABLE
from cxrsr_cli.derive.overlays import is_layer

_PIXELS = ("PixelData", "SmallestImagePixelValue", "LargestImagePixelValue")


def may_change(tag: BaseTag) -> bool:
    """Tell whether a derivation writes, removes or magnifies an element.

    Parameters
    ----------
    tag : pydicom.tag.BaseTag
        Of an element of the data set itself, not of a sequence's item.
    """
    return is_layer(tag) or keyword_for_tag(tag) in _touched()


@cache
def _touched() -> frozenset[str]:
    geometry = {line.element for line in TABLE}
    written = {*_PIXELS, *provenance.WRITTEN, *provenance.UNTRUE, *lossy.WRITTEN}
    return frozenset(geometry | written)
