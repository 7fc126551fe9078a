"""Choose the transfer syntax of an output; does not import pydicom's codecs."""

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
    """Transfer syntaxes that a user can choose; all are lossless."""

    SAME = "same"
    """That of the source, which its archive accepts, if it is one of the others, implicit
    VR or deflated; otherwise explicit."""
    EXPLICIT = "explicit"
    """Explicit VR Little Endian, uncompressed."""
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

_WRITE_FACTORS = {
    JPEGLSLossless: 6.5,
    JPEG2000Lossless: 6.5,
    RLELossless: 3.0,
    DeflatedExplicitVRLittleEndian: 3.5,
}
"""Peak memory of writing, in sizes of the uncompressed output, without the output itself.
Measured on a radiograph of 2048x2048 with 16 bits; codecs hold a frame several times."""
NATIVE_WRITE_FACTOR = 0.3
"""The same for an output that is not compressed or deflated: buffers only."""


def resolve_transfer_syntax(wanted: OutputTransferSyntax, source: UID) -> UID:
    """Return the transfer syntax to write.

    Parameters
    ----------
    wanted : OutputTransferSyntax
        The user's choice.
    source : pydicom.uid.UID
        Transfer syntax of the source.

    Returns
    -------
    pydicom.uid.UID
        A lossless one; the output of a lossy source is not compressed lossily again.
    """
    if wanted is OutputTransferSyntax.SAME:
        return source if source in _WRITABLE else ExplicitVRLittleEndian
    return _BY_NAME[wanted]


def write_memory_factor(syntax: UID) -> float:
    """Return the memory that writing takes, as a multiple of the uncompressed output's size."""
    return _WRITE_FACTORS.get(syntax, NATIVE_WRITE_FACTOR)
