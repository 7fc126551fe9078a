"""What every derived object must say of itself: who made it, from what, and for what use.

These checks share no code with `cxrsr_cli.derive`: what both got wrong would pass.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID

from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.verify.findings import Aspect, Finding

_LOSSLESS_SYNTAXES = frozenset((
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.5",
))  # fmt: skip
"""Transfer syntaxes that cannot lose anything (PS3.5 10 and annex A); an archive may choose any."""
_LOSSY_SYNTAXES = frozenset(("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"))
"""Transfer syntaxes that always lose something. All others may."""
_LOSSY_ATTRIBUTES = (
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip

_PURPOSE_SOURCE_IMAGE = "121322"
_PURPOSE_ACQUISITION, _PURPOSE_PROCESSING = "109101", "109102"
_SPATIAL_RESAMPLING = "113085"
_APPLICATION = "cxrsr"
_PARAMETERS = "; parameters "
"""Stands before the choices of the derivation, as JSON, in Contribution Description."""
_MARK = "SUPERRESOLUTION"
_NOT_FOR_DIAGNOSIS = "not for diagnosis"
_SHA256_DIGITS = 64

_PLACES_OF_IMAGE_TYPE = {
    "1.2.840.10008.5.1.4.1.1.1": 3, "1.2.840.10008.5.1.4.1.1.1.1": 3,
    "1.2.840.10008.5.1.4.1.1.1.1.1": 3, "1.2.840.10008.5.1.4.1.1.1.3": 3,
    "1.2.840.10008.5.1.4.1.1.1.3.1": 3, "1.2.840.10008.5.1.4.1.1.7": 3,
    "1.2.840.10008.5.1.4.1.1.2": 4,
}  # fmt: skip
"""Values of Image Type that the standard defines for CR, DX, intra-oral, SC and CT images."""
_MAX_PLACES_OF_IMAGE_TYPE = 5
"""The same for mammography (PS3.3 C.8.11.7.1.4), which has the most."""

_EQUIPMENT = (
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "DeviceUID",
)  # fmt: skip
_OF_THE_DEVICE = (
    "StationName", "UDISequence", "GantryID", "DateOfManufacture", "DateOfInstallation",
    "DateOfLastCalibration", "TimeOfLastCalibration", "ManufacturerDeviceClassUID",
)  # fmt: skip
"""What General Equipment says of a device beside `_EQUIPMENT` (PS3.3 C.7.5.1)."""

_UNTRUE = (
    "DigitalSignaturesSequence", "MACParametersSequence", "IconImageSequence",
    "SOPInstanceStatus", "SOPAuthorizationDateTime", "SOPAuthorizationComment",
    "AuthorizationEquipmentCertificationNumber", "HistogramSequence",
    "SmallestPixelValueInSeries", "LargestPixelValueInSeries",
    "SmallestImagePixelValueInPlane", "LargestImagePixelValueInPlane",
    "SeriesDate", "SeriesTime", "ReferencedPerformedProcedureStepSequence",
    "PerformedProcedureStepID", "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime", "PerformedProcedureStepEndDate",
    "PerformedProcedureStepEndTime", "PerformedProcedureStepDescription",
    "SourceInstanceSequence", "FrameExtractionSequence", "ConversionSourceAttributesSequence",
    "InstanceCoercionDateTime", "InstanceOriginStatus", "EncryptedAttributesSequence",
    "QueryRetrieveView", "RetrieveAETitle", "RetrieveURL", "RetrieveURI", "RetrieveLocationUID",
    "InstanceAvailability", "StorageMediaFileSetID", "StorageMediaFileSetUID",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "EncapsulatedPixelDataValueTotalLength",
)  # fmt: skip
"""What is true of the source alone: of its bytes, its approval, its procedure step, its place."""


def is_lossless(syntax: UID) -> bool:
    """Return whether a transfer syntax cannot lose anything."""
    return syntax in _LOSSLESS_SYNTAXES


@dataclass(frozen=True, slots=True)
class _Statement:
    """What the object's own item of Contributing Equipment says."""

    items: list[Dataset]
    own: Dataset
    choices: dict[str, object] = field(default_factory=dict)

    @classmethod
    def read(cls, derived: Dataset) -> "_Statement":
        items = _items(derived, "ContributingEquipmentSequence")
        own = [item for item in items if item.get("ManufacturerModelName") == _APPLICATION]
        item = own[-1] if own else Dataset()
        text = str(item.get("ContributionDescription") or "").partition(_PARAMETERS)[2]
        try:
            return cls(items, item, dict(json.loads(text)["options"]))
        except (ValueError, KeyError, TypeError):
            return cls(items, item)

    def chose_source(self, option: str) -> bool:
        """Return whether the site's policy takes something from the source."""
        return self.choices.get(option) == "source"


