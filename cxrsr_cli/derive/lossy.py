"""Lossy compression is never forgotten (PS3.3 C.7.6.1.1.5)."""

from pydicom.dataset import Dataset

from cxrsr_cli.read.codecs import LOSSY_METHODS
from cxrsr_cli.read.dataset import DicomSource
from cxrsr_cli.read.pixels import number_of_frames

LOSSY_KEYWORDS = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
"""Keywords of what `mark_lossy` writes."""


def mark_lossy(derived: Dataset, source: DicomSource) -> None:
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
    raw = number_of_frames(dataset) * dataset.Rows * dataset.Columns * dataset.BitsAllocated / 8
    derived.LossyImageCompression = "01"
    derived.LossyImageCompressionRatio = f"{raw / len(dataset.PixelData):.2f}"
    derived.LossyImageCompressionMethod = method
