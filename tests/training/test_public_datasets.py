"""Facts about public collections, and the check of a local copy."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cxrsr_cli.errors import ExitCode, NoInputError
from cxrsr_cli.training.public_datasets import (
    LocalCopyCheck,
    PublicDataset,
    check_local_copy,
    find_dataset,
    known_datasets,
)
from tests.conftest import Command
from tests.training.test_training_data import picture, radiograph

NIH = find_dataset("nih-chestxray14")


@pytest.mark.parametrize("dataset", known_datasets(), ids=lambda dataset: dataset.name)
def test_every_collection_has_source_terms_citation_and_images(dataset: PublicDataset) -> None:
    assert re.fullmatch(r"https?://\S+", dataset.source)
    assert re.search(r"(19|20)\d\d|DOI", dataset.citation)
    assert dataset.terms
    assert dataset.images
    if dataset.patient_id_regex:
        assert re.compile(dataset.patient_id_regex).groups == 1


@pytest.mark.parametrize(
    ("name", "file", "patient"),
    [
        ("nih-chestxray14", "00000061_015.png", "00000061"),
        ("kermany-2017", "person1_bacteria_2.jpeg", "person1"),
        ("kermany-2017", "NORMAL2-IM-0027-0001.jpeg", "NORMAL2-IM-0027"),
        ("kermany-2017", "BACTERIA-7422-0001.jpeg", "BACTERIA-7422"),
        ("bimcv-covid19", "sub-S03044_ses-E06137_run-1_bp-chest_vp-ap_cr.png", "S03044"),
        ("montgomery", "MCUCXR_0001_0.png", "0001"),
        ("shenzhen", "CHNCXR_0662_1.png", "0662"),
        ("jsrt", "JPCLN001.png", "JPCLN001"),
    ],
)
def test_the_regular_expressions_find_the_patient(name: str, file: str, patient: str) -> None:
    match = re.search(find_dataset(name).patient_id_regex or "", file)
    assert match
    assert match.group(1) == patient


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Make a copy of three images of two patients."""
    for name in ("00000001_000", "00000001_001", "00000002_000"):
        picture(tmp_path / "images_001" / f"{name}.png")
    return tmp_path


def test_a_complete_copy_has_no_problem(copy: Path) -> None:
    whole = replace(NIH, count=3)
    found = check_local_copy(whole, copy)
    assert found == LocalCopyCheck(3, 0, 3, (), (8,), 0, 2)
    assert found.problems(whole) == []


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            lambda folder: (folder / "images_001" / "00000002_000.png").unlink(),
            "2 images, a complete",
        ),
        (lambda folder: picture(folder / "odd" / "1.png"), "1 images in unexpected folders"),
        (
            lambda folder: (folder / "images_001" / "00000001_000.png").write_bytes(b"-"),
            "a training would skip 1 images of the sample",
        ),
        (
            lambda folder: (folder / "images_001" / "00000001_001.png").rename(
                folder / "images_001" / "a_001.png"
            ),
            "1 names have no patient ID",
        ),
    ],
)
def test_problems_of_a_copy_are_reported(copy: Path, damage: object, problem: str) -> None:
    assert callable(damage)
    damage(copy)
    whole = replace(NIH, count=3)
    assert any(text.startswith(problem) for text in check_local_copy(whole, copy).problems(whole))


def test_another_depth_is_a_problem_if_the_depth_is_known(tmp_path: Path) -> None:
    radiograph(tmp_path / "a.dcm")
    dataset = replace(NIH, count=1, images=("*.dcm",), patient_id_regex=None)
    assert check_local_copy(dataset, tmp_path).problems(dataset) == ["the depth is 12 bits, not 8"]
    of_any = replace(dataset, bits=None)
    assert check_local_copy(of_any, tmp_path).problems(of_any) == []


def test_excluded_files_are_neither_images_nor_unexpected(copy: Path) -> None:
    picture(copy / "images_001" / "00000001_000_mask.png")
    dataset = replace(NIH, count=3, exclude=("**/*_mask.png",))
    assert check_local_copy(dataset, copy).problems(dataset) == []


def test_a_folder_without_matching_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no image of nih"):
        check_local_copy(NIH, tmp_path)


def test_datasets_lists_describes_and_checks_collections(cxrsr: Command, copy: Path) -> None:
    listed = cxrsr("datasets")
    assert listed.returncode == ExitCode.OK
    assert all(dataset.name in listed.stdout for dataset in known_datasets())
    assert "not identified" in listed.stdout
    assert "NIH Clinical Center" in cxrsr("datasets", NIH.name).stdout
    checked = cxrsr("datasets", NIH.name, "--check", copy)
    assert checked.returncode == ExitCode.VERIFICATION
    assert "2 patients, by file name" in checked.stdout
    assert "problem: 3 images, a complete copy has 112120" in checked.stdout
    assert cxrsr("datasets", "imagenet").returncode == ExitCode.USAGE
    assert cxrsr("datasets", "--check", copy).returncode == ExitCode.USAGE


@pytest.mark.process
def test_listing_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from cxrsr_cli.training.public_datasets import known_datasets; "
        "known_datasets(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
