"""DICOM files are written completely or not at all, and never over their source."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from cxrsr_cli.derive.derive import derive
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.dicom.write import check_target, write_dicom
from cxrsr_cli.errors import OutputError
from tests.conftest import EXAMPLE
from tests.derive.test_derive import NOW, at_scale


def test_the_source_is_refused_as_target_under_any_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"")
    (tmp_path / "soft").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source)
    for name in ("source", "soft", "hard"):
        with pytest.raises(OutputError, match="same file"):
            check_target(source, tmp_path / name, overwrite=True)


def test_a_file_that_does_not_read_back_is_not_kept(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(EXAMPLE)
    other = np.array(dataset.pixel_array[None], np.int32)
    other[0, 3, 3] ^= 1
    with pytest.raises(OutputError, match="read back"):
        write_dicom(dataset, other, tmp_path / "out.dcm", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def flip(raw: bytearray, at: int) -> None:
    raw[at] ^= 1


def flip_in_value(raw: bytearray, tag: bytes, at: int) -> None:
    flip(raw, raw.index(tag) + 8 + at)


def cut(raw: bytearray, start: int, stop: int | None) -> None:
    del raw[start:stop]


DAMAGES: dict[str, Callable[[bytearray], None]] = {
    "the last pixels": lambda raw: flip(raw, len(raw) - 20),
    "the end is missing": lambda raw: cut(raw, -1000, None),
    "a byte is missing": lambda raw: cut(raw, 600, 601),
    "all is missing": lambda raw: cut(raw, 0, None),
}
WHERE_TAGS_ARE_SEEN: dict[str, Callable[[bytearray], None]] = {
    "the first pixels": lambda raw: flip_in_value(raw, b"\xe0\x7f\x10\0", 200),
    "SOP Instance UID": lambda raw: flip_in_value(raw, b"\x08\0\x18\0", 10),
    "Rows": lambda raw: flip_in_value(raw, b"\x28\0\x10\0", 0),
    "Samples per Pixel": lambda raw: flip_in_value(raw, b"\x28\0\x02\0", 0),
    "Photometric Interpretation": lambda raw: flip_in_value(raw, b"\x28\0\x04\0", 10),
    "Photometric Interpretation's tag": lambda raw: flip_in_value(raw, b"\x28\0\x04\0", -8),
    "Bits Stored": lambda raw: flip_in_value(raw, b"\x28\0\x01\x01", 0),
}
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless,
            JPEG2000Lossless]  # fmt: skip


@pytest.mark.parametrize(
    ("syntax", "damage"),
    [
        *itertools.product(SYNTAXES, DAMAGES | WHERE_TAGS_ARE_SEEN),
        *itertools.product([DeflatedExplicitVRLittleEndian], DAMAGES),
    ],
    ids=lambda value: value.keyword if isinstance(value, UID) else value,
)
def test_a_file_that_is_damaged_while_writing_is_not_kept(
    tmp_path: Path, syntax: UID, damage: str
) -> None:
    save = pydicom.FileDataset.save_as

    def save_damaged(dataset: pydicom.FileDataset, path: Path, **_: object) -> None:
        save(dataset, path, enforce_file_format=True, overwrite=True)
        raw = bytearray(path.read_bytes())
        (DAMAGES | WHERE_TAGS_ARE_SEEN)[damage](raw)
        path.write_bytes(raw)

    source = read_source(EXAMPLE)
    pixels = decode(source)
    larger = pixels.astype(np.uint16).repeat(2, 1).repeat(2, 2)
    derived, _ = derive(source, pixels, larger, at_scale(2), NOW, agreement="exact")
    with (
        patch.object(pydicom.FileDataset, "save_as", save_damaged),
        pytest.raises(OutputError, match="read back"),
    ):
        write_dicom(derived, larger, tmp_path / "out.dcm", syntax=syntax)
    assert list(tmp_path.iterdir()) == []


def test_the_error_names_a_full_disk(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(EXAMPLE)
    pixels = np.array(dataset.pixel_array[None], np.int32)
    with (
        patch.object(pydicom.FileDataset, "save_as", side_effect=OSError(28, "No space left")),
        pytest.raises(OutputError, match="No space left"),
    ):
        write_dicom(dataset, pixels, tmp_path / "out.dcm", overwrite=False)
    assert list(tmp_path.iterdir()) == []


# Encapsulation (PS3.5 A.4): compressed pixels are legal as Pixel Data of a compressed syntax only


def with_fragments(dataset: Dataset, tag: int = 0x7FE00010) -> None:
    """Add an element that is encapsulated."""
    dataset.add_new(tag, "OB", encapsulate([b"\xff\xd8\xff\xd9"]))
    dataset[tag].is_undefined_length = True


@pytest.mark.parametrize("place", ["in a private sequence", "in a nested icon", "private"])
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, JPEGLSLossless]
)
def test_a_file_with_illegal_compressed_pixels_is_not_kept(
    chest: FileDataset, tmp_path: Path, place: str, syntax: UID
) -> None:
    """Found by a reader that is not the writer's, which reads such files without complaint."""
    pixels = np.array(chest.pixel_array[None], np.int32)
    write_dicom(copy.deepcopy(chest), pixels, tmp_path / "legal.dcm", syntax=syntax)
    block = chest.private_block(0x0029, "TEST", create=True)
    if place == "private":
        block.add_new(1, "OB", b"")
        with_fragments(chest, 0x00291001)
    else:
        block.add_new(1, "SQ", Sequence([Dataset()]))
        item = chest[0x00291001].value[0]
        if place == "in a nested icon":
            item.IconImageSequence = Sequence([Dataset()])
            item = item.IconImageSequence[0]
        with_fragments(item)
    with pytest.raises(OutputError, match="read back"):
        write_dicom(chest, pixels, tmp_path / "out.dcm", syntax=syntax)
    assert not (tmp_path / "out.dcm").exists()
