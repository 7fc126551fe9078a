"""What the derived object says of its making (PS3.3 C.7.6.1, C.12.1)."""

from datetime import datetime

from highdicom import ContributingEquipment
from highdicom.sr.coding import CodedConcept
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from cxrsr_cli.derive.identity import DerivationParameters
from cxrsr_cli.derive.series import NOT_FOR_DIAGNOSIS, series_description, series_number
from cxrsr_cli.read.acceptance import MODEL_NAME

MANUFACTURER = "cxrsr open-source project"
IMAGE_TYPE_MARKER = "SUPERRESOLUTION"
"""Value 4 of Image Type or later."""

SOURCE_IMAGE = CodedConcept("121322", "DCM", "Source image for image processing operation")
_SPATIAL_RESAMPLING = CodedConcept("113085", "DCM", "Spatial resampling")
PROCESSING_EQUIPMENT = CodedConcept("109102", "DCM", "Processing Equipment")

_DX = (DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing)
_DERIVATION_DESCRIPTION_LENGTH = 1024

WRITTEN_KEYWORDS = (
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "InstanceCreatorUID",
    "ImageType",
    "ContentQualification",
    "SeriesDescription",
    "SeriesNumber",
    "DerivationDescription",
    "DerivationCodeSequence",
    "SourceImageSequence",
    "ContributingEquipmentSequence",
)
"""Keywords of what `identify` writes."""

# No longer true of other pixels, of pixels of another size, or of an object
# that nobody has looked at yet.
INVALIDATED = (
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "IconImageSequence",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "SmallestImagePixelValueInPlane",
    "LargestImagePixelValueInPlane",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "EncapsulatedPixelDataValueTotalLength",
    "DataSetTrailingPadding",
    "HistogramSequence",
    "SOPInstanceStatus",
    "SOPAuthorizationDateTime",
    "SOPAuthorizationComment",
    "AuthorizationEquipmentCertificationNumber",
)
"""Keywords of what `identify` removes."""


def write_provenance(
    derived: Dataset, source: Dataset, recipe: DerivationParameters, pixels_sha256: str, now: datetime
) -> list[str]:
    """Give the derived object its own identity and its history.

    Parameters
    ----------
    derived : pydicom.Dataset
        Changed in place.
    source : pydicom.Dataset
        The original.
    recipe : Recipe
        What was done.
    pixels_sha256 : str
        Of the source's stored values.
    now : datetime
        Time of the derivation, with its zone.

    Returns
    -------
    list of str
        What could not be kept.
    """
    now = _local(source, now)
    # An image without a series gets one of its own, not one shared with strangers.
    series = source.get("SeriesInstanceUID") or source.SOPInstanceUID
    description, kept = _derivation_description(source, recipe)
    values = {
        "SOPInstanceUID": recipe.instance_uid(source.SOPInstanceUID, pixels_sha256),
        "SeriesInstanceUID": recipe.series_uid(series),
        "InstanceCreationDate": now.strftime("%Y%m%d"),
        "InstanceCreationTime": now.strftime("%H%M%S"),
        "InstanceCreatorUID": recipe.device_uid(),
        "ImageType": image_type(source),
        "ContentQualification": "RESEARCH",
        "SeriesDescription": series_description(source, recipe.scale, recipe.series_description),
        "SeriesNumber": series_number(source, recipe.scale),
        "DerivationDescription": description,
        "DerivationCodeSequence": _appended(derived, "DerivationCodeSequence", _SPATIAL_RESAMPLING),
        "SourceImageSequence": Sequence([_source_image(source)]),
        "ContributingEquipmentSequence": _appended(
            derived, "ContributingEquipmentSequence", _equipment(recipe, now)
        ),
    }
    for keyword in WRITTEN_KEYWORDS:
        # Anew: the source's element may be of a wrong VR.
        derived.add_new(keyword, dictionary_VR(keyword), values[keyword])
    for keyword in INVALIDATED:
        if keyword in derived:
            delattr(derived, keyword)
    return (
        [] if kept else ["the earlier Derivation Description was dropped: too long, or not ASCII"]
    )


def image_type(source: Dataset) -> list[str]:
    """Return the Image Type of the derived image (C.7.6.1.1.2, C.8.11.3.1.1)."""
    stated = source.get("ImageType") or ()
    values = [stated] if isinstance(stated, str) else [str(value) for value in stated]
    captured = source.SOPClassUID == SecondaryCaptureImageStorage
    usual = "SECONDARY" if captured else "PRIMARY"
    second = values[1] if len(values) > 1 and values[1] else usual
    third = values[2] if len(values) > 2 and source.SOPClassUID not in _DX else ""
    return ["DERIVED", second, third, *values[3:], IMAGE_TYPE_MARKER]


def _derivation_description(source: Dataset, recipe: DerivationParameters) -> tuple[str, bool]:
    """Return our description, before the source's if possible, and whether it was."""
    consistency = (
        "projected so that it downsamples to the source image"
        if recipe.consistency
        else "not projected on the source image"
    )
    ensemble = "; mean of eight flips and rotations" if recipe.ensemble else ""
    impulses = (
        "; lone pixels at either end of the stored range first replaced by the median around them"
        if recipe.impulse_filter
        else ""
    )
    ours = (
        f"Enlarged x{recipe.scale} by AI super-resolution; model {recipe.model_name}, "
        f"weights SHA-256 {recipe.model_sha256}{impulses}{ensemble}; {consistency}; "
        f"cxrsr {recipe.software}; {NOT_FOR_DIAGNOSIS}"
    )
    earlier = str(source.get("DerivationDescription") or "").strip()
    both = f"{ours}. Earlier: {earlier}"
    fits = earlier.isascii() and len(both) <= _DERIVATION_DESCRIPTION_LENGTH
    if not earlier:
        return ours, True
    return (both, True) if fits else (ours, False)


def _source_image(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = Sequence([SOURCE_IMAGE])
    # C.12.4: a magnified radiograph does not preserve spatial locations.
    item.SpatialLocationsPreserved = "NO"
    return item


def _equipment(recipe: DerivationParameters, now: datetime) -> Dataset:
    item = ContributingEquipment(
        MANUFACTURER,
        PROCESSING_EQUIPMENT,
        manufacturer_model_name=MODEL_NAME,
        software_versions=[
            f"cxrsr {recipe.software}",
            f"model {recipe.model_name}",
            f"SHA-256 {recipe.model_sha256[:32]}",
            f"SHA-256 {recipe.model_sha256[32:]}",
        ],
        contribution_datetime=now,
        contribution_description=f"AI super-resolution x{recipe.scale}; {NOT_FOR_DIAGNOSIS}",
    )
    item.DeviceUID = recipe.device_uid()
    return item


def _appended(derived: Dataset, keyword: str, item: Dataset) -> Sequence:
    """Append to the items of the derived object, which are still the file's bytes."""
    return Sequence([*(derived.get(keyword) or ()), item])


def _local(source: Dataset, now: datetime) -> datetime:
    """Return the time in the zone that the object states for all its times (C.12.1.1.8)."""
    stated = str(source.get("TimezoneOffsetFromUTC") or "").strip()
    try:
        return now.astimezone(datetime.strptime(stated, "%z").tzinfo)
    except ValueError:
        return now
