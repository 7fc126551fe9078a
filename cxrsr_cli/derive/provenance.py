"""Write the identity and the history of the derived object (PS3.3 C.7.6.1, C.12.1).

`_WRITTEN` and `INVALIDATED` are the tables: what is written and from what, and what is
removed and why.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from highdicom.sr.coding import CodedConcept
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalIntraOralXRayImageStorageForPresentation,
    DigitalIntraOralXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from cxrsr_cli.derive.descriptions import derivation_description, series_description
from cxrsr_cli.derive.equipment import (
    REMOVED_EQUIPMENT,
    own_equipment,
    software_versions,
    source_equipment,
)
from cxrsr_cli.derive.references import referenced_series, referenced_studies, source_image
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.attributes import number_of_frames
from cxrsr_cli.dicom.decode import lossy_method
from cxrsr_cli.dicom.identifiers import MANUFACTURER, MODEL_NAME
from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.options import EquipmentRule, ImageTypeRule, SeriesNumberRule

IMAGE_TYPE_MARKER = "SUPERRESOLUTION"
"""A value of Image Type behind those that the standard defines."""

_SPATIAL_RESAMPLING = CodedConcept("113085", "DCM", "Spatial resampling")
_NOISE_REDUCTION = CodedConcept("113087", "DCM", "Smoothing")
"""The nearest concept of CID 7203."""

_DX = (
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    DigitalIntraOralXRayImageStorageForPresentation,
    DigitalIntraOralXRayImageStorageForProcessing,
)
"""SOP Classes with the DX Image Module, in which value 3 of Image Type is empty (C.8.11.3.1.1)."""
_IMAGE_TYPE_VALUES = {
    ComputedRadiographyImageStorage: 3,
    SecondaryCaptureImageStorage: 3,
    **dict.fromkeys(_DX, 3),
    CTImageStorage: 4,
}
"""Number of values of Image Type that the standard defines for a SOP Class."""
_MAX_IMAGE_TYPE_VALUES = 5
"""The same for any other SOP Class: mammography has the most (C.8.11.7.1.4)."""

_MAX_INTEGER_STRING = 2**31 - 1
_FIRST_SERIES_NUMBER = 10**9
"""Modalities number from 1, or by date or time, with up to nine digits."""


@dataclass(frozen=True, slots=True)
class _Derivation:
    """What the values of `_WRITTEN` are made from."""

    derived: Dataset
    source: DicomSource
    parameters: DerivationParameters
    pixels_sha256: str
    header_sha256: str
    now: datetime
    agreement: str
    warnings: list[str] = field(default_factory=list)

    def append(self, keyword: str, *items: Dataset | None) -> Sequence:
        """Return a sequence of the derived object, its items unchanged, with more items."""
        earlier = self.derived.get(keyword)
        if not isinstance(earlier or Sequence(), Sequence):
            self.warnings.append(f"{keyword} has no items and was replaced")
            earlier = None
        return Sequence([*(earlier or ()), *(item for item in items if item is not None)])

    def note(self, text: tuple[DataElement | RawDataElement, str]) -> DataElement | RawDataElement:
        """Return the first part, and keep the second, a warning, if it is not empty."""
        self.warnings.extend(filter(None, text[1:]))
        return text[0]


_OWN_EQUIPMENT: dict[str, Callable[[_Derivation], object]] = {
    "Manufacturer": lambda _: MANUFACTURER,
    "ManufacturerModelName": lambda _: MODEL_NAME,
    "DeviceSerialNumber": lambda d: d.parameters.model_sha256,
    "SoftwareVersions": lambda d: software_versions(d.parameters),
    "DeviceUID": lambda d: d.parameters.device_uid(),
}
"""General Equipment Module (C.7.5.1): the application that made the image."""

_WRITTEN: dict[str, Callable[[_Derivation], object]] = {
    "SOPInstanceUID": lambda d: d.parameters.instance_uid(
        d.source.dataset.SOPInstanceUID, d.pixels_sha256, d.header_sha256
    ),
    "SeriesInstanceUID": lambda d: series_uid(d.source.dataset, d.parameters),
    "InstanceCreationDate": lambda d: d.now.strftime("%Y%m%d"),
    "InstanceCreationTime": lambda d: d.now.strftime("%H%M%S"),
    "InstanceCreatorUID": lambda d: d.parameters.device_uid(),
    # "The date the image pixel data creation started" (C.7.6.1).
    "ContentDate": lambda d: d.now.strftime("%Y%m%d"),
    "ContentTime": lambda d: d.now.strftime("%H%M%S"),
    "ImageType": lambda d: image_type(d.source.dataset, d.parameters.options.image_type_2),
    "ContentQualification": lambda _: "RESEARCH",
    "SeriesDescription": lambda d: d.note(series_description(d.source, d.parameters)),
    "SeriesNumber": lambda d: series_number(d.source.dataset, d.parameters),
    "DerivationDescription": lambda d: d.note(
        derivation_description(d.source, d.parameters, d.agreement)
    ),
    "DerivationCodeSequence": lambda d: d.append(
        "DerivationCodeSequence", *_derivation_codes(d.parameters)
    ),
    "SourceImageSequence": lambda d: Sequence([source_image(d.source.dataset)]),
    "ReferencedSeriesSequence": lambda d: referenced_series(d.source.dataset, INVALIDATED),
    "StudiesContainingOtherReferencedInstancesSequence": lambda d: referenced_studies(
        d.source.dataset, INVALIDATED
    ),
    "ContributingEquipmentSequence": lambda d: d.append(
        "ContributingEquipmentSequence",
        source_equipment(d.source) if _states_own_equipment(d.parameters) else None,
        own_equipment(d.parameters, d.now),
    ),
    **_OWN_EQUIPMENT,
}
WRITTEN_KEYWORDS = tuple(_WRITTEN)
"""Keywords of the attributes that `write_provenance` writes."""

_OTHER_PIXELS = "true of the source's pixels only"
_OTHER_ENCODING = "belongs to the encoding of the source file"
_NOT_AUTHORISED = "the derived object has not been authorised"
_OTHER_STEP = "the output is not among the results of that procedure step"
_OTHER_PLACE = "an archive's statement of where and how the source is kept"
_OTHER_ORIGIN = "says how the source came about"
INVALIDATED: dict[str, str] = {
    "DigitalSignaturesSequence": "the signature covers changed attributes",
    "MACParametersSequence": "belongs to the signature",
    "IconImageSequence": _OTHER_PIXELS,
    "SmallestPixelValueInSeries": _OTHER_PIXELS,
    "LargestPixelValueInSeries": _OTHER_PIXELS,
    "SmallestImagePixelValueInPlane": _OTHER_PIXELS,
    "LargestImagePixelValueInPlane": _OTHER_PIXELS,
    "ExtendedOffsetTable": _OTHER_ENCODING,
    "ExtendedOffsetTableLengths": _OTHER_ENCODING,
    "EncapsulatedPixelDataValueTotalLength": _OTHER_ENCODING,
    "DataSetTrailingPadding": _OTHER_ENCODING,
    "HistogramSequence": _OTHER_PIXELS,
    "SOPInstanceStatus": _NOT_AUTHORISED,
    "SOPAuthorizationDateTime": _NOT_AUTHORISED,
    "SOPAuthorizationComment": _NOT_AUTHORISED,
    "AuthorizationEquipmentCertificationNumber": _NOT_AUTHORISED,
    "SeriesDate": "of the source's series; two outputs of one series would differ",
    "SeriesTime": "of the source's series; two outputs of one series would differ",
    "ReferencedPerformedProcedureStepSequence": _OTHER_STEP,
    "PerformedProcedureStepID": _OTHER_STEP,
    "PerformedProcedureStepStartDate": _OTHER_STEP,
    "PerformedProcedureStepStartTime": _OTHER_STEP,
    "PerformedProcedureStepEndDate": _OTHER_STEP,
    "PerformedProcedureStepEndTime": _OTHER_STEP,
    "PerformedProcedureStepDescription": _OTHER_STEP,
    "CommentsOnThePerformedProcedureStep": _OTHER_STEP,
    "SourceInstanceSequence": "the source's own sources are to be looked up there",
    "FrameExtractionSequence": _OTHER_ORIGIN,
    "ConversionSourceAttributesSequence": _OTHER_ORIGIN,
    "InstanceCoercionDateTime": _OTHER_ORIGIN,
    "InstanceOriginStatus": _OTHER_ORIGIN,
    "EncryptedAttributesSequence": "would give the output the source's UID when it is decrypted",
    "QueryRetrieveLevel": _OTHER_PLACE,
    "QueryRetrieveView": _OTHER_PLACE,
    "RetrieveAETitle": _OTHER_PLACE,
    "RetrieveURL": _OTHER_PLACE,
    "RetrieveURI": _OTHER_PLACE,
    "RetrieveLocationUID": _OTHER_PLACE,
    "InstanceAvailability": _OTHER_PLACE,
    "AvailableTransferSyntaxUID": _OTHER_PLACE,
    "StorageMediaFileSetID": _OTHER_PLACE,
    "StorageMediaFileSetUID": _OTHER_PLACE,
    "NumberOfPatientRelatedStudies": _OTHER_PLACE,
    "NumberOfPatientRelatedSeries": _OTHER_PLACE,
    "NumberOfPatientRelatedInstances": _OTHER_PLACE,
    "NumberOfStudyRelatedSeries": _OTHER_PLACE,
    "NumberOfStudyRelatedInstances": _OTHER_PLACE,
    "NumberOfSeriesRelatedInstances": _OTHER_PLACE,
    "ModalitiesInStudy": _OTHER_PLACE,
    "SOPClassesInStudy": _OTHER_PLACE,
    **REMOVED_EQUIPMENT,
}
"""Keywords of the attributes that `remove_invalidated` removes, and why."""

LOSSY_KEYWORDS = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
"""Keywords of the attributes that `mark_lossy` writes."""


def remove_invalidated(derived: Dataset, parameters: DerivationParameters) -> None:
    """Remove what is untrue of the derived object, in place."""
    kept = () if _states_own_equipment(parameters) else REMOVED_EQUIPMENT
    for keyword in INVALIDATED:
        if keyword in derived and keyword not in kept:
            delattr(derived, keyword)


def write_provenance(
    derived: Dataset,
    source: DicomSource,
    parameters: DerivationParameters,
    sha256: tuple[str, str],
    now: datetime,
    agreement: str,
) -> list[str]:
    """Give the derived object its own identity and its history, in place.

    Takes the SHA-256 of the source's stored values and of its header (`uids.hash_header`),
    the time of the derivation, with its time zone, and a text on how the pixels agree.
    Returns warnings about what could not be kept.
    """
    derivation = _Derivation(
        derived, source, parameters, *sha256, _in_time_zone_of(source.dataset, now), agreement
    )
    for keyword, value_of in _WRITTEN.items():
        if keyword in _OWN_EQUIPMENT and not _states_own_equipment(parameters):
            continue
        value = value_of(derivation)
        if value is None:
            derived.pop(keyword, None)
        elif isinstance(value, DataElement | RawDataElement):
            derived[keyword] = value
        else:
            # As a new element, because the source's element may have a wrong VR.
            derived.add_new(keyword, dictionary_VR(keyword), value)
    return derivation.warnings


def _states_own_equipment(parameters: DerivationParameters) -> bool:
    return parameters.options.equipment is EquipmentRule.APPLICATION


def image_type(source: Dataset, rule: ImageTypeRule = ImageTypeRule.SECONDARY) -> list[str]:
    """Return the Image Type of the derived image (C.7.6.1.1.2, C.8.11.3.1.1).

    Value 2 is SECONDARY, "created after the initial patient examination", or by another rule
    that of the source.
    """
    stated = source.get("ImageType") or ()
    values = [stated] if isinstance(stated, str) else [str(value) for value in stated]
    is_capture = source.SOPClassUID == SecondaryCaptureImageStorage
    second = "SECONDARY"
    if rule is ImageTypeRule.SOURCE and not is_capture:
        second = "PRIMARY"
    if rule is ImageTypeRule.SOURCE and len(values) > 1 and values[1]:
        second = values[1]
    third = values[2] if len(values) > 2 and source.SOPClassUID not in _DX else ""
    defined = _IMAGE_TYPE_VALUES.get(source.SOPClassUID, _MAX_IMAGE_TYPE_VALUES)
    mine = ["DERIVED", second, third, *values[3:]]
    return [*mine, *[""] * (defined - len(mine)), IMAGE_TYPE_MARKER]


def _derivation_codes(parameters: DerivationParameters) -> list[CodedConcept]:
    """Return what was done to the pixels (CID 7203)."""
    return [
        _SPATIAL_RESAMPLING,
        *([_NOISE_REDUCTION] if parameters.options.noise_reduction else []),
    ]


def _in_time_zone_of(source: Dataset, now: datetime) -> datetime:
    """Return the time in the zone that the object states for all its times (C.12.1.1.8)."""
    stated = str(source.get("TimezoneOffsetFromUTC") or "").strip()
    try:
        return now.astimezone(datetime.strptime(stated, "%z").tzinfo)
    except ValueError:
        return now


def series_uid(source: Dataset, parameters: DerivationParameters) -> UID:
    """Return the Series Instance UID of the output."""
    # An image without a series gets its own series, not one shared with other images.
    return parameters.series_uid(
        source.get("StudyInstanceUID") or "",
        source.get("SeriesInstanceUID") or source.SOPInstanceUID,
    )


def series_number(source: Dataset, parameters: DerivationParameters) -> int:
    """Return a number that no other series of the study has (C.7.3.1).

    It is made of the Series Instance UID. By another rule it is 304 for series 3 at scale 4,
    if that is a legal number.
    """
    options = parameters.options
    if options.series_number is SeriesNumberRule.SOURCE:
        try:
            number = int(source.get("SeriesNumber") or 0) * 100 + options.scale
        except (TypeError, ValueError):
            number = options.scale
        if 0 < number <= _MAX_INTEGER_STRING:
            return number
    unique = int(series_uid(source, parameters).rpartition(".")[2])
    return _FIRST_SERIES_NUMBER + unique % _FIRST_SERIES_NUMBER


def mark_lossy(derived: Dataset, source: DicomSource) -> None:
    """Mark an output as lossy if only the compressed pixels of its source say so.

    If the source states it, its attributes are copied like all others.
    """
    dataset = source.dataset
    method = lossy_method(source)
    if method is None or dataset.get("LossyImageCompression") == "01":
        return
    raw = number_of_frames(dataset) * dataset.Rows * dataset.Columns * dataset.BitsAllocated / 8
    derived.LossyImageCompression = "01"
    derived.LossyImageCompressionRatio = f"{raw / len(dataset.PixelData):.2f}"
    derived.LossyImageCompressionMethod = method
