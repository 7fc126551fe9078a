"""Which presentation contexts are accepted, and with which transfer syntax."""

from collections.abc import Sequence
from dataclasses import dataclass

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

from cxrsr_cli import __version__
from cxrsr_cli.derive.identity import IMPLEMENTATION_CLASS_UID
from cxrsr_cli.errors import MissingExtraError, UndecodablePixelDataError
from cxrsr_cli.read.acceptance import RADIOGRAPHS
from cxrsr_cli.read.codecs import find_decoder
from cxrsr_cli.read.permission import Permission
from cxrsr_cli.read.silence import quiet_pydicom
from cxrsr_cli.serve.refusal import BrokenOffError, Reason

try:
    from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
    from pynetdicom.pdu_primitives import (
        A_ASSOCIATE,
        ImplementationClassUIDNotification,
        ImplementationVersionNameNotification,
        MaximumLengthNotification,
    )
    from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor
except ImportError:
    raise MissingExtraError("receiving needs pynetdicom: pip install 'cxrsr[net]'") from None

Supported = list[PresentationContext]
"""Presentation contexts that may be accepted."""

LARGEST_PDU = 1 << 17
"""Bytes; announced as the Maximum Length that is received (PS3.8 annex D.1)."""

_VERIFICATION = UID("1.2.840.10008.1.1")
_DICOM_APPLICATION = "1.2.840.10008.3.1.1.1"

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


def storage_classes(allowed: frozenset[Permission] = frozenset()) -> tuple[UID, ...]:
    """Return the SOP Classes that are received; more with the permission for other modalities."""
    taken = (*RADIOGRAPHS, SecondaryCaptureImageStorage)
    return (*taken, *_OTHER_MODALITIES) if Permission.MODALITY in allowed else taken


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
    contexts = [(_VERIFICATION, plain), *((uid, list(syntaxes)) for uid in sop_classes)]
    return [_context(uid, accepted) for uid, accepted in contexts]


def _context(abstract_syntax: UID, transfer_syntaxes: list[UID]) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = [*transfer_syntaxes]
    return context


@dataclass(frozen=True, slots=True)
class Accepted:
    """A presentation context of an association.

    Attributes
    ----------
    abstract_syntax, transfer_syntax : UID
        What is sent, and how it is encoded.
    """

    abstract_syntax: UID
    transfer_syntax: UID


@dataclass(frozen=True, slots=True)
class Negotiated:
    """An association that is to be accepted.

    Attributes
    ----------
    contexts : dict
        Accepted ones, by presentation context ID.
    largest_pdu : int
        The peer's Maximum Length; 0 for any.
    reply : bytes
        The A-ASSOCIATE-AC.
    """

    contexts: dict[int, Accepted]
    largest_pdu: int
    reply: bytes


def negotiate(request: bytes, supported: Supported) -> Negotiated:
    """Answer an A-ASSOCIATE-RQ.

    Of the transfer syntaxes proposed for one context, the first that can be read is
    accepted (PS3.8 9.3.3.2 leaves the choice to the acceptor). A peer puts what it
    has, or would rather send, first; any order of ours would make some peer
    decompress, or compress, what it need not.

    Parameters
    ----------
    request : bytes
        The PDU.
    supported : Supported
        As given by `supported_contexts`.

    Returns
    -------
    Negotiated
        With no contexts if none is supported; it is the peer then who ends the association.

    Raises
    ------
    BrokenOffError
        If the request cannot be decoded, or is of another application context.
    """
    with quiet_pydicom():
        try:
            pdu = A_ASSOCIATE_RQ()
            pdu.decode(request)
            proposed = pdu.to_primitive()
            contexts = proposed.presentation_context_definition_list
            readable = {context.abstract_syntax: context.transfer_syntax for context in supported}
            for context in contexts:
                _prefer_first(context, readable.get(context.abstract_syntax, []))
            results, _ = negotiate_as_acceptor(contexts, supported)
            reply = _reply(proposed, results)
            largest = int(proposed.maximum_length_received or 0)
        # Anything may be raised by bytes that are no request, with values in the text.
        except Exception:
            raise BrokenOffError(Reason.MALFORMED) from None
        if proposed.application_context_name != _DICOM_APPLICATION:
            raise BrokenOffError(Reason.APPLICATION)
    accepted = {
        int(context.context_id): Accepted(context.abstract_syntax, context.transfer_syntax[0])
        for context in results
        if context.result == 0 and context.context_id and context.abstract_syntax
    }
    return Negotiated(accepted, largest, reply)


def _prefer_first(context: PresentationContext, readable: list[UID]) -> None:
    """Leave only the first readable transfer syntax in a proposal."""
    first = next((syntax for syntax in context.transfer_syntax if syntax in readable), None)
    if first is not None:
        context.transfer_syntax = [first]


def _reply(proposed: A_ASSOCIATE, results: list[PresentationContext]) -> bytes:
    largest = MaximumLengthNotification()
    largest.maximum_length_received = LARGEST_PDU
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = f"CXRSR_{__version__}"[:16]
    accepted = A_ASSOCIATE()
    accepted.application_context_name = _DICOM_APPLICATION
    # Sent back as they came (PS3.8 table 9-17).
    accepted.calling_ae_title = proposed.calling_ae_title
    accepted.called_ae_title = proposed.called_ae_title
    accepted.result = 0
    accepted.result_source = 1
    accepted.presentation_context_definition_results_list = results
    accepted.user_information = [largest, implementation, version]
    encoded: bytes = A_ASSOCIATE_AC(accepted).encode()
    return encoded
