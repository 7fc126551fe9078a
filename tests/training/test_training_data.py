"""Sources of training images, skipped files, and the check of patients."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pydicom.uid import XRayRadiofluoroscopicImageStorage
from skimage.io import imsave

from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.errors import ConfigError, InputError, NoInputError
from cxrsr_cli.images.image_files import list_image_files, read_images
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.training.config import load_train_config
from cxrsr_cli.training.training_data import (
    PatientSplit,
    check_no_patient_overlap,
    load_training_data,
    make_pair,
)
from tests.conftest import Command, small_chest

NIH = r"^(\d{8})_"


def picture(path: Path, side: int = 40) -> Path:
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (side, side)).astype(np.uint8)
    imsave(path, pixels, check_contrast=False)
    return path


def radiograph(path: Path, index: int = 0, **changes: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    small_chest(index, **changes).save_as(path)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a configuration with the folders `train` and `val`."""
    picture(tmp_path / "train" / "00000001_000.png")
    picture(tmp_path / "val" / "00000002_000.png")
    path = tmp_path / "config.yaml"
    plain = {
        "name": "test",
        "architecture": {"scale": 2, "channels": 4, "groups": 1, "blocks": 1},
        "data": {
            "train": str(tmp_path / "train"),
            "val": str(tmp_path / "val"),
            "description": "made up",
        },
        "stages": [{"steps": 1, "batch_size": 1, "patch_size": 8}],
    }
    path.write_text(yaml.safe_dump(plain))
    return path


def test_a_folder_lists_pictures_and_dicom_of_any_name(tmp_path: Path) -> None:
    expected = [
        radiograph(tmp_path / "1.2.840.99"),
        picture(tmp_path / "a.png"),
        radiograph(tmp_path / "b.dcm"),
        picture(tmp_path / "c" / "d.TIF"),
    ]
    (tmp_path / "README.md").write_text("no image" * 100)
    (tmp_path / "empty").touch()
    assert list_image_files(tmp_path) == expected


