"""Attributes that are counted in pixels are rescaled to the upscaled image."""

import copy
from decimal import Decimal
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, JPEGLSLossless, RLELossless

from cxrsr_cli.derive.geometry import (
    PIXEL_GEOMETRY,
    PixelGeometryAttribute,
    ScalingRule,
    rescale_geometry,
)
from cxrsr_cli.errors import UnsupportedImageError
from tests.derive.test_derive import derived_from, saved


@given(
    scale=st.sampled_from([2, 4, 8]),
    spacing=st.decimals("0.01", "9.99", places=4),
    columns=st.integers(1, 8000),
)
def test_the_image_keeps_its_size_in_millimetres(
    scale: int, spacing: Decimal, columns: int
) -> None:
    source, derived = Dataset(), Dataset()
    source.Columns, source.ImagerPixelSpacing = columns, [str(spacing), str(spacing)]
    rescale_geometry(derived, source, scale)
    before = float(spacing) * columns
    assert float(derived.ImagerPixelSpacing[0]) * derived.Columns == pytest.approx(before, rel=1e-9)
    assert all(len(str(value)) <= 16 for value in derived.ImagerPixelSpacing)


@pytest.mark.parametrize(
    ("keyword", "before", "after"),
    [
        ("Rows", 100, 400),
        ("ImagerPixelSpacing", ["0.143", "0.150"], ["0.03575", "0.0375"]),
        ("PixelSpacing", ["0.14300000000001", "1"], ["0.03575000000000", "0.25"]),
        ("PixelSpacing", ["1.2", "1.201199999999"], ["0.3", "0.30029999999975"]),
        ("NominalScannedPixelSpacing", ["10", "10"], ["2.5", "2.5"]),
        ("ShutterLeftVerticalEdge", 1, 1),
        ("ShutterRightVerticalEdge", 100, 400),
        ("ShutterUpperHorizontalEdge", 11, 41),
        ("ShutterLowerHorizontalEdge", 90, 360),
        ("CollimatorLeftVerticalEdge", -184, -739),
        ("CenterOfCircularShutter", [10, 20], [38, 78]),
        ("RadiusOfCircularShutter", 50, 200),
        ("VerticesOfThePolygonalShutter", [1, 1, 10, 10, 1, 10], [2, 2, 38, 38, 2, 38]),
        ("ObjectPixelSpacingInCenterOfBeam", [0.5, 1.0], [0.125, 0.25]),
        ("ImagePlanePixelSpacing", ["0.4", "0.4"], ["0.1", "0.1"]),
        ("DetectorBinning", ["2.0", "1"], ["0.5", "0.25"]),
    ],
    ids=str,
)
def test_attributes_are_rescaled_by_their_rule(keyword: str, before: object, after: object) -> None:
    source, derived = Dataset(), Dataset()
    setattr(source, keyword, before)
    assert rescale_geometry(derived, source, 4) == []
    new = derived[keyword].value
    shown = [str(value) for value in new] if isinstance(before, list) else new
    assert shown == ([str(value) for value in after] if isinstance(after, list) else after)


@pytest.mark.parametrize(
    ("sequence", "keyword", "before", "after"),
    [
        ("MaskSubtractionSequence", "MaskSubPixelShift", [0.25, -1.5], [1.0, -6.0]),
        ("BiopsyTargetSequence", "LocalizingCursorPosition", [0.0, 25.5], [0.0, 102.0]),
    ],
)
def test_attributes_in_sequence_items_are_rescaled(
    sequence: str, keyword: str, before: list[float], after: list[float]
) -> None:
    source, item = Dataset(), Dataset()
    setattr(item, keyword, before)
    setattr(source, sequence, Sequence([Dataset(), item]))
    derived = copy.deepcopy(source)
    assert rescale_geometry(derived, source, 4) == []
    empty, rescaled = derived[sequence].value
    assert len(empty) == 0
    assert list(rescaled[keyword].value) == after
    assert list(item[keyword].value) == before


@pytest.mark.parametrize("line", PIXEL_GEOMETRY, ids=lambda line: line.keyword)
def test_every_line_of_the_table_gives_a_value_that_can_be_written(
    line: PixelGeometryAttribute, chest: FileDataset, tmp_path: Path
) -> None:
    """For every VR; a line with the rule REFUSE refuses the object."""
    chest.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    chest.PixelSpacing = ["0.5", "0.5"]
    place = chest
    for sequence in line.within:
        setattr(place, sequence, Sequence([Dataset()]))
        place = place[sequence][0]
    tag, vr, multiplicity = described(line.keyword)
    if vr == "SQ":
        place.add_new(tag, vr, [Dataset()])
    elif line.keyword not in ("Rows", "Columns"):
        one = 1.0 if vr == "FL" else 1
        place.add_new(tag, vr, one if multiplicity == "1" else [one] * max(2, int(multiplicity[0])))
    path = saved(chest, tmp_path / "in.dcm")
    if line.rule is ScalingRule.REFUSE:
        with pytest.raises(UnsupportedImageError, match="not a radiograph"):
            derived_from(path)
        return
    derived, _ = derived_from(path)
    written = pydicom.dcmread(saved(derived, tmp_path / "out.dcm"))
    for sequence in line.within:
        written = written[sequence][0]
    assert vr == written[tag].VR
    assert not written[tag].is_empty


