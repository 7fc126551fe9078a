"""Images other than chest radiographs that the user allows give correct objects."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from cxrsr_cli.batch.result import Result
from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import UnsupportedImageError
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.networks.resampling import block_mean
from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler

SCALE = 2

Upscale = Callable[..., Result]


@pytest.fixture(scope="module")
def upscale(tiny_model: Path) -> Upscale:
    """Upscale a file with overrides."""
    loaded = Upscaler.load(find_model(str(tiny_model), SCALE))

    def run(source: Path, target: Path, *allowed: AcceptanceOverride) -> Result:
        upscaler = replace(loaded, options=replace(loaded.options, allow=frozenset(allowed)))
        batch = BatchRunner(LocalExecutor(upscaler))
        (result,) = batch.run([Job(source, target)])
        return result

    return run


def affine(dataset: Dataset) -> NDArray[np.float64]:
    """Return the matrix from (column, row) to millimetres of the patient (C.7.6.2.1.1)."""
    matrix = np.zeros((4, 4))
    between_rows, between_columns = map(float, dataset.PixelSpacing)
    orientation = np.array(dataset.ImageOrientationPatient, float)
    matrix[:3, 0] = orientation[:3] * between_columns
    matrix[:3, 1] = orientation[3:] * between_rows
    matrix[:3, 3] = np.array(dataset.ImagePositionPatient, float)
    matrix[3, 3] = 1
    return matrix


def places(dataset: Dataset, larger: int = 1) -> NDArray[np.float64]:
    """Return where in the patient each pixel's centre is, or each block of `larger` pixels'."""
    rows, columns = dataset.Rows // larger, dataset.Columns // larger
    row, column = np.mgrid[:rows, :columns] * larger + (larger - 1) / 2
    homogeneous = np.stack([column, row, np.zeros_like(row), np.ones_like(row)], axis=-1)
    return np.asarray(homogeneous @ affine(dataset).T)


@pytest.mark.parametrize(
    "orientation", [None, ["0.6", "0.8", "0", "0", "0", "-1"]], ids=["as it is", "oblique"]
)
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm"])
def test_the_pixels_of_an_allowed_slice_keep_their_position_in_the_patient(
    upscale: Upscale,
    dciodvfy: Callable[[Path], set[str]],
    tmp_path: Path,
    name: str,
    orientation: list[str] | None,
) -> None:
    """Every old pixel stays where it was in the patient, with the same meaning."""
    source, target = tmp_path / name, tmp_path / "out.dcm"
    old = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    if orientation:
        old.ImageOrientationPatient = orientation
        old.PixelSpacing = ["0.5", "0.75"]
    old.save_as(source)
    refused = upscale(source, target)
    assert isinstance(refused.error, UnsupportedImageError)
    assert "--allow modality" in str(refused.error)
    assert upscale(source, target, AcceptanceOverride.MODALITY).error is None
    new = pydicom.dcmread(target)
    assert np.allclose(places(new, SCALE), places(old), rtol=0, atol=1e-6)
    assert [float(value) * SCALE for value in new.PixelSpacing] == pytest.approx(old.PixelSpacing)
    for keyword in ("RescaleSlope", "RescaleIntercept", "FrameOfReferenceUID", "SliceThickness",
                    "SliceLocation", "ImageOrientationPatient", "Modality", "SOPClassUID",
                    "BitsStored", "PixelRepresentation"):  # fmt: skip
        assert new.get(keyword) == old.get(keyword), keyword
    assert dciodvfy(target) <= dciodvfy(source)
    low, high = (
        torch.from_numpy(decode(read_source(path)).astype(np.float32))[:, None]
        for path in (source, target)
    )
    assert (block_mean(high, SCALE) - low).abs().median() <= 0.5


def test_a_position_without_orientation_is_refused(upscale: Upscale, tmp_path: Path) -> None:
    """The new position of the first pixel is unknown, and a wrong one is worse than none."""
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    del dataset.ImageOrientationPatient
    dataset.save_as(tmp_path / "in.dcm")
    result = upscale(tmp_path / "in.dcm", tmp_path / "out.dcm", AcceptanceOverride.MODALITY)
    assert isinstance(result.error, UnsupportedImageError)
    assert not (tmp_path / "out.dcm").exists()


MAMMOGRAM = {
    "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation,
    "Modality": "MG", "BodyPartExamined": "BREAST", "ImageLaterality": "L",
}  # fmt: skip
FLUOROSCOPY = {"SOPClassUID": XRayRadiofluoroscopicImageStorage, "Modality": "RF",
               "RadiationSetting": "GR", "PixelIntensityRelationship": "LIN"}  # fmt: skip
ANGIOGRAPHY = {**FLUOROSCOPY, "SOPClassUID": XRayAngiographicImageStorage, "Modality": "XA"}
CAPTURE = {"SOPClassUID": SecondaryCaptureImageStorage, "ConversionType": "WSD"}


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        (MAMMOGRAM, {AcceptanceOverride.MODALITY, AcceptanceOverride.BODY_PART}),
        (FLUOROSCOPY, {AcceptanceOverride.MODALITY}),
        (ANGIOGRAPHY, {AcceptanceOverride.MODALITY}),
        ({**CAPTURE, "Modality": "OT"}, {AcceptanceOverride.MODALITY}),
        ({**CAPTURE, "Modality": "CT"}, {AcceptanceOverride.MODALITY}),
        ({**CAPTURE, "Modality": "CR"}, set()),
        ({**CAPTURE, "Modality": "DX"}, set()),
        ({**CAPTURE, "Modality": "RG"}, set()),
    ],
    ids=lambda value: (
        f"{UID(value['SOPClassUID']).name} {value['Modality']}" if isinstance(value, dict) else ""
    ),
)
def test_other_projections_need_exactly_their_overrides(
    upscale: Upscale,
    chest: pydicom.FileDataset,
    dciodvfy: Callable[[Path], set[str]],
    tmp_path: Path,
    changes: dict[str, str],
    needed: set[AcceptanceOverride],
) -> None:
    """Accepted with the overrides that it needs, refused if one of them is missing."""
    source, target = tmp_path / "in.dcm", tmp_path / "out.dcm"
    chest.PixelData = chest.pixel_array[90:130, 60:96].tobytes()
    chest.Rows, chest.Columns = 40, 36
    for keyword, value in changes.items():
        setattr(chest, keyword, value)
    if changes.get("BodyPartExamined"):
        del chest.AnatomicRegionSequence
    chest.file_meta.MediaStorageSOPClassUID = chest.SOPClassUID
    chest.save_as(source)
    for one in needed:
        refused = upscale(source, target, *(set(AcceptanceOverride) - {one}))
        assert isinstance(refused.error, UnsupportedImageError)
        assert f"--allow {one}" in str(refused.error)
    assert upscale(source, target, *needed).error is None
    new = pydicom.dcmread(target)
    assert (new.SOPClassUID, new.Modality) == (changes["SOPClassUID"], changes["Modality"])
    assert (new.Rows, new.Columns) == (80, 72)
    assert dciodvfy(target) <= dciodvfy(source)
