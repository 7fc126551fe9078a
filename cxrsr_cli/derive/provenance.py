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

from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.codecs import LOSSY_METHODS
from cxrsr_cli.dicom.decode import number_of_frames
from cxrsr_cli.dicom.identifiers import MANUFACTURER, MODEL_NAME
from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.options import NOT_FOR_DIAGNOSIS

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
    derived: Dataset,
    source: Dataset,
    parameters: DerivationParameters,
    pixels_sha256: str,
    now: datetime,
) -> list[str]:
    """Give the derived object its own identity and its history.

    Parameters
    ----------
    derived : pydicom.Dataset
        Changed in place.
    source : pydicom.Dataset
        The original.
    parameters : DerivationParameters
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
    now, options = _local(source, now), parameters.options
    # An image without a series gets one of its own, not one shared with strangers.
    series = source.get("SeriesInstanceUID") or source.SOPInstanceUID
    description, kept = _derivation_description(source, parameters)
    values = {
        "SOPInstanceUID": parameters.instance_uid(source.SOPInstanceUID, pixels_sha256),
        "SeriesInstanceUID": parameters.series_uid(series),
        "InstanceCreationDate": now.strftime("%Y%m%d"),
        "InstanceCreationTime": now.strftime("%H%M%S"),
        "InstanceCreatorUID": parameters.device_uid(),
        "ImageType": image_type(source),
        "ContentQualification": "RESEARCH",
        "SeriesDescription": series_description(source, options.scale, options.series_description),
        "SeriesNumber": series_number(source, options.scale),
        "DerivationDescription": description,
        "DerivationCodeSequence": _appended(derived, "DerivationCodeSequence", _SPATIAL_RESAMPLING),
        "SourceImageSequence": Sequence([_source_image(source)]),
        "ContributingEquipmentSequence": _appended(
            derived, "ContributingEquipmentSequence", _equipment(parameters, now)
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


def _derivation_description(source: Dataset, parameters: DerivationParameters) -> tuple[str, bool]:
    """Return our description, before the source's if possible, and whether it was."""
    options = parameters.options
    consistency = (
        "projected so that it downsamples to the source image"
        if options.consistency
        else "not projected on the source image"
    )
    ensemble = "; mean of eight flips and rotations" if options.self_ensemble else ""
    impulses = (
        "; lone pixels at either end of the stored range first replaced by the median around them"
        if parameters.impulse_filter
        else ""
    )
    ours = (
        f"Enlarged x{options.scale} by AI super-resolution; model {options.model}, "
        f"weights SHA-256 {parameters.model_sha256}{impulses}{ensemble}; {consistency}; "
        f"cxrsr {parameters.software}; {NOT_FOR_DIAGNOSIS}"
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


def _equipment(parameters: DerivationParameters, now: datetime) -> Dataset:
    options = parameters.options
    item = ContributingEquipment(
        MANUFACTURER,
        PROCESSING_EQUIPMENT,
        manufacturer_model_name=MODEL_NAME,
        software_versions=[
            f"cxrsr {parameters.software}",
            f"model {options.model}",
            f"SHA-256 {parameters.model_sha256[:32]}",
            f"SHA-256 {parameters.model_sha256[32:]}",
        ],
        contribution_datetime=now,
        contribution_description=f"AI super-resolution x{options.scale}; {NOT_FOR_DIAGNOSIS}",
    )
    item.DeviceUID = parameters.device_uid()
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


_MAX_DESCRIPTION_LENGTH = 64
"""Value length of LO (PS3.5 6.2)."""
_LARGEST_INTEGER_STRING = 2**31 - 1


def series_description(source: Dataset, scale: int, wanted: str | None) -> str:
    """Return the derived series' description.

    Parameters
    ----------
    source : pydicom.Dataset
        The original.
    scale : int
        Factor.
    wanted : str or None
        The user's text; else the source's, where its characters need no
        encoding, and what was done.
    """
    if wanted is not None:
        return _with_warning(wanted)
    ours = _with_warning(f"AI super-resolution x{scale}")
    room = _MAX_DESCRIPTION_LENGTH - len(ours) - 2
    theirs = str(source.get("SeriesDescription") or "").strip()[:room].strip()
    return f"{theirs}: {ours}" if theirs and theirs.isascii() else ours


def series_number(source: Dataset, scale: int) -> int:
    """Make series 3 at scale 4 number 304: beside its source in a sorted list."""
    try:
        number = int(source.get("SeriesNumber") or 0) * 100 + scale
    except (TypeError, ValueError):
        number = scale
    return number if number <= _LARGEST_INTEGER_STRING else scale


def _with_warning(text: str) -> str:
    return f"{text}, {NOT_FOR_DIAGNOSIS}"


LOSSY_KEYWORDS = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
"""Keywords of what `mark_lossy` writes."""


def mark_lossy(derived: Dataset, source: DicomSource) -> None:
    """Flag an output whose source was lossy by its transfer syntax alone.

    What the source states already is copied with everything else. JPEG 2000
    may be lossless under the lossy syntax's UID; saying "lossy" of it errs on
    the safe side.

    Parameters
    ----------
    derived : pydicom.Dataset
        Changed in place.
    source : Source
        The original.
    """
    method = LOSSY_METHODS.get(source.transfer_syntax)
    if method is None or source.dataset.get("LossyImageCompression") == "01":
        return
    dataset = source.dataset
    raw = number_of_frames(dataset) * dataset.Rows * dataset.Columns * dataset.BitsAllocated / 8
    derived.LossyImageCompression = "01"
    derived.LossyImageCompressionRatio = f"{raw / len(dataset.PixelData):.2f}"
    derived.LossyImageCompressionMethod = method