def described(keyword: str) -> tuple[int, str, str]:
    """Give an attribute's tag (in the first of repeating groups), VR and multiplicity."""
    tags = {mask.replace("x", "0"): entry for mask, entry in RepeatersDictionary.items()}
    entries = {int(tag, 16): entry for tag, entry in tags.items()} | DicomDictionary
    ((tag, entry),) = [(tag, entry) for tag, entry in entries.items() if entry[4] == keyword]
    return tag, entry[0], entry[1]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("ShutterLeftVerticalEdge", 2**30), ("CollimatorRightVerticalEdge", -(2**30))],
)
def test_a_value_that_does_not_fit_its_vr_is_refused(keyword: str, value: int) -> None:
    source = Dataset()
    setattr(source, keyword, value)
    with pytest.raises(UnsupportedImageError, match=f"{keyword} is too large"):
        rescale_geometry(Dataset(), source, 4)


def test_a_zero_spacing_is_kept_with_a_warning(chest: FileDataset) -> None:
    source, derived = Dataset(), Dataset()
    source.PixelSpacing = derived.PixelSpacing = ["0.000", "0.000"]
    (warning,) = rescale_geometry(derived, source, 4)
    assert "PixelSpacing is not above zero" in warning
    assert [str(value) for value in derived.PixelSpacing] == ["0.000", "0.000"]


def test_no_spacing_is_invented() -> None:
    derived = Dataset()
    rescale_geometry(derived, Dataset(), 4)
    assert len(derived) == 0


def test_the_centre_of_the_first_pixel_moves_inside_the_first_old_pixel() -> None:
    source, derived = Dataset(), Dataset()
    source.ImagePositionPatient = [-100, -50, 7]
    source.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    source.PixelSpacing = [2, 4]
    rescale_geometry(derived, source, 4)
    assert [float(value) for value in derived.ImagePositionPatient] == [-101.5, -50.75, 7]


# Overlays


def test_overlays_are_upscaled(chest: FileDataset, tmp_path: Path) -> None:
    plane = np.zeros((256, 256), np.uint8)
    plane[10:20, 30:50] = 1
    chest.add_new(0x60000010, "US", 256)
    chest.add_new(0x60000011, "US", 256)
    chest.add_new(0x60000040, "CS", "R")
    chest.add_new(0x60000050, "SS", [1, 3])
    chest.add_new(0x60000100, "US", 1)
    chest.add_new(0x60000102, "US", 0)
    chest.add_new(0x60001301, "IS", 200)
    chest.add_new(0x60003000, "OW", np.packbits(plane, bitorder="little").tobytes())
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"))
    written = pydicom.dcmread(saved(derived, tmp_path / "out.dcm"))
    assert np.array_equal(written.overlay_array(0x6000), plane.repeat(4, 0).repeat(4, 1))
    assert list(written[0x60000050].value) == [1, 9]
    assert written[0x60001301].value == 200 * 16


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless])
def test_overlays_in_unused_bits_get_planes_or_are_dropped(
    chest: FileDataset, tmp_path: Path, syntax: UID | None
) -> None:
    """They are dropped if the codec did not keep the bits."""
    plane = np.zeros((256, 256), np.uint16)
    plane[100:120, 5:9] = 1
    cells = np.frombuffer(chest.PixelData, "<u2").reshape(256, 256) | plane << 13
    chest.PixelData = cells.tobytes()
    for element, vr, value in (
        (0x0010, "US", 256), (0x0011, "US", 256), (0x0040, "CS", "G"), (0x0050, "SS", [1, 1]),
        (0x0100, "US", 16), (0x0102, "US", 13),
    ):  # fmt: skip
        chest.add_new((0x6000, element), vr, value)
    if syntax == JPEGLSLossless:
        chest.PixelData = (cells & 0xFFF).tobytes()
    if syntax:
        chest.compress(syntax, generate_instance_uid=False)
    derived, warnings = derived_from(saved(chest, tmp_path / "in.dcm"))
    written = pydicom.dcmread(saved(derived, tmp_path / "out.dcm"))
    assert written.pixel_array.max() < 4096
    if syntax == JPEGLSLossless:
        assert "overlay" in warnings[0]
        assert all(tag >> 16 != 0x6000 for tag in written.keys())
    else:
        assert np.array_equal(written.overlay_array(0x6000), plane.repeat(4, 0).repeat(4, 1))


def test_empty_overlay_data_are_kept(chest: FileDataset, tmp_path: Path) -> None:
    chest.add_new(0x60000010, "US", 256)
    chest.add_new(0x60000100, "US", 1)
    chest.add_new(0x60003000, "OW", b"")
    derived, _ = derived_from(saved(chest, tmp_path / "in.dcm"))
    assert derived[0x60000010].value == 1024


def test_an_overlay_with_a_too_large_origin_is_dropped(chest: FileDataset, tmp_path: Path) -> None:
    chest.add_new(0x60000050, "SS", [9000, 1])
    derived, warnings = derived_from(saved(chest, tmp_path / "in.dcm"))
    assert warnings == ["OverlayOrigin is too large to be rescaled and was dropped"]
    assert 0x60000050 not in derived


def test_curves_are_dropped_with_a_warning(chest: FileDataset, tmp_path: Path) -> None:
    chest.add_new(0x50000005, "US", 2)
    chest.add_new(0x50003000, "OW", b"\0\0")
    derived, warnings = derived_from(saved(chest, tmp_path / "in.dcm"))
    assert warnings == ["a retired curve was dropped"]
    assert all(tag >> 16 != 0x5000 for tag in derived.keys())