def check_provenance(source: DicomSource, derived: DicomSource, scale: int) -> Iterator[Finding]:
    """Check identity and history (PS3.3 C.7.5.1, C.7.6.1, C.12.1, C.12.2, C.12.4).

    Parameters
    ----------
    source, derived : DicomSource
        The original, and the object derived from it.
    scale : int
        Scale factor between the two.
    """
    old, new = source.dataset, derived.dataset
    statement = _Statement.read(new)
    for claim, holds in (
        *_equipment(old, new, statement),
        *_marks(old, new, statement, scale),
        ("Lossy Image Compression is what the source underwent", _is_as_lossy(source, new)),
        *_identity(old, new, statement.own),
        *_references(old, new),
    ):
        yield Finding.of(Aspect.PROVENANCE, claim, holds)
    untrue = {name for name in _UNTRUE if name in new}
    yield Finding.of_differences(
        Aspect.PROVENANCE,
        "nothing is there that is true of the source alone: signature, icon, authorization, step",
        {BaseTag(tag_for_keyword(name) or 0) for name in untrue},
    )


def _equipment(old: Dataset, new: Dataset, statement: _Statement) -> Iterator[tuple[str, bool]]:
    items, own = statement.items, statement.own
    yield (
        "the last item of Contributing Equipment is cxrsr",
        bool(items) and own is items[-1] and _has_purpose(own, _PURPOSE_PROCESSING),
    )
    versions = list(own.get("SoftwareVersions") or ())
    digest = "".join(str(text).removeprefix("SHA-256 ") for text in versions[2:4])
    yield (
        "the SHA-256 of the model's weights is stated, everywhere the same",
        len(digest) == _SHA256_DIGITS
        and digest == own.get("DeviceSerialNumber")
        and digest in str(new.get("DerivationDescription"))
        and digest in str(own.get("ContributionDescription")),
    )
    if statement.chose_source("equipment"):
        yield (
            "General Equipment is the source's",
            all(old.get(name) == new.get(name) for name in (*_EQUIPMENT, *_OF_THE_DEVICE)),
        )
        return
    yield (
        "General Equipment is cxrsr (PS3.3 C.7.5.1)",
        all(new.get(name) == own.get(name) for name in _EQUIPMENT)
        and not any(name in new for name in _OF_THE_DEVICE),
    )
    stated = [name for name in (*_EQUIPMENT, "StationName") if old.get(name)]
    earlier = items[-2] if len(items) > 1 else Dataset()
    yield (
        "the source's equipment is the item of Contributing Equipment before cxrsr",
        not stated
        or (
            all(earlier.get(name) == old[name].value for name in stated)
            and any(
                _has_purpose(earlier, purpose)
                for purpose in (_PURPOSE_ACQUISITION, _PURPOSE_PROCESSING)
            )
        ),
    )


def _marks(
    old: Dataset, new: Dataset, statement: _Statement, scale: int
) -> Iterator[tuple[str, bool]]:
    yield (
        "Derivation Description states the scale",
        f"x{scale} " in str(new.get("DerivationDescription")),
    )
    first, second, *rest = [*_values(new, "ImageType"), "", ""]
    places = _PLACES_OF_IMAGE_TYPE.get(new.SOPClassUID, _MAX_PLACES_OF_IMAGE_TYPE)
    stated_second = (_values(old, "ImageType")[1:2] or [""])[0]
    allowed = {"SECONDARY"}
    if statement.chose_source("image_type_2"):
        allowed = {stated_second} if stated_second else {"PRIMARY", "SECONDARY"}
    yield (
        f"Image Type is DERIVED, {' or '.join(sorted(allowed))}, and {_MARK} behind its places",
        first == "DERIVED"
        and second in allowed
        and rest.count(_MARK) == 1
        and rest.index(_MARK) + 2 >= places,
    )
    yield (
        "the object is marked as research and not for diagnosis",
        new.get("ContentQualification") == "RESEARCH"
        and str(new.get("SeriesDescription")).endswith(f", {_NOT_FOR_DIAGNOSIS}"),
    )
    earlier, codes = (_codes(dataset, "DerivationCodeSequence") for dataset in (old, new))
    yield (
        "Derivation Code Sequence has the source's codes, and spatial resampling after them",
        codes[: len(earlier)] == earlier and _SPATIAL_RESAMPLING in codes[len(earlier) :],
    )
    time = str(statement.own.get("ContributionDateTime") or "")
    yield (
        "Content and Instance Creation Date and Time are those of the derivation",
        bool(time)
        and all(
            time.startswith(str(new.get(f"{what}Date")) + str(new.get(f"{what}Time")))
            for what in ("Content", "InstanceCreation")
        ),
    )


