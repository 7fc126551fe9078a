"""Derive and encode a header before the network runs, to find out what would be refused."""

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID

from cxrsr_cli.common.process import now
from cxrsr_cli.derive.derive import derive
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.dicom.write import check_header


def rehearse(
    source: DicomSource,
    source_pixels: NDArray[np.int32],
    parameters: DerivationParameters,
    syntax: UID,
) -> list[str]:
    """Do what `derive` and `write_dicom` will do, with one pixel.

    Parameters
    ----------
    source, source_pixels, parameters
        As of `derive`.
    syntax : pydicom.uid.UID
        Transfer syntax to write.

    Returns
    -------
    list of str
        The warnings of the derivation.

    Raises
    ------
    UnsupportedImageError, InternalError
        As `derive`.
    NotDicomError
        If the source's elements are too damaged to be written.
    """
    pixel = np.zeros((1, 1, 1), PixelFormat.from_dataset(source.dataset).dtype)
    one = source_pixels[:1, :1, :1]
    derived, warnings = derive(source, one, pixel, parameters, now(), agreement="")
    check_header(derived, syntax)
    return warnings
