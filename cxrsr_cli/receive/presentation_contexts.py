"""Which presentation contexts are accepted, and with which transfer syntax."""

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
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
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

Supported = list[PresentationContext]
"""Presentation contexts that may be accepted."""

MAX_PDU_BYTES = 1 << 17
"""Bytes; announced as the Maximum Length that is received (PS3.8 annex D.1)."""

VERIFICATION = UID("1.2.840.10008.1.1")
APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"
"""The application context of DICOM (PS3.7 annex A)."""

# Of monochrome pixels, and without functional groups.
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
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    RTImageStorage,
)


def storage_classes(allowed: frozenset[AcceptanceOverride] = frozenset()) -> tuple[UID, ...]:
    """Return the SOP Classes that are received; more with the permission for other modalities."""
    taken = (*RADIOGRAPHS, SecondaryCaptureImageStorage)
    return (*taken, *_OTHER_MODALITIES) if AcceptanceOverride.MODALITY in allowed else taken


def readable_syntaxes() -> tuple[UID, ...]:
    """Return the transfer syntaxes whose images this installation decodes."""
    return tuple(syntax for syntax in AllTransferSyntaxes if _is_read(syntax))


def _is_read(syntax: UID) -> bool:
    try:
        find_decoder(syntax)
    except UndecodablePixelDataError:
        return False
    return True


def supported_contexts(sop_classes: Sequence[UID]) -> Supported:
    """Return what is supported: verification, and the storage of `sop_classes`."""
    syntaxes = readable_syntaxes()
    plain = [syntax for syntax in syntaxes if not syntax.is_compressed]
    contexts = [(VERIFICATION, plain), *((uid, list(syntaxes)) for uid in sop_classes)]
    return [_context(uid, accepted) for uid, accepted in contexts]


def _context(abstract_syntax: UID, transfer_syntaxes: list[UID]) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = [*transfer_syntaxes]
    return context


def accept_first_proposed_syntax(proposed: Supported, supported: Supported) -> None:
    """Leave only the first readable transfer syntax in each proposed context.

    The choice is the acceptor's (PS3.8 9.3.3.2). A peer puts what it has, or would
    rather send, first; any order of ours would make some peer decompress, or
    compress, what it need not.
    """
    readable = {context.abstract_syntax: context.transfer_syntax for context in supported}
    for context in proposed:
        taken = readable.get(context.abstract_syntax, [])
        first = next((syntax for syntax in context.transfer_syntax if syntax in taken), None)
        if first is not None:
            context.transfer_syntax = [first]
