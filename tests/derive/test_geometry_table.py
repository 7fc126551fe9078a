"""Every attribute of a radiograph that counts pixels is in the table of geometry."""

import re
from collections.abc import Callable, Iterator

import pytest
from highdicom import _standard_utils as standard
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary

from cxrsr_cli.derive.geometry import PIXEL_GEOMETRY, ScalingRule
from cxrsr_cli.derive.provenance import INVALIDATED

IODS = (
    "computed-radiography-image",
    "digital-x-ray-image",  # for presentation and for processing
    "digital-mammography-x-ray-image",
    "digital-intra-oral-x-ray-image",
    "secondary-capture-image",
    "x-ray-angiographic-image",
    "x-ray-radiofluoroscopic-image",
    "ct-image",
    "mr-image",
)

GEOMETRY = re.compile(
    "Pixel|Row|Column|Edge|Vertices|Center|Radius|Origin|Area|Spacing|Size|Position|Matrix|Offset"
    "|Shift|Diameter|Extent|Width|Height|Length|Zoom|Magnification|Region|Resolution|Dimension"
    "|Distance|Thickness|Location|FieldOfView|Aspect|Delta|TMLine|RTImage|Binning"
)
NUMERIC = {"US", "SS", "UL", "SL", "UV", "SV", "IS", "DS", "FL", "FD", "OB", "OW", "OL", "OF", "OD"}

# Each decided from the definition in PS3.3.
NOT_COUNTED_IN_IMAGE_PIXELS = {
    "in mm or cm, of the patient, the room or the equipment": """
        AxialDetectorDimension BodyPartThickness CalculatedTargetPosition CenterOfRotationOffset
        CompressionContactArea ContainerComponentDiameter ContainerComponentLength
        ContainerComponentThickness ContainerComponentWidth DataCollectionCenterPatient
        DataCollectionDiameter DepthOfScanField DetectorActiveDimensions
        DetectorElementPhysicalSize DeviceDiameter DeviceLength
        DevicePositionToEquipmentMappingMatrix DistanceReceptorPlaneToDetectorHousing
        DistanceSourceToDataCollectionCenter DistanceSourceToDetector DistanceSourceToEntrance
        DistanceSourceToIsocenter DistanceSourceToPatient ExposedArea FieldOfViewDimensions
        FieldOfViewDimensionsInFloat FilterBeamPathLengthMaximum FilterBeamPathLengthMinimum
        FilterThicknessMaximum FilterThicknessMinimum FocalDistance GridFocalDistance GridThickness
        ImageToEquipmentMappingMatrix IntensifierActiveDimensions IntensifierSize
        InterMarkerDistance IsocenterPosition MeasuredAPDimension MeasuredLateralDimension
        MidSlabPosition OffsetDistance PatientSize PhysicalDetectorSize RTAccessorySlotDistance
        RadialPosition ReconstructionDiameter ReconstructionFieldOfView
        ReconstructionTargetCenterPatient ScanLength SingleCollimationWidth SlabThickness
        SliceLocation SliceLocationVector SliceThickness SpacingBetweenSlices TableHeight
        TableVerticalIncrement TableXPositionToIsocenter TableYPositionToIsocenter
        TableZPositionToIsocenter TomoLayerHeight TotalCollimationWidth WaterEquivalentDiameter
        XFocusCenter YFocusCenter ZoomCenter
        """,
    "in elements of the physical detector (C.8.11.4.1.1, C.8.19.5)": """
        DetectorActiveOrigin DetectorElementSpacing FieldOfViewOrigin PositionOfIsocenterProjection
        """,
    "of the acquisition before there were pixels": """
        AcquisitionMatrix PercentPhaseFieldOfView PixelBandwidth SpatialResolution
        ZoomFactor
        """,
    "a ratio, which square magnification keeps": """
        EstimatedRadiographicMagnificationFactor GridAspectRatio PixelAspectRatio
        """,
    "an angle": """
        ColumnAngulation FieldOfViewRotation PositionerIsocenterDetectorRotationAngle
        PositionerIsocenterPrimaryAngle PositionerIsocenterSecondaryAngle PositionerPrimaryAngle
        PositionerPrimaryAngleIncrement PositionerSecondaryAngle PositionerSecondaryAngleIncrement
        PrimaryPositionerIncrement PrimaryPositionerIncrementSign PrimaryPositionerScanArc
        PrimaryPositionerScanStartAngle SecondaryPositionerIncrement
        SecondaryPositionerIncrementSign SecondaryPositionerScanArc
        SecondaryPositionerScanStartAngle
        """,
    "time, dose, frequency, field": """
        AcquiredImageAreaDoseProduct AveragePulseWidth CenterFrequency ChemicalShiftReference
        DecouplingChemicalShiftReference DetectorActivationOffsetFromExposure EchoPeakPosition
        EchoTrainLength ImageAndFluoroscopyAreaDoseProduct LongitudinalTemporalOffsetFromEvent
        MultiplexGroupTimeOffset NumberOfTemporalPositions SpectralWidth TemporalPositionIdentifier
        TemporalResolution TriggerSamplePosition TriggerTimeOffset
        """,
    "a value of pixels, not their number": """
        DoubleFloatPixelPaddingRangeLimit DoubleFloatPixelPaddingValue FloatPixelPaddingRangeLimit
        FloatPixelPaddingValue LargestImagePixelValue PixelData
        PixelIntensityRelationshipSign PixelPaddingRangeLimit PixelPaddingValue PixelRepresentation
        SamplesPerPixel SamplesPerPixelUsed SmallestImagePixelValue WindowCenter WindowWidth
        """,
    "a number of frames, of people, of bits or of an item": """
        ConcatenationFrameOffsetNumber ImageFrameOrigin OverlayBitPosition
        PixelShiftFrameRange SelectorSequencePointerItems SubjectRelativePositionInImage TIDOffset
        """,
    "of objects without an image: protocols, presentation states, beams, spectra": """
        CenterOfCircularOutline DataPointColumns DataPointRows DiameterOfCircularOutline
        NumberOfPolygonalVertices OutlineLeftVerticalEdge OutlineLowerHorizontalEdge
        OutlineRightVerticalEdge OutlineUpperHorizontalEdge ReconstructionPixelSpacing
        VerticesOfThePolygonalOutline VerticesOfTheRegion
        """,
    "of volumes of ultrasound, in mm": """
        ApexPosition VolumeToTableMappingMatrix VolumeToTransducerMappingMatrix
        """,
    "retired, and what it counted is no longer defined": """
        AngularPosition BlockColumns BlockRows ChemicalShiftMaximumIntegrationLimitInHz
        ChemicalShiftMinimumIntegrationLimitInHz ColumnOverlap DopplerSampleVolumeXPositionRetired
        DopplerSampleVolumeYPositionRetired EnergyWindowCenterline EnergyWindowTotalWidth
        ImageDimensions ImageLocation ImagePosition ImageTransformationMatrix
        LargestImagePixelValueInPlane LargestMonochromePixelValue LargestValidPixelValue Location
        OverlayLocation OverlayPlaneOrigin PredictorColumns PredictorRows RotationOffset RowOverlap
        SmallestImagePixelValueInPlane SmallestValidPixelValue TMLinePositionX0Retired
        TMLinePositionX1Retired TMLinePositionY0Retired TMLinePositionY1Retired
        UpperLowerPixelValues
        """,
}