def test_the_paths_of_a_list_are_relative_to_it_and_keep_their_order(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    listed = tmp_path / "lists" / "train.txt"
    listed.parent.mkdir()
    listed.write_text("# half of them\n\n../images/b.dcm\n  ../images/a.png\n")
    assert [path.name for path in list_image_files(listed)] == ["b.dcm", "a.png"]
    assert list_image_files(listed)[1].exists()


@pytest.mark.parametrize(
    ("text", "error"),
    [(b"a.png\na.png\n", ConfigError), (b"# nothing\n", NoInputError), (b"\xff", ConfigError)],
)
def test_unusable_lists_are_refused(tmp_path: Path, text: bytes, error: type[Exception]) -> None:
    (tmp_path / "list").write_bytes(text)
    with pytest.raises(error):
        list_image_files(tmp_path / "list")


def test_dicom_keeps_its_depth_and_its_range(tmp_path: Path) -> None:
    path = radiograph(tmp_path / "a.dcm")
    (image,) = read_images(path, 8)
    stored = small_chest().pixel_array
    assert small_chest().BitsStored == 12
    assert (image.minimum, image.maximum) == (0, 4095)
    assert image.values.shape == (1, 1, 24, 16)
    assert np.array_equal(image.values[0, 0].numpy(), stored[:, :16])


def test_monochrome1_is_inverted_for_the_network_only(tmp_path: Path) -> None:
    """An image and its negative in MONOCHROME1 make the same pair, except for rounding."""
    dataset = small_chest()
    plain = radiograph(tmp_path / "plain.dcm")
    dataset.PixelData = (4095 - dataset.pixel_array).astype("<u2").tobytes()
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.save_as(tmp_path / "negative.dcm")
    pairs = []
    for path in (plain, tmp_path / "negative.dcm"):
        (image,) = read_images(path, 2)
        pairs.append(make_pair(image, 2, ImageSkip.BICUBIC))
    (one, other) = pairs
    assert (one.high - other.high).abs().max() < 0.01
    assert one.skip is not None
    assert other.skip is not None
    assert (one.skip - other.skip).abs().max() < 0.01
    assert other.minimum < other.maximum
    assert other.maximum == pytest.approx(one.maximum, abs=0.01)


def test_padding_is_cropped_outside_and_filled_inside(tmp_path: Path) -> None:
    dataset = small_chest()
    stored = dataset.pixel_array.clip(1)
    stored[:4] = stored[:, -2:] = stored[10:12, 8:10] = 0
    dataset.PixelData = stored.tobytes()
    dataset.add_new("PixelPaddingValue", "US", 0)
    dataset.save_as(tmp_path / "a.dcm")
    (image,) = read_images(tmp_path / "a.dcm", 2)
    values = image.values[0, 0].numpy()
    assert values.shape == (20, 18)
    assert values.min() >= 1
    assert np.array_equal(values[:6], stored[4:10, :18])


def test_each_frame_is_an_image(tmp_path: Path) -> None:
    dataset = small_chest()
    dataset.SOPClassUID = XRayRadiofluoroscopicImageStorage
    dataset.NumberOfFrames = 3
    dataset.PixelData *= 3
    dataset.save_as(tmp_path / "a.dcm")
    allowed = frozenset([AcceptanceOverride.MODALITY])
    assert len(read_images(tmp_path / "a.dcm", 2, allowed)) == 3


@pytest.mark.parametrize(
    ("keyword", "value", "override"),
    [
        ("BodyPartExamined", "HIP", AcceptanceOverride.BODY_PART),
        ("PresentationIntentType", "FOR PROCESSING", AcceptanceOverride.FOR_PROCESSING),
    ],
)
def test_other_images_need_an_acceptance_override(
    tmp_path: Path, keyword: str, value: str, override: AcceptanceOverride
) -> None:
    path = tmp_path / "a.dcm"
    dataset = small_chest()
    setattr(dataset, keyword, value)
    dataset.save_as(path)
    with pytest.raises(InputError):
        read_images(path, 2)
    assert len(read_images(path, 2, frozenset([override]))) == 1


def test_skipped_files_are_listed_and_the_others_are_used(config: Path, tmp_path: Path) -> None:
    picture(tmp_path / "train" / "tiny.png", 10)
    (tmp_path / "train" / "broken.dcm").write_bytes(b"no DICOM")
    radiograph(tmp_path / "train" / "hip.dcm", BodyPartExamined="HIP")
    radiograph(tmp_path / "train" / "good.dcm", PatientID="GARIBALDI-77")
    summary = load_training_data(load_train_config(config)).summary
    assert {file.name for file in summary.skipped} == {"tiny.png", "broken.dcm", "hip.dcm"}
    assert (summary.train, summary.val) == (2, 1)
    assert "GARIBALDI" not in repr(summary)


def test_no_usable_image_is_an_error(config: Path, tmp_path: Path) -> None:
    (tmp_path / "val" / "00000002_000.png").write_bytes(b"no image")
    with pytest.raises(NoInputError, match=r"val can be used: damaged, or not a PNG file"):
        load_training_data(load_train_config(config))


NAMES = Callable[[Path, str], Path]


def named(folder: Path, name: str) -> Path:
    return picture(folder / f"{name}.png")


def identified(folder: Path, identity: str) -> Path:
    return radiograph(folder / f"{len(list(folder.glob('*')))}.dcm", PatientID=identity)


@pytest.mark.parametrize(
    ("make", "train", "val", "shared"),
    [
        (named, ["00000001_000", "00000002_000"], ["00000003_000"], 0),
        (named, ["00000001_000", "00000002_000"], ["00000002_001", "00000001_007"], 2),
        (identified, ["MARIE", "PIERRE"], ["IRENE"], 0),
        (identified, ["MARIE", "PIERRE"], ["IRENE", "MARIE", "MARIE"], 1),
    ],
)
def test_no_patient_is_in_both_training_and_validation(
    tmp_path: Path, make: NAMES, train: list[str], val: list[str], shared: int
) -> None:
    folders = [tmp_path / "train", tmp_path / "val"]
    for folder, names in zip(folders, (train, val), strict=True):
        folder.mkdir()
        for name in names:
            make(folder, name)
    train_files, val_files = map(list_image_files, folders)
    pattern = NIH if make is named else None
    if not shared:
        assert check_no_patient_overlap(train_files, val_files, pattern) == PatientSplit(
            len(train), len(val), 0
        )
        return
    with pytest.raises(ConfigError, match=f"^data: {shared} patients") as caught:
        check_no_patient_overlap(train_files, val_files, pattern)
    assert not any(name[:8] in str(caught.value) for name in train)


def test_equal_patient_ids_of_two_issuers_are_two_patients(tmp_path: Path) -> None:
    one = radiograph(tmp_path / "a.dcm", PatientID="1", IssuerOfPatientID="NORTH")
    other = radiograph(tmp_path / "b.dcm", PatientID="1", IssuerOfPatientID="SOUTH")
    assert check_no_patient_overlap([one], [other], None) == PatientSplit(1, 1, 0)


def test_files_without_a_patient_id_are_counted_or_refused_if_there_is_a_pattern(
    tmp_path: Path,
) -> None:
    one, other = picture(tmp_path / "a.png"), radiograph(tmp_path / "b.dcm", PatientID="")
    assert check_no_patient_overlap([one], [other], None) == PatientSplit(0, 0, 2)
    with pytest.raises(ConfigError, match="names of 2 files"):
        check_no_patient_overlap([one], [other], NIH)
    with pytest.raises(ConfigError, match="1 files are in both"):
        check_no_patient_overlap([one, other], [tmp_path / "." / "b.dcm"], None)


def test_train_reports_files_and_patients_without_patient_data(
    cxrsr: Command, config: Path, tmp_path: Path
) -> None:
    radiograph(tmp_path / "train" / "a.dcm", PatientID="GARIBALDI-77", PatientName="Anita")
    (tmp_path / "train" / "broken.dcm").write_bytes(b"no DICOM")
    run = ("train", config, "--run-dir", tmp_path / "run", "--device", "cpu")
    done = cxrsr(*run)
    assert done.returncode == 0, done.stderr
    assert "skipped broken.dcm: not a DICOM file" in done.stderr
    assert "images: 2 for training, 1 for validation, 1 files skipped" in done.stderr
    assert "warning: no patient ID for 3 files; the check that no patient is in" in done.stderr
    radiograph(tmp_path / "val" / "b.dcm", PatientID="GARIBALDI-77")
    refused = cxrsr(*run)
    assert refused.returncode == 2
    for text in (done.stderr, refused.stderr, *map(str, (tmp_path / "run").glob("*.json*"))):
        assert "GARIBALDI" not in text
        assert "Anita" not in text


def test_real_dicom_is_read_at_full_depth(shared: Path) -> None:
    (image,) = read_images(shared / "dicom" / "chest" / "RG1_J2KR.dcm", 4)
    assert image.inverted
    assert image.maximum == 2**15 - 1
    assert len(torch.unique(image.values)) > 1000
