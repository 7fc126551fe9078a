"""A bounded, seeded part of the fuzzing; `command` runs as much as wanted."""

from pathlib import Path

import pytest

from cxrsr_cli.dicom import codec_process
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import EXAMPLE, small_chest
from tests.fuzz.codestreams import fuzz
from tests.fuzz.command import damaged_files, upscale_folder
from tests.fuzz.mutate import check, mutations, small_files
from tests.fuzz.structure import structural_mutations

CASES = 30
REAL_CASES = 10
"""Of each file."""
STRUCTURAL_CASES = 200


@pytest.fixture(scope="module")
def upscaler(tiny_model: Path) -> Upscaler:
    """Load a model, allowing everything, so that cases get far."""
    options = UpscaleOptions(allow=frozenset(AcceptanceOverride))
    return Upscaler.load(find_model(str(tiny_model), 2), options)


def test_mutations_of_the_example_never_cause_an_internal_error(
    upscaler: Upscaler, tmp_path: Path
) -> None:
    ends = {check(upscaler, data, tmp_path) for data in mutations(EXAMPLE.read_bytes(), CASES, 0)}
    assert len(ends) > 2, "the cases must differ in how they end"


def test_mutations_of_real_files_never_cause_an_internal_error(
    upscaler: Upscaler, shared: Path, tmp_path: Path
) -> None:
    for path in small_files([shared / "dicom"]):
        for data in mutations(path.read_bytes(), REAL_CASES, 0):
            check(upscaler, data, tmp_path)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.data
def test_damaged_frames_of_every_syntax_fail_alone(
    upscaler: Upscaler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A codec would end this process on some. No cut image is taken for a whole one."""
    monkeypatch.setattr(codec_process, "_BASE_CPU_SECONDS", 1)
    ends = fuzz(upscaler, tmp_path, 260, 0)
    assert len(ends) > 20, "the cases must differ in how they end"


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.data
def test_a_folder_of_damaged_files_is_done_by_one_run(tiny_model: Path, tmp_path: Path) -> None:
    ends, _ = upscale_folder(list(damaged_files(300, 0)), tmp_path, str(tiny_model))
    assert len({end for _, end in ends}) > 3, "the cases must differ in how they end"


def test_structural_mutations_never_cause_an_internal_error(
    upscaler: Upscaler, tmp_path: Path
) -> None:
    original = tmp_path / "case.dcm"
    small_chest().save_as(original)
    data = original.read_bytes()
    ends = {
        check(upscaler, mutant, tmp_path)
        for mutant in structural_mutations(data, STRUCTURAL_CASES, 0)
    }
    assert {"done", "NotDicomError", "UnsupportedImageError"} <= ends
