"""Write the identity and the history of the derived object (PS3.3 C.7.6.1, C.12.1).

`_WRITTEN` and `INVALIDATED` are the tables: what is written and from what, and what is
removed and why.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
from pydicom.valuerep import DT

from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.codecs import LOSSY_METHODS
from cxrsr_cli.dicom.decode import number_of_frames
from cxrsr_cli.dicom.identifiers import MANUFACTURER, MODEL_NAME
from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.options import NOT_FOR_DIAGNOSIS

IMAGE_TYPE_MARKER = "SUPERRESOLUTION"
"""Value 4 or a later value of Image Type."""

SOURCE_IMAGE = CodedConcept("121322", "DCM", "Source image for image processing operation")
PROCESSING_EQUIPMENT = CodedConcept("109102", "DCM", "Processing Equipment")
_SPATIAL_RESAMPLING = CodedConcept("113085", "DCM", "Spatial resampling")
_NOISE_REDUCTION = CodedConcept("113087", "DCM", "Smoothing")
"""The nearest concept of CID 7203."""

_DX = (DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing)
_MAX_DERIVATION_DESCRIPTION_LENGTH = 1024
_MAX_SERIES_DESCRIPTION_LENGTH = 64
"""Of VR LO (PS3.5 6.2)."""
_MAX_INTEGER_STRING = 2**31 - 1
_PARAMETERS = "; parameters "
"""Stands before the `DerivationParameters` in Contribution Description."""


@dataclass(frozen=True, slots=True)
class _Derivation:
    """What the values of `_WRITTEN` are made from."""

    derived: Dataset
    source: Dataset
    parameters: DerivationParameters
    pixels_sha256: str
    now: datetime
    agreement: str

    def append(self, keyword: str, item: Dataset) -> Sequence:
        """Return a sequence of the derived object, its items unchanged, with one more item."""
        earlier = self.derived.get(keyword)
        return Sequence([*(earlier if isinstance(earlier, Sequence) else ()), item])


_WRITTEN: dict[str, Callable[[_Derivation], object]] = {
    "SOPInstanceUID": lambda d: d.parameters.instance_uid(d.source.SOPInstanceUID, d.pixels_sha256),
    # An image without a series gets its own series, not one shared with other images.
    "SeriesInstanceUID": lambda d: d.parameters.series_uid(
        d.source.get("SeriesInstanceUID") or d.source.SOPInstanceUID
    ),
    "InstanceCreationDate": lambda d: d.now.strftime("%Y%m%d"),
    "InstanceCreationTime": lambda d: d.now.strftime("%H%M%S"),
    "InstanceCreatorUID": lambda d: d.parameters.device_uid(),
    "ImageType": lambda d: image_type(d.source),
    "ContentQualification": lambda _: "RESEARCH",
    "SeriesDescription": lambda d: series_description(
        d.source, d.parameters.options.scale, d.parameters.options.series_description
    ),
    "SeriesNumber": lambda d: series_number(d.source, d.parameters.options.scale),
    "DerivationDescription": lambda d: _derivation_description(d)[0],
    "DerivationCodeSequence": lambda d: Sequence(
        [*(d.derived.get("DerivationCodeSequence") or ()), *_derivation_codes(d.parameters)]
    ),
    "SourceImageSequence": lambda d: Sequence([_source_image(d.source)]),
    "ContributingEquipmentSequence": lambda d: d.append(
        "ContributingEquipmentSequence", _equipment(d.parameters, d.now)
    ),
}
WRITTEN_KEYWORDS = tuple(_WRITTEN)
"""Keywords of the attributes that `write_provenance` writes."""

_OTHER_PIXELS = "true of the source's pixels only"
_OTHER_ENCODING = "belongs to the encoding of the source file"
_NOT_AUTHORISED = "the derived object has not been authorised"
INVALIDATED = {
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
}
"""Keywords of the attributes that `write_provenance` removes, and why."""

LOSSY_KEYWORDS = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
"""Keywords of the attributes that `mark_lossy` writes."""


def write_provenance(
    derived: Dataset,
    source: Dataset,
    parameters: DerivationParameters,
    pixels_sha256: str,
    now: datetime,
    agreement: str,
) -> list[str]:
    """Give the derived object its own identity and its history, in place.

    Takes the SHA-256 of the source's stored values, the time of the derivation, with its
    time zone, and a text on how the pixels agree. Returns warnings about what could not be kept.
    """
    derivation = _Derivation(
        derived, source, parameters, pixels_sha256, _in_time_zone_of(source, now), agreement
    )
    warnings = [
        f"{keyword} has no items and was replaced"
        for keyword in ("DerivationCodeSequence", "ContributingEquipmentSequence")
        if not isinstance(derived.get(keyword) or Sequence(), Sequence)
    ]
    for keyword, value in _WRITTEN.items():
        # As a new element, because the source's element may have a wrong VR.
        derived.add_new(keyword, dictionary_VR(keyword), value(derivation))
    for keyword in INVALIDATED:
        if keyword in derived:
            delattr(derived, keyword)
    if not _derivation_description(derivation)[1]:
        warnings.append("the earlier Derivation Description was dropped: too long, or not ASCII")
    return warnings


def image_type(source: Dataset) -> list[str]:
    """Return the Image Type of the derived image (C.7.6.1.1.2, C.8.11.3.1.1)."""
    stated = source.get("ImageType") or ()
    values = [stated] if isinstance(stated, str) else [str(value) for value in stated]
    captured = source.SOPClassUID == SecondaryCaptureImageStorage
    usual = "SECONDARY" if captured else "PRIMARY"
    second = values[1] if len(values) > 1 and values[1] else usual
    third = values[2] if len(values) > 2 and source.SOPClassUID not in _DX else ""
    return ["DERIVED", second, third, *values[3:], IMAGE_TYPE_MARKER]


def _derivation_codes(parameters: DerivationParameters) -> list[CodedConcept]:
    """Return what was done to the pixels (CID 7203)."""
    return [
        _SPATIAL_RESAMPLING,
        *([_NOISE_REDUCTION] if parameters.options.noise_reduction else []),
    ]


def _derivation_description(derivation: _Derivation) -> tuple[str, bool]:
    """Return the description, and whether it includes that of the source."""
    source, parameters = derivation.source, derivation.parameters
    options = parameters.options
    noise = (
        f"; noise reduced by the share {options.noise_reduction:g}"
        if options.noise_reduction
        else ""
    )
    ensemble = "; mean of eight flips and rotations" if options.self_ensemble else ""
    impulses = (
        "; lone pixels at either end of the stored range first replaced by the median around them"
        if parameters.impulse_filter
        else ""
    )
    ours = (
        f"Enlarged x{options.scale} by AI super-resolution; model {options.model}, "
        f"weights SHA-256 {parameters.model_sha256}{impulses}{noise}{ensemble}; "
        f"{derivation.agreement}; "
        f"cxrsr {parameters.software}; {NOT_FOR_DIAGNOSIS}"
    )
    earlier = str(source.get("DerivationDescription") or "").strip()
    both = f"{ours}. Earlier: {earlier}"
    fits = earlier.isascii() and len(both) <= _MAX_DERIVATION_DESCRIPTION_LENGTH
    if not earlier:
        return ours, True
    return (both, True) if fits else (ours, False)


def _source_image(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = Sequence([SOURCE_IMAGE])
    # An upscaled radiograph does not preserve spatial locations (C.12.4).
    item.SpatialLocationsPreserved = "NO"
    return item


def _equipment(parameters: DerivationParameters, now: datetime) -> Dataset:
    scale = parameters.options.scale
    item = ContributingEquipment(
        MANUFACTURER,
        PROCESSING_EQUIPMENT,
        manufacturer_model_name=MODEL_NAME,
        software_versions=[
            f"cxrsr {parameters.software}",
            f"model {parameters.options.model}",
            f"SHA-256 {parameters.model_sha256[:32]}",
            f"SHA-256 {parameters.model_sha256[32:]}",
        ],
        contribution_datetime=now,
        contribution_description=(
            f"AI super-resolution x{scale}; {NOT_FOR_DIAGNOSIS}{_PARAMETERS}{parameters.to_json()}"
        ),
    )
    item.DeviceUID = parameters.device_uid()
    return item


def own_equipment(derived: Dataset) -> Dataset | None:
    """Return the last item of Contributing Equipment that describes this software."""
    items = derived.get("ContributingEquipmentSequence")
    for item in reversed(items if isinstance(items, Sequence) else ()):
        codes = item.get("PurposeOfReferenceCodeSequence") or ()
        is_processing = any(code.get("CodeValue") == PROCESSING_EQUIPMENT.value for code in codes)
        if is_processing and item.get("ManufacturerModelName") == MODEL_NAME:
            return item
    return None


def read_parameters(derived: Dataset) -> tuple[DerivationParameters, datetime]:
    """Read from a derived object how it was made, and when.

    Raises
    ------
    ValueError
        If it does not say so.
    """
    item = own_equipment(derived) or Dataset()
    text = str(item.get("ContributionDescription") or "").partition(_PARAMETERS)[2]
    time = DT(str(item.get("ContributionDateTime") or ""))
    if time is None or time.tzinfo is None:
        raise ValueError("no time with its zone")
    return DerivationParameters.from_json(text), time


def _in_time_zone_of(source: Dataset, now: datetime) -> datetime:
    """Return the time in the zone that the object states for all its times (C.12.1.1.8)."""
    stated = str(source.get("TimezoneOffsetFromUTC") or "").strip()
    try:
        return now.astimezone(datetime.strptime(stated, "%z").tzinfo)
    except ValueError:
        return now


def series_description(source: Dataset, scale: int, wanted: str | None) -> str:
    """Return the user's text, or the source's description (if ASCII) and what was done."""
    if wanted is not None:
        return _with_warning(wanted)
    ours = _with_warning(f"AI super-resolution x{scale}")
    max_length = _MAX_SERIES_DESCRIPTION_LENGTH - len(ours) - 2
    stated = source.get("SeriesDescription") or ""
    values = [stated] if isinstance(stated, str) else [str(value) for value in stated]
    # PS3.5 6.2: a backslash separates values, of which the attribute may have one.
    theirs = " ".join(values).strip()[:max_length].strip()
    return f"{theirs}: {ours}" if theirs and theirs.isascii() else ours


def series_number(source: Dataset, scale: int) -> int:
    """Return 304 for series 3 at scale 4, so that sorted lists show it beside its source."""
    try:
        number = int(source.get("SeriesNumber") or 0) * 100 + scale
    except (TypeError, ValueError):
        number = scale
    return number if number <= _MAX_INTEGER_STRING else scale


def _with_warning(text: str) -> str:
    return f"{text}, {NOT_FOR_DIAGNOSIS}"


def mark_lossy(derived: Dataset, source: DicomSource) -> None:
    """Mark an output as lossy if only the transfer syntax of its source says so.

    If the source states it, its attributes are copied like all others. JPEG 2000 can be
    lossless under the UID of the lossy syntax; then the mark is wrong, but safe.
    """
    method = LOSSY_METHODS.get(source.transfer_syntax)
    if method is None or source.dataset.get("LossyImageCompression") == "01":
        return
    dataset = source.dataset
    raw = number_of_frames(dataset) * dataset.Rows * dataset.Columns * dataset.BitsAllocated / 8
    derived.LossyImageCompression = "01"
    derived.LossyImageCompressionRatio = f"{raw / len(dataset.PixelData):.2f}"
    derived.LossyImageCompressionMethod = method
