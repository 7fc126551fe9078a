"""The scale of each file by the spacing or the size that its output should have."""

from pathlib import Path

import pytest
from PIL import Image

from cxrsr_cli.batch.scale_choice import ImageSize, ScaleChoice, group_by_scale
from cxrsr_cli.errors import (
    CxrsrError,
    NoFittingScaleError,
    OutOfScopeError,
    UnsupportedImageError,
)
from cxrsr_cli.options import Job, UpscaleOptions
from tests.conftest import small_chest


@pytest.mark.parametrize(
    ("spacing", "side", "target_spacing", "max_side", "scale"),
    [
        (0.2, 1000, 0.1, None, 2),
        (0.2, 1000, 0.09, None, 4),
        (0.2, 1000, 0.05, None, 4),
        (0.2, 1000, 0.03, None, 8),
        (0.1999999, 1000, 0.1, None, 2),
        (0.3, 1000, 0.15, None, 2),
        (None, 1000, None, 8000, 8),
        (None, 1000, None, 7999, 4),
        (None, 1000, None, 2000, 2),
        (0.2, 1000, 0.03, 4000, 4),
        (0.2, 1000, 0.1, 8000, 2),
    ],
)
def test_the_smallest_that_reaches_or_the_largest_that_stays_within(
    spacing: float | None,
    side: int,
    target_spacing: float | None,
    max_side: int | None,
    scale: int,
) -> None:
    choice = ScaleChoice(target_spacing, max_side)
    assert choice.choose(ImageSize(side, side - 100, spacing)) == scale


@pytest.mark.parametrize(
    ("spacing", "choice", "error", "says"),
    [
        (0.1, ScaleChoice(0.1), OutOfScopeError, "its pixel spacing is 0.1 mm already"),
        (0.05, ScaleChoice(0.1, 10_000), OutOfScopeError, "0.05 mm already"),
        (None, ScaleChoice(0.1), NoFittingScaleError, "no pixel spacing is stated.*--scale"),
        (0.8, ScaleChoice(0.09), NoFittingScaleError, "x8 makes a pixel spacing of 0.1 mm"),
        (0.2, ScaleChoice(None, 1999), OutOfScopeError, "x2 would make 2000 rows or columns"),
    ],
    ids=str,
)
def test_files_for_which_no_scale_is_right_have_a_reason(
    spacing: float | None, choice: ScaleChoice, error: type[CxrsrError], says: str
) -> None:
    with pytest.raises(error, match=says):
        choice.choose(ImageSize(1000, 900, spacing))


def size_of(path: Path) -> ImageSize:
    return ImageSize.of_file(path, UpscaleOptions(scale=2))


def test_size_and_spacing_are_read_from_dicom_and_pictures(tmp_path: Path) -> None:
    dataset = small_chest(PixelSpacing=[0.143, 0.2], ImagerPixelSpacing=[0.5, 0.5])
    dataset.save_as(tmp_path / "a.dcm")
    assert size_of(tmp_path / "a.dcm") == ImageSize(24, 20, 0.2)
    dataset.PixelSpacing = [0, 0]
    dataset.save_as(tmp_path / "a.dcm")
    assert size_of(tmp_path / "a.dcm") == ImageSize(24, 20, 0.5)
    Image.fromarray(dataset.pixel_array).save(tmp_path / "a.png")
    assert size_of(tmp_path / "a.png") == ImageSize(24, 20, None)


def test_jobs_are_grouped_and_no_job_is_lost(tmp_path: Path) -> None:
    spacings = {"fine": 0.05, "two": 0.2, "four": 0.4, "none": None, "bad": None}
    jobs = [Job(Path(name), tmp_path / name) for name in spacings]

    def size_of(path: Path) -> ImageSize:
        if path.name == "bad":
            raise UnsupportedImageError("damaged")
        return ImageSize(100, 100, spacings[path.name])

    groups = group_by_scale(jobs, ScaleChoice(0.1), size_of)
    named = {scale: [job.source.name for job in group] for scale, group in groups.items()}
    assert named == {2: ["two", "fine", "none", "bad"], 4: ["four"]}
    by_name = {job.source.name: job for group in groups.values() for job in group}
    assert by_name["bad"].error is None, "the run finds its error again"
    assert isinstance(by_name["none"].error, NoFittingScaleError)
    assert isinstance(by_name["fine"].error, OutOfScopeError)
    assert not by_name["fine"].is_named, "it is skipped even if the user named it"
