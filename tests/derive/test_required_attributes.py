"""Attributes that the standard requires are found if missing, and are never lost."""

import copy
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from cxrsr_cli.derive import provenance, required_attributes
from cxrsr_cli.derive.required_attributes import (
    AttributeType,
    MissingAttribute,
    lost_attributes,
    missing_attributes,
)
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import InputError, InternalError
from tests.conftest import ROOT
from tests.derive.test_derive import derived_from, saved

TYPE_1, TYPE_2 = AttributeType.PRESENT_WITH_VALUE, AttributeType.PRESENT
EXAMPLES = sorted((ROOT / "examples").glob("*.dcm"))
RADIOGRAPHS = [
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_and_their_derived_objects_lack_no_attribute(path: Path) -> None:
    assert missing_attributes(pydicom.dcmread(path)) == set()
    derived, _ = derived_from(path, scale=2)
    assert missing_attributes(derived) == set()


def test_objects_derived_from_real_files_lack_no_more_than_their_sources(shared: Path) -> None:
    derived_files = 0
    for path in sorted((shared / "dicom").rglob("*.dcm")):
        try:
            derived, _ = derived_from(path, scale=2)
        except InputError:
            continue
        derived_files += 1
        before = missing_attributes(read_source(path).dataset)
        assert missing_attributes(derived) <= before, path.name
    assert derived_files >= 10


@pytest.mark.parametrize(
    ("keyword", "kind", "module"),
    [
        ("Modality", TYPE_1, "general-series"),
        ("SOPInstanceUID", TYPE_1, "sop-common"),
        ("BitsStored", TYPE_1, "image-pixel"),
        ("PresentationIntentType", TYPE_1, "dx-series"),
        # Type 3 in the General Image Module: the strictest of an IOD's modules holds.
        ("ImageType", TYPE_1, "dx-image"),
        ("AnatomicRegionSequence", TYPE_2, "dx-anatomy-imaged"),
        ("PatientName", TYPE_2, "patient"),
        ("StudyID", TYPE_2, "general-study"),
        ("AcquisitionContextSequence", TYPE_2, "acquisition-context"),
    ],
)
def test_an_absent_attribute_is_missing(
    chest: FileDataset, keyword: str, kind: AttributeType, module: str
) -> None:
    del chest[keyword]
    assert missing_attributes(chest) == {MissingAttribute(keyword, kind, module)}


@pytest.mark.parametrize(("keyword", "misses"), [("Modality", True), ("StudyID", False)])
def test_an_empty_attribute_is_missing_only_if_it_is_of_type_1(
    chest: FileDataset, keyword: str, misses: bool
) -> None:
    chest[keyword].value = None
    assert bool(missing_attributes(chest)) == misses


@pytest.mark.parametrize(
    "keyword",
    [
        "PixelData",  # 1C
        "PatientOrientation",  # 2C and 1C
        "ViewPosition",  # of a module of usage U for DX
        "ContentQualification",  # unknown to the object
    ],
)
def test_conditional_and_optional_attributes_are_not_missing(
    chest: FileDataset, keyword: str
) -> None:
    chest.pop(keyword, None)
    assert missing_attributes(chest) == set()


def test_attributes_missing_in_sequence_items_are_found(chest: FileDataset) -> None:
    whole, partial, reference = Dataset(), Dataset(), Dataset()
    for item in (whole, partial):
        item.CodeValue, item.CodingSchemeDesignator = "1", "99TEST"
        item.CodeMeaning = "meaning"
    del partial.CodeMeaning
    reference.ReferencedSOPClassUID = "1.2"
    chest.AnatomicRegionSequence = Sequence([whole, partial])
    chest.ReferencedStudySequence = Sequence([reference])
    assert {(missing.path, missing.type) for missing in missing_attributes(chest)} == {
        ("AnatomicRegionSequence[1].CodeMeaning", TYPE_1),
        ("ReferencedStudySequence[0].ReferencedSOPInstanceUID", TYPE_1),
    }


def test_a_mammogram_requires_its_view(chest: FileDataset) -> None:
    chest.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    view = Dataset()
    view.CodeValue, view.CodingSchemeDesignator = "399162004", "SCT"
    chest.ViewCodeSequence = Sequence([view])
    assert {missing.path for missing in missing_attributes(chest)} == {
        "OrganExposed",
        "ViewCodeSequence[0].CodeMeaning",
        "ViewCodeSequence[0].ViewModifierCodeSequence",
    }


@pytest.mark.parametrize("sop_class", RADIOGRAPHS, ids=lambda uid: uid.keyword)
def test_radiographs_have_a_table(sop_class: UID) -> None:
    assert required_attributes._table(sop_class) is not None


def test_a_sop_class_without_a_table_lacks_nothing() -> None:
    dataset = Dataset()
    assert missing_attributes(dataset) == set()
    dataset.SOPClassUID = "1.2.3"
    assert required_attributes._table(dataset.SOPClassUID) is None
    assert missing_attributes(dataset) == set()


def test_a_highdicom_without_tables_is_no_error(
    chest: FileDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom._standard_utils", None)
    monkeypatch.delattr("highdicom._standard_utils")
    monkeypatch.setattr(
        required_attributes, "_table", cache(required_attributes._table.__wrapped__)
    )
    assert required_attributes._table(chest.SOPClassUID) is None
    assert lost_attributes(Dataset(), chest) == set()


def test_the_check_does_not_parse_the_elements(tmp_path: Path, chest: FileDataset) -> None:
    path = saved(chest, tmp_path / "in.dcm")
    dataset = pydicom.dcmread(path)
    missing_attributes(dataset)
    lost_attributes(dataset, Dataset())
    parsed = [
        element.keyword
        for tag in dataset.keys()
        if not isinstance(element := dataset.get_item(tag), RawDataElement | None)
    ]
    # SOP Class UID names the table; pydicom parses sequences of undefined length as it reads.
    assert set(parsed) <= {"SOPClassUID", "SpecificCharacterSet", "AnatomicRegionSequence"}


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda dataset: dataset.pop("StudyID"), {"StudyID"}),
        (lambda dataset: dataset.add_new("Modality", "CS", None), {"Modality"}),
        (
            lambda dataset: dataset.AnatomicRegionSequence[0].pop("CodeMeaning"),
            {"AnatomicRegionSequence[0].CodeMeaning"},
        ),
        (lambda dataset: dataset.pop("WindowCenter"), set()),
        (lambda dataset: dataset.add_new("StudyID", "SH", None), set()),
    ],
)
def test_an_attribute_that_a_copy_lost_is_found(
    chest: FileDataset, change: Callable[[Dataset], object], lost: set[str]
) -> None:
    chest.StudyID = "7"
    derived = copy.deepcopy(chest)
    change(derived)
    assert {missing.path for missing in lost_attributes(derived, chest)} == lost


