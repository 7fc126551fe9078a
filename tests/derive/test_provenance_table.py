"""Every attribute of the modules that describe an instance is decided: written, removed or kept."""

import pytest
from highdicom import _standard_utils as standard
from pydicom.datadict import tag_for_keyword
from pydicom.tag import BaseTag

from cxrsr_cli.derive.derive import is_modified
from cxrsr_cli.derive.provenance import INVALIDATED, WRITTEN_KEYWORDS
from cxrsr_cli.derive.uids import NOT_IN_UIDS

MODULES = (
    "sop-common", "general-series", "general-image", "general-reference", "general-equipment",
    "common-instance-reference",
)  # fmt: skip

# Each decided from its definition in PS3.3: it is as true of the output as of the source.
KEPT = {
    "of the class, encoding or coding of the object, which are the source's": """
        SpecificCharacterSet SOPClassUID RelatedGeneralSOPClassUID OriginalSpecializedSOPClassUID
        CodingSchemeIdentificationSequence ContextGroupIdentificationSequence
        MappingResourceIdentificationSequence TimezoneOffsetFromUTC
        PrivateDataElementCharacteristicsSequence
        """,
    "of the patient, the body part, the exposure and its protocol": """
        Modality AnatomicalOrientationType BodyPartExamined ProtocolName PatientPosition Laterality
        PerformedProtocolCodeSequence RequestAttributesSequence TreatmentSessionUID
        ReferencedDefinedProtocolSequence ReferencedPerformedProtocolSequence
        AnatomicRegionSequence PrimaryAnatomicStructureSequence PatientOrientation ImageLaterality
        PerformingPhysicianName PerformingPhysicianIdentificationSequence OperatorsName
        OperatorIdentificationSequence SeriesDescriptionCodeSequence BarcodeValue
        """,
    "place in the study, which sorts it beside its source": "InstanceNumber",
    "true of the image content, and of no other size of it": """
        ImageComments QualityControlImage BurnedInAnnotation RecognizableVisualFeatures
        RealWorldValueMappingSequence PresentationLUTShape PixelPaddingValue SyntheticData
        """,
    "history of values that the output still has": """
        OriginalAttributesSequence LongitudinalTemporalInformationModified
        """,
    "references that stay true": """
        RelatedSeriesSequence ReferencedImageSequence ReferencedInstanceSequence
        HL7StructuredDocumentReferenceSequence
        """,
    "where the equipment is, and what the acquisition resolves": """
        InstitutionName InstitutionAddress InstitutionalDepartmentName
        InstitutionalDepartmentTypeCodeSequence SpatialResolution
        """,
}


def attributes() -> set[str]:
    tables = standard.get_module_attribute_map()
    return {each["keyword"] for module in MODULES for each in tables[module] if not each["path"]}


def is_changed(keyword: str) -> bool:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return is_modified(BaseTag(tag))


def test_every_attribute_is_changed_or_kept_for_a_reason() -> None:
    kept = {name for names in KEPT.values() for name in names.split()}
    changed = {keyword for keyword in attributes() if is_changed(keyword)}
    assert attributes() - changed - kept == set()
    assert kept & changed == set()
    assert kept <= attributes(), "no reason without need"


def test_no_attribute_is_written_and_removed() -> None:
    assert set(WRITTEN_KEYWORDS).isdisjoint(INVALIDATED)


@pytest.mark.parametrize("keyword", NOT_IN_UIDS)
def test_what_does_not_decide_uids_is_written_anew_or_a_history(keyword: str) -> None:
    assert keyword in WRITTEN_KEYWORDS or keyword == "OriginalAttributesSequence"
