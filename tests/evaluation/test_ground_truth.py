"""Originals are read with their depth, range and polarity."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cxrsr_cli.errors import InputError, NoInputError
from cxrsr_cli.evaluation.evaluator import read_ground_truth
from cxrsr_cli.evaluation.input_kinds import InputKind
from cxrsr_cli.images.image_files import list_image_files
from cxrsr_cli.networks.resampling import downsample
from tests.conftest import small_chest

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("dtype", "maximum"), [(np.uint8, 255), (np.uint16, 65535)])
def test_pictures_have_the_range_of_their_type(
    dtype: type[np.unsignedinteger], maximum: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RANDOM.integers(0, maximum, (21, 18), dtype=dtype, endpoint=True)).save(path)
    original = read_ground_truth(path, 4)
    assert (original.name, original.minimum, original.data_range) == ("a", 0, maximum)
    assert original.values.shape == (1, 1, 20, 16)
    low = InputKind.parse("bicubic").reduce(original, 4)
    assert torch.equal(low, downsample(original.values, 4).round().clamp(0, maximum))


@pytest.mark.parametrize(
    ("bits", "signed", "photometric", "limits"),
    [
        (12, False, "MONOCHROME1", (0, 4095)),
        (16, False, "MONOCHROME2", (0, 65535)),
        (12, True, "MONOCHROME2", (-2048, 2047)),
    ],
)
def test_dicom_is_read_at_full_depth(
    bits: int, signed: bool, photometric: str, limits: tuple[int, int], tmp_path: Path
) -> None:
    low, high = limits
    stored = RANDOM.integers(low, high, (24, 20), endpoint=True)
    small_chest(
        PixelData=stored.astype(np.int16 if signed else np.uint16).tobytes(),
        BitsAllocated=16,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=int(signed),
        PhotometricInterpretation=photometric,
    ).save_as(tmp_path / "1.2.3")
    original = read_ground_truth(tmp_path / "1.2.3", 8)
    assert original.name == "1.2.3"
    assert (original.minimum, original.maximum) == limits
    assert original.inverted == (photometric == "MONOCHROME1")
    assert np.array_equal(original.values[0, 0].numpy(), stored[:24, :16])
    degraded = InputKind.parse("white-100").reduce(original, 2)
    assert (degraded.min().item(), degraded.max().item()) == limits


def test_padding_around_an_image_is_cropped(tmp_path: Path) -> None:
    chest = small_chest()
    chest.add_new("PixelPaddingValue", "US", 255)
    stored = chest.pixel_array.copy()
    stored[:, :5] = 255
    chest.PixelData = stored.tobytes()
    chest.save_as(tmp_path / "a.dcm")
    values = read_ground_truth(tmp_path / "a.dcm", 1).values[0, 0].numpy()
    assert np.array_equal(values[:, 0], stored[:, 5])


def test_the_error_leaves_the_name_of_the_file_to_the_caller(tmp_path: Path) -> None:
    small_chest(BodyPartExamined="HIP").save_as(tmp_path / "a.dcm")
    Image.new("L", (7, 7)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    reasons = {"a.dcm": "the stated body part", "a.png": "smaller than", "b.png": "damaged"}
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=f"^{reason}"):
            read_ground_truth(tmp_path / name, 8)


def test_only_pictures_and_dicom_images_are_listed(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    small_chest().save_as(tmp_path / "below" / "without-suffix")
    Image.new("L", (8, 8)).save(tmp_path / "b.PNG")
    small_chest().save_as(tmp_path / "DICOMDIR")
    for name in ("README.md", "empty", "scores.csv"):
        (tmp_path / name).write_bytes(b"")
    names = [path.name for path in list_image_files(tmp_path)]
    assert names == ["b.PNG", "without-suffix"]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(NoInputError, match=r"no image .* below"):
        list_image_files(tmp_path / "nothing")
