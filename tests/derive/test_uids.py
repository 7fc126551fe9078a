"""The same image gives the same UIDs, by whatever route it came; another object gives others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)

from cxrsr_cli.derive.uids import hash_header
from cxrsr_cli.networks.config import Agreement, Precision
from tests.derive.test_derive import PARAMETERS, derived_from, derived_with, saved

KEY = ("1.2", "pixels", "header")


@pytest.mark.parametrize(
    "change",
    [
        {"software": "0.2.0"},
        {"model_sha256": "cd" * 32},
        {"noise_level_sha256": "ef" * 32},
        {"scale": 2},
        {"agreement": Agreement.EXACT},
        {"noise_reduction": 0.0},
        {"self_ensemble": True},
        {"precision": Precision.BF16},
        {"device": "cuda"},
        {"memory": 1 << 30},
        {"keep_private": False},
        {"series_description": "Ours"},
    ],
    ids=str,
)
def test_uids_depend_on_every_parameter(change: dict[str, Any]) -> None:
    own = change.keys() & {"software", "model_sha256", "noise_level_sha256"}
    other = replace(
        PARAMETERS, **change if own else {"options": replace(PARAMETERS.options, **change)}
    )
    assert PARAMETERS.instance_uid(*KEY) == PARAMETERS.instance_uid(*KEY)
    assert PARAMETERS.instance_uid(*KEY) != other.instance_uid(*KEY)
    assert PARAMETERS.series_uid("1", "1.2") != other.series_uid("1", "1.2")


def test_uids_do_not_depend_on_which_gpu_of_a_machine_is_used() -> None:
    one, other = (
        replace(PARAMETERS, options=replace(PARAMETERS.options, device=device))
        for device in ("cuda:0", "cuda:1")
    )
    assert one.instance_uid(*KEY) == other.instance_uid(*KEY)


def test_uids_depend_on_each_part_of_the_source() -> None:
    for part in range(3):
        other = [*KEY[:part], "other", *KEY[part + 1 :]]
        assert PARAMETERS.instance_uid(*KEY) != PARAMETERS.instance_uid(*other)
    assert PARAMETERS.series_uid("1", "1.2") != PARAMETERS.series_uid("1", "1.3")
    assert PARAMETERS.series_uid("1", "1.2") != PARAMETERS.series_uid("2", "1.2")


def test_two_objects_under_one_uid_give_two_outputs(shared: Path) -> None:
    """Of another patient, study, spacing and polarity, with the same pixels."""
    one, other = (derived_from(shared / "cases" / f"uid_{name}.dcm")[0] for name in "ab")
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID != other.SeriesInstanceUID


@pytest.fixture
def rich(chest: FileDataset) -> FileDataset:
    """Add sequences, private ones too, and text of odd length to the example."""
    item = Dataset()
    item.Manufacturer = "somebody"
    chest.ContributingEquipmentSequence = Sequence([item, Dataset()])
    chest.AccessionNumber = "123"
    block = chest.private_block(0x0029, "TEST", create=True)
    nested = Dataset()
    nested.add_new(0x00290010, "LO", "TEST")
    nested.add_new(0x00291002, "DS", "1.5")
    block.add_new(1, "SQ", Sequence([nested]))
    block.add_new(3, "US", 7)
    return chest


def uid_of(chest: FileDataset, path: Path) -> str:
    return str(derived_from(saved(chest, path))[0].SOPInstanceUID)


def _move_text(chest: FileDataset) -> None:
    chest.PatientComments, chest.AccessionNumber = chest.AccessionNumber, ""


CORRECTIONS: dict[str, Callable[[FileDataset], object]] = {
    "patient": lambda ds: setattr(ds, "PatientID", "corrected"),
    "study": lambda ds: setattr(ds, "StudyInstanceUID", "1.2.3"),
    "spacing added": lambda ds: setattr(ds, "PixelSpacing", ["0.1", "0.1"]),
    "polarity": lambda ds: setattr(ds, "PhotometricInterpretation", "MONOCHROME1"),
    "element moved into another": _move_text,
    "item removed": lambda ds: ds.ContributingEquipmentSequence.pop(),
    "item changed": lambda ds: setattr(ds.ContributingEquipmentSequence[0], "Manufacturer", "x"),
    "private element": lambda ds: setattr(ds[0x00291003], "value", 8),
    "private item": lambda ds: setattr(ds[0x00291001].value[0][0x00291002], "value", "2.5"),
}  # fmt: skip


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_corrected_header_gives_another_object(
    rich: FileDataset, tmp_path: Path, correction: str
) -> None:
    before = uid_of(rich, tmp_path / "in.dcm")
    CORRECTIONS[correction](rich)
    assert uid_of(rich, tmp_path / "in.dcm") != before


def _with_undefined_lengths(chest: FileDataset) -> None:
    for tag in ("ContributingEquipmentSequence", 0x00291001):
        chest[tag].is_undefined_length = True
        for item in chest[tag].value:
            item.is_undefined_length_sequence_item = True


def _through_an_archive(chest: FileDataset) -> None:
    chest.RetrieveAETitle = "PACS"
    chest.InstanceAvailability = "ONLINE"
    chest.RetrieveURL = "https://pacs/wado-rs"
    chest.InstanceCoercionDateTime = "20200101"
    chest.OriginalAttributesSequence = Sequence([Dataset()])
    chest.add_new(0x00080000, "UL", 400)
    chest.AccessionNumber = "123 "


ROUTES: dict[str, Callable[[FileDataset], object]] = {
    "undefined lengths": _with_undefined_lengths,
    "through an archive": _through_an_archive,
    "compressed": lambda ds: ds.compress(JPEGLSLossless, generate_instance_uid=False),
}


@pytest.mark.parametrize("route", ROUTES)
def test_another_route_gives_the_same_object(rich: FileDataset, tmp_path: Path, route: str) -> None:
    before = uid_of(rich, tmp_path / "in.dcm")
    ROUTES[route](rich)
    assert uid_of(rich, tmp_path / "in.dcm") == before


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_another_encoding_gives_the_same_object(
    rich: FileDataset, tmp_path: Path, syntax: pydicom.uid.UID
) -> None:
    before = uid_of(rich, tmp_path / "in.dcm")
    if syntax == ExplicitVRBigEndian:
        rich["PixelData"].value = rich.pixel_array.astype(">u2").tobytes()
    rich.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "routed.dcm"
    pydicom.dcmwrite(
        path, rich, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian
    )
    assert str(derived_from(path)[0].SOPInstanceUID) == before
    # And back, where pydicom has made private elements UN.
    routed = pydicom.dcmread(path)
    if syntax == ImplicitVRLittleEndian:
        routed.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        pydicom.dcmwrite(path, routed, implicit_vr=False, little_endian=True)
        assert str(derived_from(path)[0].SOPInstanceUID) == before


def _change_pixels(chest: FileDataset) -> None:
    chest.PixelData = bytes(2) + chest.PixelData[2:]


@pytest.mark.parametrize(
    ("correct", "rerun", "instance", "series"),
    [
        (None, {}, "same", "same"),
        (_through_an_archive, {}, "same", "same"),
        (CORRECTIONS["patient"], {}, "other", "same"),
        (CORRECTIONS["study"], {}, "other", "other"),
        (_change_pixels, {}, "other", "same"),
        (None, {"model_sha256": "cd" * 32}, "other", "other"),
        (None, {"software": "9.9"}, "other", "other"),
    ],
)
def test_a_rerun_makes_what_the_page_says(
    rich: FileDataset,
    tmp_path: Path,
    correct: Callable[[FileDataset], object] | None,
    rerun: dict[str, Any],
    instance: str,
    series: str,
) -> None:
    """The table in docs/derived-object.md, "When model or version changes"."""
    before, _ = derived_with(saved(rich, tmp_path / "in.dcm"), PARAMETERS)
    if correct:
        correct(rich)
    after, _ = derived_with(saved(rich, tmp_path / "in.dcm"), replace(PARAMETERS, **rerun))
    assert (before.SOPInstanceUID == after.SOPInstanceUID) == (instance == "same")
    assert (before.SeriesInstanceUID == after.SeriesInstanceUID) == (series == "same")
    # Told apart by the equipment; both name the source that they were made of.
    assert (before.DeviceUID == after.DeviceUID) == (not rerun)
    (source,) = after.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == rich.SOPInstanceUID


@pytest.mark.parametrize(
    ("vr", "value"), [("US", None), ("US", "text"), ("FD", b"\xff"), ("PN", "\udcff"), ("LO", None)]
)
def test_an_element_that_does_not_hold_what_its_vr_says_has_a_hash(vr: str, value: object) -> None:
    """A parsed element that was damaged."""
    dataset, other = Dataset(), Dataset()
    dataset[0x00100030] = DataElement(
        0x00100030, vr, value, validation_mode=0, already_converted=True
    )
    assert hash_header(dataset) != hash_header(other)
