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


class OutputSyntax(StrEnum):
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
    OutputSyntax.EXPLICIT: ExplicitVRLittleEndian,
    OutputSyntax.JPEGLS: JPEGLSLossless,
    OutputSyntax.J2K: JPEG2000Lossless,
    OutputSyntax.RLE: RLELossless,
}
_WRITABLE = (*_BY_NAME.values(), ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)


def resolve(wanted: OutputSyntax, source: UID) -> UID:
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
    if wanted is OutputSyntax.SAME:
        return source if source in _WRITABLE else ExplicitVRLittleEndian
    return _BY_NAME[wanted]
