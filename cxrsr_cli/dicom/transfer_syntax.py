"""The transfer syntax of an output, named without importing pydicom's codecs."""

from enum import StrEnum

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)


class OutputTransferSyntax(StrEnum):
    """What a user can ask for; all are lossless."""

    SAME = "same"
    """The source's, which its archive is known to take, where it is one of the
    others or implicit VR or deflated; else explicit."""
    EXPLICIT = "explicit"
    """Uncompressed, explicit VR, little endian."""
    JPEGLS = "jpegls"
    J2K = "j2k"
    RLE = "rle"


_BY_NAME = {
    OutputTransferSyntax.EXPLICIT: ExplicitVRLittleEndian,
    OutputTransferSyntax.JPEGLS: JPEGLSLossless,
    OutputTransferSyntax.J2K: JPEG2000Lossless,
    OutputTransferSyntax.RLE: RLELossless,
}
_WRITABLE = (*_BY_NAME.values(), ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)

_SHARES = {
    JPEGLSLossless: 6.5,
    JPEG2000Lossless: 6.5,
    RLELossless: 3.0,
    DeflatedExplicitVRLittleEndian: 3.5,
}
"""As measured on a radiograph of 2048x2048 with 16 bits: codecs and their wrappers hold
the frame several times."""
NATIVE_WRITE_FACTOR = 0.3
"""Of an output that is neither compressed nor deflated: buffers."""


def resolve_transfer_syntax(wanted: OutputTransferSyntax, source: UID) -> UID:
    """Return the transfer syntax to write.

    Parameters
    ----------
    wanted : OutputSyntax
        The user's choice.
    source : pydicom.uid.UID
        Transfer syntax of the source.

    Returns
    -------
    pydicom.uid.UID
        Lossless. The output of a lossy source is not compressed again.
    """
    if wanted is OutputTransferSyntax.SAME:
        return source if source in _WRITABLE else ExplicitVRLittleEndian
    return _BY_NAME[wanted]


def write_memory_factor(syntax: UID) -> float:
    """Return how many times an output is in memory beside itself while it is written."""
    return _SHARES.get(syntax, NATIVE_WRITE_FACTOR)
