"""The source can be found from the output, and the lists of references are true."""

from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from tests.derive.test_derive import derived_from, saved


def reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", uid
    return item


def series(uid: str, *instances: str) -> Dataset:
    item = Dataset()
    item.ReferencedInstanceSequence = Sequence(map(reference, instances))
    item.SeriesInstanceUID = uid
    return item


def listed(sequence: Sequence) -> dict[str, list[str]]:
    return {
        item.SeriesInstanceUID: [
            instance.ReferencedSOPInstanceUID for instance in item.ReferencedInstanceSequence
        ]
        for item in sequence
    }


def test_the_series_of_the_source_is_named(chest: FileDataset, tmp_path: Path) -> None:
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"))
    expected = {chest.SeriesInstanceUID: [chest.SOPInstanceUID]}
    assert listed(derived.ReferencedSeriesSequence) == expected
    assert derived.StudyInstanceUID == chest.StudyInstanceUID


def test_what_is_no_longer_referenced_is_no_longer_listed(shared: Path) -> None:
    """The source of the source is only in the Source Image Sequence that was replaced."""
    derived, _ = derived_from(shared / "cases" / "common_instance_ref.dcm")
    (uid,) = listed(derived.ReferencedSeriesSequence)
    assert uid != "1.2.3.4.5"


def test_what_is_still_referenced_is_still_listed(chest: FileDataset, tmp_path: Path) -> None:
    chest.ReferencedImageSequence = Sequence([reference("1.1"), reference("1.2")])
    chest.SourceImageSequence = Sequence([reference("1.9")])
    own = chest.SeriesInstanceUID
    chest.ReferencedSeriesSequence = Sequence([series("1", "1.1", "1.9"), series(own, "1.8")])
    study = Dataset()
    study.ReferencedSeriesSequence = Sequence([series("2", "1.2"), series("3", "1.7")])
    study.StudyInstanceUID = "5"
    chest.StudiesContainingOtherReferencedInstancesSequence = Sequence([study])
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"))
    expected = {"1": ["1.1"], own: [chest.SOPInstanceUID]}
    assert listed(derived.ReferencedSeriesSequence) == expected
    (other,) = derived.StudiesContainingOtherReferencedInstancesSequence
    assert other.StudyInstanceUID == "5"
    assert listed(other.ReferencedSeriesSequence) == {"2": ["1.2"]}


def test_an_image_without_a_series_is_not_listed(chest: FileDataset, tmp_path: Path) -> None:
    del chest.SeriesInstanceUID
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"))
    assert "ReferencedSeriesSequence" not in derived


@pytest.mark.parametrize("name", ["leftovers", "pps"])
def test_statements_about_the_source_as_an_instance_are_gone(shared: Path, name: str) -> None:
    derived, _ = derived_from(shared / "cases" / f"{name}.dcm")
    for keyword in (
        "FrameExtractionSequence", "ConversionSourceAttributesSequence", "RetrieveURL",
        "InstanceCoercionDateTime", "QueryRetrieveView", "RetrieveAETitle", "InstanceAvailability",
        "StorageMediaFileSetID", "ReferencedPerformedProcedureStepSequence",
        "PerformedProcedureStepID", "PerformedProcedureStepStartDate",
    ):  # fmt: skip
        assert keyword not in derived
    assert "AccessionNumber" in derived
    assert ("OriginalAttributesSequence" in derived) == (name == "leftovers")