def _is_as_lossy(source: DicomSource, new: Dataset) -> bool:
    old = source.dataset
    if old.get("LossyImageCompression") == "01" or is_lossless(source.transfer_syntax):
        return all(old.get(name) == new.get(name) for name in _LOSSY_ATTRIBUTES)
    return source.transfer_syntax not in _LOSSY_SYNTAXES or new.get("LossyImageCompression") == "01"


def _identity(old: Dataset, new: Dataset, own: Dataset) -> Iterator[tuple[str, bool]]:
    uids = [new.SOPInstanceUID, new.get("SeriesInstanceUID") or ""]
    known = {old.SOPInstanceUID, old.get("SeriesInstanceUID"), old.get("StudyInstanceUID")}
    yield (
        "SOP Instance UID and Series Instance UID are new and legal",
        len({*uids}) == len(uids) and known.isdisjoint(uids) and all(UID(u).is_valid for u in uids),
    )
    yield (
        "Instance Creator UID is that of cxrsr",
        new.get("InstanceCreatorUID") == own.get("DeviceUID") is not None,
    )
    yield (
        "Series Number is not the source's",
        new.get("SeriesNumber") not in (None, old.get("SeriesNumber")),
    )


def _references(old: Dataset, new: Dataset) -> Iterator[tuple[str, bool]]:
    references = _items(new, "SourceImageSequence")
    source = (old.SOPClassUID, old.SOPInstanceUID)
    yield (
        "Source Image Sequence refers to the source and to nothing else",
        [_reference(item) for item in references] == [source],
    )
    yield (
        "the reference states its purpose, and that spatial locations are not preserved",
        len(references) == 1
        and references[0].get("SpatialLocationsPreserved") == "NO"
        and _has_purpose(references[0], _PURPOSE_SOURCE_IMAGE),
    )
    listed = [
        (series.get("SeriesInstanceUID"), _reference(item))
        for series in _items(new, "ReferencedSeriesSequence")
        for item in _items(series, "ReferencedInstanceSequence")
    ]
    series_uid = old.get("SeriesInstanceUID")
    used = {source[1], *_referenced_uids(new)}
    yield (
        "Referenced Series Sequence lists the source in its series, and what else is referenced",
        (not series_uid or (series_uid, source) in listed)
        and all(instance[1] in used for _, instance in listed),
    )


def _reference(item: Dataset) -> tuple[object, object]:
    return item.get("ReferencedSOPClassUID"), item.get("ReferencedSOPInstanceUID")


def _referenced_uids(dataset: Dataset) -> Iterator[str]:
    """Yield the instances that are referenced, but for the module that only lists them."""
    for element in dataset:
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)
        elif isinstance(element.value, Sequence) and element.keyword != "ReferencedSeriesSequence":
            for item in element.value:
                yield from _referenced_uids(item)


def check_private(source: DicomSource, derived: DicomSource) -> Iterator[Finding]:
    """Check that private elements are the source's, and none states the source's spacing."""
    old, new = source.dataset, derived.dataset
    is_dropped = _Statement.read(new).choices.get("keep_private") is False
    spacings = [
        numbers
        for element in old
        if keyword_for_tag(element.tag).endswith("PixelSpacing")
        and len(numbers := read_numbers(element.value)) > 1
        and any(numbers)
    ]
    wrong = {
        tag
        for tag in new.keys()
        if tag.is_private
        and not isinstance(new[tag].value, Sequence)
        and (
            is_dropped
            or tag not in old
            or new[tag].value != old[tag].value
            or read_numbers(new[tag].value) in spacings
        )
    }
    yield Finding.of_differences(
        Aspect.CONTENT,
        "private elements are the source's, and none states its spacing",
        wrong,
    )


def read_numbers(value: object) -> list[float]:
    """Return the numbers of an element's value; none if something in it is no number."""
    if isinstance(value, bytes):
        value = value.decode("latin1").strip(" \0")
    if isinstance(value, str):
        value = value.split("\\")
    values = value if isinstance(value, Iterable) else [value]
    try:
        return [float(str(number).replace(",", ".")) for number in values]
    except ValueError:
        return []


def _values(dataset: Dataset, keyword: str) -> list[str]:
    value = dataset.get(keyword) or ()
    return [value] if isinstance(value, str) else [str(one) for one in value]


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    value = dataset.get(keyword)
    return list(value) if isinstance(value, Sequence) else []


def _has_purpose(item: Dataset, value: str) -> bool:
    return value in _codes(item, "PurposeOfReferenceCodeSequence")


def _codes(dataset: Dataset, keyword: str) -> list[object]:
    return [code.get("CodeValue") for code in _items(dataset, keyword)]
