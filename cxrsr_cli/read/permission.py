"""What a user must allow by name, since the models never saw it."""

from enum import StrEnum


class AcceptanceOverride(StrEnum):
    """A kind of input that is refused unless allowed."""

    BODY_PART = "body-part"
    """A stated body part other than the chest."""
    MODALITY = "modality"
    """Other than CR and DX, or Secondary Capture of them."""
    FOR_PROCESSING = "for-processing"
    """Presentation Intent FOR PROCESSING."""
