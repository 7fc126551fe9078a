"""Find out whether the object says what it is, of what it was made, and by what."""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from cxrsr_cli.derive.provenance import IMAGE_TYPE_MARKER, PROCESSING_EQUIPMENT, SOURCE_IMAGE
from cxrsr_cli.derive.series import NOT_FOR_DIAGNOSIS
from cxrsr_cli.read.acceptance import MODEL_NAME
from cxrsr_cli.read.codecs import LOSSY_METHODS
from cxrsr_cli.read.dataset import DicomSource
from cxrsr_cli.verify.finding import Aspect, Finding

_SHA256_DIGITS = 64


def check_provenance(old: DicomSource, new: DicomSource, scale: int) -> Iterator[Finding]:
    """Check identity and history (PS3.3 C.7.6.1, C.12.1, C.12.4).

    Parameters
    ----------
    old, new : Source
        The original and what was derived from it.
    scale : int
        Factor between them.

    Yields
    ------
    Finding
        For each claim.
    """
    for claim, holds in (*_history(old, new, scale), *_reference(old.dataset, new.dataset)):
        yield Finding(Aspect.PROVENANCE, claim, holds)


def _history(old: DicomSource, new: DicomSource, scale: int) -> Iterator[tuple[str, bool]]:
    source, derived = old.dataset, new.dataset
    equipment = [
        item
        for item in derived.get("ContributingEquipmentSequence") or ()
        if item.get("ManufacturerModelName") == MODEL_NAME
        and _has_purpose(item, PROCESSING_EQUIPMENT.value)
    ]
    yield "cxrsr is among its contributing equipment", bool(equipment)
    versions = list(equipment[-1].get("SoftwareVersions") or ()) if equipment else []
    digest = "".join(str(text).removeprefix("SHA-256 ") for text in versions[2:4])
    description = str(derived.get("DerivationDescription") or "")
    yield (
        "the model's weights are named by their SHA-256",
        len(digest) == _SHA256_DIGITS and digest in description,
    )
    yield "it says by which factor it was enlarged", f"x{scale} " in description
    kinds = [str(kind) for kind in derived.get("ImageType") or ()]
    yield "Image Type is DERIVED and says by what", kinds[:1] == ["DERIVED"] and IMAGE_TYPE_MARKER in kinds
    yield (
        "it is marked as research, not for diagnosis",
        derived.get("ContentQualification") == "RESEARCH"
        and NOT_FOR_DIAGNOSIS in str(derived.get("SeriesDescription")),
    )
    lossy = source.get("LossyImageCompression") == "01" or old.transfer_syntax in LOSSY_METHODS
    yield (
        "lossy compression of the source is not forgotten",
        not lossy or derived.get("LossyImageCompression") == "01",
    )


def _reference(source: Dataset, derived: Dataset) -> Iterator[tuple[str, bool]]:
    yield (
        "instance and series are new",
        derived.SOPInstanceUID != source.SOPInstanceUID
        and derived.get("SeriesInstanceUID") not in (None, source.get("SeriesInstanceUID")),
    )
    references = [
        item
        for item in derived.get("SourceImageSequence") or ()
        if item.get("ReferencedSOPInstanceUID") == source.SOPInstanceUID
        and item.get("ReferencedSOPClassUID") == source.SOPClassUID
    ]
    yield "it refers to its source", bool(references)
    yield (
        "the reference says what for, and that spatial locations are not preserved",
        any(
            item.get("SpatialLocationsPreserved") == "NO" and _has_purpose(item, SOURCE_IMAGE.value)
            for item in references
        ),
    )


def _has_purpose(item: Dataset, value: str) -> bool:
    return any(
        code.get("CodeValue") == value for code in item.get("PurposeOfReferenceCodeSequence") or ()
    )
