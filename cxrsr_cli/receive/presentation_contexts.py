"""Presentation contexts that are accepted, and their transfer syntaxes."""

from collections.abc import Sequence

from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    CTImageStorage,
    DigitalIntraOralXRayImageStorageForPresentation,
    DigitalIntraOralXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    MRImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RTImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from cxrsr_cli.dicom.acceptance import RADIOGRAPHS, AcceptanceOverride
from cxrsr_cli.dicom.codecs import find_decoder
from cxrsr_cli.errors import MissingExtraError, UndecodablePixelDataError

try:
    from pynetdicom.presentation import PresentationContext
except ImportError:
    raise MissingExtraError("receiving needs pynetdicom: pip install 'cxrsr[net]'") from None

MAX_PDU_BYTES = 1 << 17
"""Maximum Length that we announce (PS3.8 annex D.1)."""

VERIFICATION = UID("1.2.840.10008.1.1")
APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"
"""Application Context Name of DICOM (PS3.7 annex A)."""

# Monochrome images without functional groups.
_OTHER_MODALITIES = (
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalIntraOralXRayImageStorageForPresentation,
    DigitalIntraOralXRayImageStorageForProcessing,
    CTImageStorage,
    MRImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
    RTImageStorage,
)


def storage_classes(allowed: frozenset[AcceptanceOverride] = frozenset()) -> tuple[UID, ...]:
    """Return the SOP Classes that are received; overriding the modality check adds others."""
    classes = (*RADIOGRAPHS, SecondaryCaptureImageStorage)
    return (*classes, *_OTHER_MODALITIES) if AcceptanceOverride.MODALITY in allowed else classes


def readable_syntaxes() -> tuple[UID, ...]:
    """Return the transfer syntaxes that this installation can decode."""
    return tuple(syntax for syntax in AllTransferSyntaxes if _can_decode(syntax))


def _can_decode(syntax: UID) -> bool:
    try:
        find_decoder(syntax)
    except UndecodablePixelDataError:
        return False
    return True


def supported_contexts(sop_classes: Sequence[UID]) -> list[PresentationContext]:
    """Return the supported contexts: verification, and storage of `sop_classes`."""
    syntaxes = readable_syntaxes()
    uncompressed = [syntax for syntax in syntaxes if not syntax.is_compressed]
    contexts = [(VERIFICATION, uncompressed), *((uid, list(syntaxes)) for uid in sop_classes)]
    return [_context(uid, accepted) for uid, accepted in contexts]


def _context(abstract_syntax: UID, transfer_syntaxes: list[UID]) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = [*transfer_syntaxes]
    return context


def accept_first_proposed_syntax(
    proposed: list[PresentationContext], supported: list[PresentationContext]
) -> None:
    """Reduce each proposed context to its first transfer syntax that we can decode.

    The acceptor chooses (PS3.8 9.3.3.2). Peers list the syntax of their file, or their
    preferred one, first. Any other choice would make some of them transcode.
    """
    readable = {context.abstract_syntax: context.transfer_syntax for context in supported}
    for context in proposed:
        usable = readable.get(context.abstract_syntax, [])
        first = next((syntax for syntax in context.transfer_syntax if syntax in usable), None)
        if first is not None:
            context.transfer_syntax = [first]