def test_an_attribute_that_the_source_lacks_is_not_lost(chest: FileDataset) -> None:
    del chest.Modality
    derived = copy.deepcopy(chest)
    del derived.WindowCenter
    assert lost_attributes(derived, chest) == set()


def test_the_tables_are_not_read_for_a_copy_that_lost_nothing(
    chest: FileDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(required_attributes, "_table", lambda _: pytest.fail("read"))
    derived_from(saved(chest, tmp_path / "in.dcm"), scale=2)


@pytest.mark.parametrize("sop_class", RADIOGRAPHS, ids=lambda uid: uid.keyword)
def test_no_removed_attribute_is_required(sop_class: UID) -> None:
    empty = Dataset()
    empty.SOPClassUID = sop_class
    assert {gap.path for gap in missing_attributes(empty)}.isdisjoint(provenance.INVALIDATED)


@pytest.mark.process
@pytest.mark.parametrize("arguments", [["--help"], ["info"]])
def test_commands_that_derive_nothing_do_not_import_highdicom(arguments: list[str]) -> None:
    program = (
        "import atexit, sys; from cxrsr_cli.commands.app import main;"
        "atexit.register(lambda: print('imported:', {'highdicom', 'torch'} & set(sys.modules)));"
        f"sys.argv = ['cxrsr', *{arguments}]; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.endswith("imported: set()\n")


def test_an_output_that_lost_a_required_attribute_is_not_made(
    chest: FileDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(provenance, "INVALIDATED", ("PatientName", "Modality", "WindowCenter"))
    with pytest.raises(InternalError, match="would lack Modality, PatientName; please report"):
        derived_from(saved(chest, tmp_path / "in.dcm"), scale=2)


# Comparison with dciodvfy

# C.7.3.1 has it of Type 1; dciodvfy makes it 1C where only General Series demands it.
MODALITY_IS_CONDITIONAL_FOR_DCIODVFY = (
    ComputedRadiographyImageStorage,
    SecondaryCaptureImageStorage,
)


def dciodvfy_findings(errors: set[str]) -> set[tuple[str, str]]:
    """Return path and strictest type of the attributes that dciodvfy reports as missing."""
    found: dict[str, str] = {}
    for line in sorted(errors):
        stated = re.match(r"Error - </(\S+)> - (?:Missing|Empty) attribute .*Type ([12]) Req", line)
        if stated:
            path = re.sub(r"\([0-9a-f]{4},[0-9a-f]{4}\)", "", stated[1]).replace("/", ".")
            path = re.sub(r"\[(\d+)\]", lambda number: f"[{int(number[1]) - 1}]", path)
            found[path] = min(stated[2], found.get(path, "2"))
    return set(found.items())


@pytest.mark.parametrize("sop_class", RADIOGRAPHS, ids=lambda uid: uid.keyword)
def test_dciodvfy_finds_the_same_missing_attributes(
    chest: FileDataset, sop_class: UID, dciodvfy: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    """Each required top-level attribute is removed, then emptied."""
    chest.SOPClassUID = chest.file_meta.MediaStorageSOPClassUID = sop_class
    table = required_attributes._table(sop_class)
    assert table is not None
    # dciodvfy chooses the modules by the SOP Class, which therefore stays.
    keywords = [keyword for keyword in table.required if keyword in chest]
    keywords.remove("SOPClassUID")
    assert len(keywords) > 20
    for keyword in keywords:
        absent, empty = copy.deepcopy(chest), copy.deepcopy(chest)
        del absent[keyword]
        empty[keyword].value = None
        for dataset in (absent, empty):
            ours = {(missing.path, missing.type.value) for missing in missing_attributes(dataset)}
            if sop_class in MODALITY_IS_CONDITIONAL_FOR_DCIODVFY:
                ours.discard(("Modality", "1"))
            assert dciodvfy_findings(dciodvfy(saved(dataset, tmp_path / "x.dcm"))) == ours, keyword


def test_dciodvfy_finds_the_same_in_real_files(
    shared: Path, dciodvfy: Callable[[Path], set[str]]
) -> None:
    for path in (shared / "dicom" / "chest").glob("*.dcm"):
        ours = {(it.path, it.type.value) for it in missing_attributes(pydicom.dcmread(path))}
        assert dciodvfy_findings(dciodvfy(path)) == ours, path.name


def test_dciodvfy_finds_the_same_in_a_sequence_item(
    chest: FileDataset, dciodvfy: Callable[[Path], set[str]], tmp_path: Path
) -> None:
    del chest.AnatomicRegionSequence[0].CodeMeaning
    ours = {(missing.path, missing.type.value) for missing in missing_attributes(chest)}
    assert dciodvfy_findings(dciodvfy(saved(chest, tmp_path / "x.dcm"))) == ours != set()
