"""Transfer syntaxes that can be decoded, their codecs, and the decoder of 12-bit JPEG."""

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pydicom.pixels.decoders.base import Decoder, DecodeRunner, get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000MC,
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    RLELossless,
)

from cxrsr_cli.errors import UndecodablePixelDataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOSSY_METHODS: dict[UID, str] = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
    JPEG2000MC: "ISO_15444_2",
    HTJ2K: "ISO_15444_15",
}
"""Defined term of Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1) for each transfer
syntax that may be lossy."""

# Names of PS3.6 table A-1 that pydicom does not know yet.
_NEWER_NAMES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
# A UID of this form holds no patient data, so a message may quote it.
_STANDARD_SYNTAX = re.compile(r"1\.2\.840\.10008\.1\.2(\.\d{1,3}){1,3}")

_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_MIN_SCAN_BYTES = 32
"""Of a scan of which the last bytes are certainly compressed data, and not its header."""
_MORE_DATA = bytes(range(1, 64))
"""Compressed data of no meaning and without a marker."""
_OTHER_DATA = (bytes(8), b"\0" + b"\x55" * 7)
"""Compressed data that cannot both be those of an image; a marker cannot begin before them."""

DAMAGE_MESSAGES = (b"Corrupt JPEG data", b"Premature end of JPEG file")
"""What libjpeg says of damage for which it makes up pixels (``JWRN_`` in its jerror.h)."""

_EXTRA = "imagecodecs"
DECODER_DEPENDENCIES = {JPEGExtended12Bit: (_EXTRA,)}
"""pydicom reads this name, because this module is one of its decoder plugins."""


def is_available(uid: str) -> bool:
    """Tell pydicom whether this plugin can decode a transfer syntax."""
    return uid in DECODER_DEPENDENCIES and find_spec(_EXTRA) is not None


def decode_frame(stream: bytes, runner: DecodeRunner) -> bytes:
    """Decode 12-bit JPEG Extended for pydicom, whose own plugins cannot."""
    import imagecodecs

    pixels: NDArray[np.integer] = imagecodecs.jpeg_decode(stream)
    # Here libjpeg fills missing pixels with grey and reports nothing. Whether any were missing
    # shows when there is more data before the end: nobody reads that after the last pixel.
    start, end, padding = stream.rpartition(_END_OF_IMAGE)
    # Fill bytes belong to the marker (T.81 B.1.1.2), and would end the data.
    start = start.rstrip(b"\xff")
    if (imagecodecs.jpeg_decode(start + _MORE_DATA + end + padding) != pixels).any():
        raise ValueError("truncated")
    # Data that nobody reads are left over: some before them were lost.
    is_tiny = len(start.rpartition(_START_OF_SCAN)[2]) < _MIN_SCAN_BYTES
    if not is_tiny and not any(
        (imagecodecs.jpeg_decode(start[: -len(other)] + other + end + padding) != pixels).any()
        for other in _OTHER_DATA
    ):
        raise ValueError("left over")
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    return pixels.tobytes()


def find_decoder(syntax: UID) -> Decoder:
    """Return the decoder of a transfer syntax.

    Raises
    ------
    UndecodablePixelDataError
        If the syntax is private, holds no images, or has no codec installed; names the
        extra to install if there is one.
    """
    check_standard_syntax(syntax)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UndecodablePixelDataError(
            f"no decoder for the transfer syntax {syntax.name}"
        ) from None
    known = (*decoder.available_plugins, *decoder.missing_dependencies)
    if syntax in DECODER_DEPENDENCIES and not any(_EXTRA in plugin for plugin in known):
        decoder.add_plugin(_EXTRA, (__name__, decode_frame.__name__))
    if not decoder.is_available:
        # The codecs of all other syntaxes are dependencies of the package itself.
        extra = "[codecs]" if syntax in DECODER_DEPENDENCIES else ""
        raise UndecodablePixelDataError(
            f"no codec installed for {syntax.name}: pip install --force-reinstall 'cxrsr{extra}'"
        )
    return decoder


def check_standard_syntax(syntax: UID) -> None:
    """Raise UndecodablePixelDataError for a transfer syntax that pydicom does not know."""
    if syntax.is_transfer_syntax:
        return
    if _STANDARD_SYNTAX.fullmatch(syntax):
        name = _NEWER_NAMES.get(syntax, str(syntax))
        raise UndecodablePixelDataError(f"no decoder for the transfer syntax {name}")
    raise UndecodablePixelDataError("the transfer syntax is not one of the DICOM standard")


def decodes_to_raw_cells(syntax: UID) -> bool:
    """Return whether decoding gives cells (PS3.5 8.1.1) rather than stored values.

    RLE compresses cells as they are; all other codecs know only values.
    """
    check_standard_syntax(syntax)
    return not syntax.is_compressed or syntax == RLELossless