Place = tuple[tuple[str, ...], str]
"""Keywords of the sequences around an attribute, and its own."""


def places() -> dict[str, set[tuple[str, ...]]]:
    """Give the paths at which the standard uses each keyword."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for attributes in standard.get_module_attribute_map().values():
        for attribute in attributes:
            found.setdefault(attribute["keyword"], set()).add(tuple(attribute["path"]))
    return found


def iod_attributes() -> Iterator[Place]:
    modules = {module["key"] for iod in IODS for module in standard.get_iod_module_map()[iod]}
    for module in modules:
        for attribute in standard.get_module_attribute_map()[module]:
            yield tuple(attribute["path"]), attribute["keyword"]


def dictionary_attributes() -> Iterator[Place]:
    used = places()
    groups = (0x0018, 0x0020, 0x0028)
    keywords = [entry[4] for tag, entry in DicomDictionary.items() if tag >> 16 in groups]
    keywords += [entry[4] for mask, entry in RepeatersDictionary.items() if mask[:2] == "60"]
    # The IODs above decide in which sequences a keyword of the table is.
    for keyword in set(keywords) - {line.keyword for line in PIXEL_GEOMETRY}:
        yield from ((path, keyword) for path in used.get(keyword, {()}))


def is_geometric(place: Place) -> bool:
    keyword = place[1]
    entries = (*DicomDictionary.values(), *RepeatersDictionary.values())
    vrs = {vr for entry in entries if entry[4] == keyword for vr in entry[0].split(" or ")}
    return bool(GEOMETRY.search(keyword)) and bool(vrs & NUMERIC)


def is_known(place: Place) -> bool:
    path, keyword = place
    if any((line.within, line.keyword) == place for line in PIXEL_GEOMETRY):
        return True
    if any(line.rule is ScalingRule.REFUSE and line.keyword in path for line in PIXEL_GEOMETRY):
        return True
    # Objects with functional groups are refused (check_acceptance).
    if any(sequence.endswith("FunctionalGroupsSequence") for sequence in path):
        return True
    if {keyword, *path} & set(INVALIDATED):
        return True
    return any(keyword in names.split() for names in NOT_COUNTED_IN_IMAGE_PIXELS.values())


@pytest.mark.parametrize("attributes", [iod_attributes, dictionary_attributes])
def test_every_geometric_attribute_is_in_the_table_or_has_a_reason(
    attributes: Callable[[], Iterator[Place]],
) -> None:
    screened = {place for place in set(attributes()) if is_geometric(place)}
    assert {place for place in screened if not is_known(place)} == set()


def test_every_reason_is_stated_once_and_is_needed() -> None:
    names = [name for text in NOT_COUNTED_IN_IMAGE_PIXELS.values() for name in text.split()]
    screened = {place[1] for place in {*iod_attributes(), *dictionary_attributes()}}
    assert sorted(names) == sorted(set(names) & screened)
    assert set(names).isdisjoint(line.keyword for line in PIXEL_GEOMETRY)


def test_the_table_names_attributes_of_the_standard() -> None:
    used = places()
    dictionary = {entry[4] for entry in (*DicomDictionary.values(), *RepeatersDictionary.values())}
    for line in PIXEL_GEOMETRY:
        assert line.keyword in dictionary
        assert not line.within or line.within in used[line.keyword], line
    assert len({(line.within, line.keyword) for line in PIXEL_GEOMETRY}) == len(PIXEL_GEOMETRY)
