"""Private elements that would be untrue of the output are dropped; the rest keep their bytes."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from tests.derive.test_derive import derived_from, saved

ROWS = COLUMNS = 256
"""Of the example."""

COPIES, GEOMETRY, POSITIONS = "as large as the image", "size, spacing or geometry", "may be"


def with_private(chest: FileDataset, *elements: tuple[str, object]) -> FileDataset:
    """Add elements (0029,1001), (0029,1002) and so on."""
    block = chest.private_block(0x0029, "ACME", create=True)
    for number, (vr, value) in enumerate(elements, 1):
        block.add_new(number, vr, value)
    return chest


def kept(chest: FileDataset, folder: Path) -> tuple[set[int], list[str]]:
    """Return the numbers of the private elements in the output, and the warnings."""
    derived, warnings = derived_from(saved(chest, folder / "in.dcm"))
    return {tag.element & 0xFF for tag in derived.keys() if tag.group == 0x0029} - {0x10}, warnings


def sequence(vr: str, value: object, *, undefined: bool = False) -> Sequence:
    item = Dataset()
    item.add_new(0x00290010, "LO", "ACME")
    item.add_new(0x00291020, vr, value)
    item.is_undefined_length_sequence_item = undefined
    return Sequence([item])


@pytest.mark.parametrize(
    ("vr", "value", "warning"),
    [
        ("DS", ["{spacing}", "{spacing}"], GEOMETRY),
        ("DS", "{spacing}", GEOMETRY),
        ("UN", b"{spacing}\\{spacing} ", GEOMETRY),
        ("FD", ["{spacing}", "{spacing}"], GEOMETRY),
        ("FL", ["{spacing}"], GEOMETRY),
        ("US", [ROWS, COLUMNS], GEOMETRY),
        ("US", ROWS, GEOMETRY),
        ("UL", ROWS * COLUMNS, GEOMETRY),
        ("UN", np.array([ROWS, COLUMNS], "<u2").tobytes(), GEOMETRY),
        ("SQ", sequence("US", [ROWS, COLUMNS]), GEOMETRY),
        ("OB", bytes(ROWS * COLUMNS), COPIES),
        ("SQ", sequence("OB", bytes(ROWS * COLUMNS)), COPIES),
        ("SQ", sequence("OB", bytes(ROWS * COLUMNS), undefined=True), COPIES),
    ],
)
def test_what_is_untrue_of_the_output_is_dropped(
    chest: FileDataset, tmp_path: Path, vr: str, value: object, warning: str
) -> None:
    spacing = str(chest.ImagerPixelSpacing[0])
    if isinstance(value, bytes):
        value = value.replace(b"{spacing}", spacing.encode())
        value += b" " * (len(value) % 2)
    elif value in ("{spacing}", ["{spacing}"], ["{spacing}"] * 2):
        number = spacing if vr == "DS" else float(spacing)
        value = [number] * (len(value) if isinstance(value, list) else 1)
    found, warnings = kept(with_private(chest, (vr, value), ("LO", "other")), tmp_path)
    assert found == {2}
    assert [warning in text for text in warnings] == [True]


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("LO", "text"),
        ("DS", "1"),
        ("US", [1, 2]),
        ("UN", b"\1\0\2\0"),
        ("OB", bytes(ROWS * COLUMNS - 2)),
        ("SQ", sequence("LO", "text")),
        ("SQ", Sequence()),
        ("LO", ""),
    ],
)
def test_the_rest_keeps_its_bytes(
    chest: FileDataset, tmp_path: Path, vr: str, value: object
) -> None:
    found, warnings = kept(with_private(chest, (vr, value)), tmp_path)
    assert found == {1}
    assert warnings == []


def test_what_may_be_positions_is_kept_with_a_warning(chest: FileDataset, tmp_path: Path) -> None:
    found, warnings = kept(with_private(chest, ("FL", [10.0, 12.0, 30.0, 55.0])), tmp_path)
    assert found == {1}
    assert [POSITIONS in text for text in warnings] == [True]


@pytest.mark.parametrize(
    ("group", "creator", "element"),
    [
        (0x0045, "GEMS_SENO_02", 0x60),  # Breast ROI X
        (0x0029, "SIEMENS MEDCOM OOG", 0x08),
        (0x0027, "GEMS_IMAG_01", 0x60),
    ],
)
def test_what_the_dictionary_of_private_elements_calls_geometry_is_dropped(
    chest: FileDataset, tmp_path: Path, group: int, creator: str, element: int
) -> None:
    chest.private_block(group, creator, create=True).add_new(element, "DS", "7")
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"))
    is_geometry = (group, element) == (0x0045, 0x60)
    assert (Tag(group, 0x1000 + element) in derived) == (not is_geometry)


def test_private_elements_in_public_sequences_are_judged(
    chest: FileDataset, tmp_path: Path
) -> None:
    item = sequence("US", [ROWS, COLUMNS])[0]
    item.CodeMeaning = "kept"
    chest.ViewCodeSequence = Sequence([item])
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"))
    (found,) = derived.ViewCodeSequence
    assert found.CodeMeaning == "kept"
    assert 0x00291020 not in found


@pytest.mark.parametrize(("name", "tag"), [("private_geom", 0x00291011), ("uid_a", 0x00191615)])
def test_spacings_of_real_files_are_dropped(shared: Path, name: str, tag: int) -> None:
    derived, warnings = derived_from(shared / "cases" / f"{name}.dcm")
    assert tag not in derived
    assert any(GEOMETRY in text for text in warnings) == (name == "private_geom")


def test_all_are_dropped_if_asked_for(chest: FileDataset, tmp_path: Path) -> None:
    with_private(chest, ("LO", "text"))
    chest.ViewCodeSequence = sequence("LO", "text")
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"), keep_private=False)
    assert not any(tag.is_private for tag in derived.keys())
    assert len(derived.ViewCodeSequence[0]) == 0
