"""Lossy compression is never forgotten (PS3.3 C.7.6.1.1.5)."""

from pydicom.dataset import Dataset

from cxrsr_cli.read.codecs import LOSSY_METHODS
from cxrsr_cli.read.dataset import Source
from cxrsr_cli.read.pixels import count_frames

WRITTEN = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
"""Keywords of what `keep_lossy_history` writes."""


def keep_lossy_history(derived: Dataset, source: Source) -> None:
    """Flag an output whose source was lossy by its transfer syntax alone.

    What the source states already is copied with everything else. JPEG 2000
    may be lossless under the lossy syntax's UID; saying "lossy" of it errs on
    the safe side.

    Parameters
    ----------
    derived : pydicom.Dataset
        Changed in place.
    source : Source
        The original.
    """
    method = LOSSY_METHODS.get(source.transfer_syntax)
    if method is None or source.dataset.get("LossyImageCompression") == "01":
        return
    dataset = source.dataset
    raw = count_frames(dataset) * dataset.Rows * dataset.Columns * dataset.BitsAllocated / 8
    derived.LossyImageCompression = "01"
    derived.LossyImageCompressionRatio = f"{raw / len(dataset.PixelData):.2f}"
    derived.LossyImageCompressionMethod = method
