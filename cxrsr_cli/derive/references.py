"""Refer to the source, and keep the Common Instance Reference Module true (PS3.3 C.12.2)."""

from collections.abc import Collection, Iterator

from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

SOURCE_IMAGE = CodedConcept("121322", "DCM", "Source image for image processing operation")

_WRITTEN_ANEW = (
    "SourceImageSequence",
    "ReferencedSeriesSequence",
    "StudiesContainingOtherReferencedInstancesSequence",
)


def source_image(source: Dataset) -> Dataset:
    """Return the item of Source Image Sequence."""
    item = _reference(source)
    item.PurposeOfReferenceCodeSequence = Sequence([SOURCE_IMAGE])
    # An upscaled radiograph does not preserve spatial locations (C.12.4).
    item.SpatialLocationsPreserved = "NO"
    return item


def referenced_series(source: Dataset, removed: Collection[str]) -> Sequence | None:
    """Return the series of this study that the output refers to.

    These are the source's own, and those that the source lists and still refers to; `removed`
    has the keywords of the attributes that the output does not copy.
    """
    kept = set(_references(source, {*removed, *_WRITTEN_ANEW}))
    series = _still_referenced(source.get("ReferencedSeriesSequence"), kept)
    uid = source.get("SeriesInstanceUID")
    if uid:
        listed = next((item for item in series if item.SeriesInstanceUID == uid), None)
        if listed is None:
            listed = Dataset()
            listed.ReferencedInstanceSequence = Sequence()
            listed.SeriesInstanceUID = uid
            series.append(listed)
        listed.ReferencedInstanceSequence.append(_reference(source))
    return Sequence(series) if series else None


def referenced_studies(source: Dataset, removed: Collection[str]) -> Sequence | None:
    """Return the other studies that the output refers to, as `referenced_series`."""
    kept = set(_references(source, {*removed, *_WRITTEN_ANEW}))
    studies = []
    for study in source.get("StudiesContainingOtherReferencedInstancesSequence") or ():
        series = _still_referenced(study.get("ReferencedSeriesSequence"), kept)
        if series:
            item = Dataset()
            item.ReferencedSeriesSequence = Sequence(series)
            item.StudyInstanceUID = study.get("StudyInstanceUID")
            studies.append(item)
    return Sequence(studies) if studies else None


def _reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return item


def _still_referenced(listed: Sequence | None, kept: Collection[str]) -> list[Dataset]:
    series = []
    for stated in listed or ():
        instances = [
            instance
            for instance in stated.get("ReferencedInstanceSequence") or ()
            if instance.get("ReferencedSOPInstanceUID") in kept
        ]
        if instances and stated.get("SeriesInstanceUID"):
            item = Dataset()
            item.ReferencedInstanceSequence = Sequence(instances)
            item.SeriesInstanceUID = stated.SeriesInstanceUID
            series.append(item)
    return series


def _references(dataset: Dataset, left_out: Collection[str] = ()) -> Iterator[str]:
    for element in dataset:
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)
        elif element.VR == "SQ" and element.keyword not in left_out:
            for item in element.value or ():
                yield from _references(item)
