"""Series: text in the source's character set, and a number that no other series has."""

from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset

from cxrsr_cli.derive.provenance import series_number
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.options import SeriesNumberRule
from tests.derive.test_derive import at_scale, derived_from, saved

OURS = "AI super-resolution x4, not for diagnosis"


@pytest.mark.parametrize(
    ("character_set", "text"),
    [
        (None, "Chest pa"),
        ("ISO_IR 192", "\u80f8\u90e8\u6b63\u9762"),
        ("ISO_IR 100", "Thorax \u00e9t\u00e9"),
        ("ISO_IR 126", "\u0398\u03ce\u03c1\u03b1\u03ba\u03b1\u03c2"),
        ("ISO_IR 144", "\u0413\u0440\u0443\u0434\u043d\u0430\u044f"),
        (["", "ISO 2022 IR 87"], "\u80f8\u90e8\u6b63\u9762"),
        (["", "ISO 2022 IR 149"], "\ud749\ubd80"),
        ("GB18030", "\u80f8\u90e8\u6b63\u4f4d"),
        ("GBK", "\u80f8\u90e8\u6b63\u4f4d"),
    ],
    ids=str,
)
def test_text_of_every_character_set_is_kept(
    chest: FileDataset, tmp_path: Path, character_set: str | list[str] | None, text: str
) -> None:
    if character_set:
        chest.SpecificCharacterSet = character_set
    chest.SeriesDescription, chest.DerivationDescription = text, text
    before = pydicom.dcmread(saved(chest, tmp_path / "in.dcm"))
    derived, warnings = derived_from(tmp_path / "in.dcm")
    written = pydicom.dcmread(saved(derived, tmp_path / "out.dcm"))
    assert before.SeriesDescription == text, "the test must have written what it meant"
    assert written.SeriesDescription == f"{text}: {OURS}"
    assert written.DerivationDescription.endswith(f"Earlier: {text}")
    assert warnings == []


def test_a_series_description_that_was_not_ended_in_ascii_is(
    chest: FileDataset, tmp_path: Path
) -> None:
    """Without the escape sequence, our text would be read as kanji."""
    chest.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    chest.SeriesDescription = "\u80f8\u90e8"
    path = saved(chest, tmp_path / "in.dcm")
    content = path.read_bytes()
    at = content.index(b"\x1b(B", content.index(b"\x08\0\x3e\x10"))
    path.write_bytes(content[:at] + b"   " + content[at + 3 :])
    derived, _ = derived_from(path)
    assert derived.SeriesDescription.endswith(OURS)


def test_long_text_is_cut_at_a_character(chest: FileDataset, tmp_path: Path) -> None:
    chest.SpecificCharacterSet = "ISO_IR 192"
    chest.SeriesDescription = "\u80f8" * 60
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"))
    assert derived.SeriesDescription == "\u80f8" * (62 - len(OURS)) + f": {OURS}"


def test_text_that_is_illegal_in_its_character_set_keeps_its_bytes(
    chest: FileDataset, tmp_path: Path
) -> None:
    chest.SeriesDescription = "CHESTpa"
    path = saved(chest, tmp_path / "in.dcm")
    path.write_bytes(path.read_bytes().replace(b"CHESTpa", b"CHEST\xff\xfe"))
    derived, _ = derived_from(path)
    assert f"CHEST\xff\xfe: {OURS}".encode("latin1") in saved(derived, tmp_path / "o").read_bytes()


def test_no_two_series_of_a_study_share_a_number() -> None:
    """Also beside what modalities use, and above the largest that times 100 is legal."""
    numbers = set[int]()
    for stated in (None, 0, 1, 2, 104, 73400000, 73400001, 2147483647, "X", -1):
        source = Dataset()
        source.SOPInstanceUID, source.SeriesInstanceUID = "1.2", f"1.3.{len(numbers)}"
        source.SeriesNumber = stated if stated != "X" else None
        for scale in (2, 4):
            numbers.add(series_number(source, at_scale(scale)))
    assert len(numbers) == 20
    assert all(10**9 <= number < 2**31 for number in numbers)


def beside_its_source() -> DerivationParameters:
    parameters = at_scale(4)
    options = replace(parameters.options, series_number=SeriesNumberRule.SOURCE)
    return replace(parameters, options=options)


@pytest.mark.parametrize(
    ("stated", "number"), [(3, 304), (None, 4), (21474836, 2147483604), (0, 4)]
)
def test_a_site_may_have_numbers_beside_their_source(stated: int | None, number: int) -> None:
    source = Dataset()
    source.SeriesNumber, source.SOPInstanceUID = stated, "1.2"
    assert series_number(source, beside_its_source()) == number


@pytest.mark.parametrize("stated", [21474837, 73400000, -3])
def test_a_number_that_has_no_legal_neighbour_is_made_of_the_uid(stated: int) -> None:
    source = Dataset()
    source.SeriesNumber, source.SOPInstanceUID = stated, "1.2"
    assert series_number(source, beside_its_source()) >= 10**9
