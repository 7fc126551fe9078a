"""What a C-STORE is answered with."""

from enum import IntEnum


class DimseStatus(IntEnum):
    """DIMSE status of a response (PS3.4 table B.2-1, PS3.7 annex C)."""

    SUCCESS = 0x0000
    """The instance is ours now: on the disk, and not lost by a power cut."""
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORISED = 0x0124
    UNRECOGNISED_OPERATION = 0x0211
    OUT_OF_RESOURCES = 0xA700
    """The same instance may be taken later."""
    DATA_SET_MISMATCH = 0xA900
    """The data set is not what its command announced."""
    CANNOT_UNDERSTAND = 0xC000
    """The data set is damaged."""
