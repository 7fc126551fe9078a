"""What in a folder is no chest radiograph is skipped, and the run succeeds."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    CTImageStorage,
    DigitalXRayImageStorageForProcessing,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

from cxrsr_cli.batch.ledger import LEDGER_NAME, Ledger
from cxrsr_cli.batch.result import FileStatus, exit_code
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.errors import ExitCode, NotDicomError
from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import COUNT, Command, small_chest
from tests.helpers.batches import jobs, run, statuses


def document(sop_class: UID) -> FileDataset:
    dataset = small_chest(SOPClassUID=sop_class)
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    del dataset.PixelData
    return dataset


def colour(sop_class: str) -> FileDataset:
    return small_chest(
        SOPClassUID=sop_class, SamplesPerPixel=3, PhotometricInterpretation="RGB", Modality="DX"
    )


OTHER_OBJECTS: dict[str, tuple[Callable[[], FileDataset], str]] = {
    "sr": (lambda: document(BasicTextSRStorage), "Basic Text SR Storage has no image"),
    "pr": (lambda: document(GrayscaleSoftcopyPresentationStateStorage), "has no image"),
    "ct": (lambda: small_chest(SOPClassUID=CTImageStorage), "CT Image Storage is not a CR"),
    "localizer": (
        lambda: small_chest(SOPClassUID=CTImageStorage, ImageType=["ORIGINAL", "LOCALIZER"]),
        "CT Image Storage is not a CR",
    ),
    "us": (lambda: colour(UltrasoundImageStorage), "Ultrasound Image Storage is not a CR"),
    "screen": (lambda: colour(SecondaryCaptureImageStorage), "a screen or a document in colour"),
    "hip": (lambda: small_chest(BodyPartExamined="HIP"), "the stated body part 'HIP'"),
    "processing": (
        lambda: small_chest(SOPClassUID=DigitalXRayImageStorageForProcessing),
        "FOR PROCESSING",
    ),
}
OTHER_FILES = {
    "notes.txt": b"The patient of bed 7 was moved.\n",
    "empty.txt": b"",
    "README": "Röntgen\n".encode("latin-1"),
    "report.pdf": b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n\0\0",
    "logo": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(200),
    "viewer.exe": b"MZ\x90\0" + bytes(200),
}


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """Make a folder of files that are no chest radiographs."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, (make, _) in OTHER_OBJECTS.items():
        make().save_as(folder / f"{name}.dcm")
    for name, content in OTHER_FILES.items():
        (folder / name).write_bytes(content)
    ct = small_chest(SOPClassUID=CTImageStorage)
    ct.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ct.save_as(folder / "cut-ct.dcm")
    (folder / "cut-ct.dcm").write_bytes((folder / "cut-ct.dcm").read_bytes()[:700])
    return folder


def test_a_folder_with_other_files_succeeds(
    cxrsr: Command, others: Path, tiny_model: Path, tmp_path: Path
) -> None:
    small_chest().save_as(others / "chest.dcm")
    arguments = (
        "upscale", others, tmp_path / "out", "-s", 2, "-m", tiny_model,
        "--report", tmp_path / "report.json", "--quarantine", tmp_path / "bad",
    )  # fmt: skip
    done = cxrsr(*arguments)
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    count = len(OTHER_OBJECTS) + len(OTHER_FILES) + 1
    assert done.stdout.startswith(f"1 upscaled, 0 failed, {count} skipped")
    assert not (tmp_path / "bad").exists()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counts"]["skipped"] == count
    reasons = {
        Path(file["source"]).stem: file["error"]["message"]
        for file in report["files"]
        if file["status"] == "skipped"
    }
    assert "CT Image Storage" in reasons["cut-ct"]
    for name, (_, says) in OTHER_OBJECTS.items():
        assert says in reasons[name]
    for name in OTHER_FILES:
        assert reasons[Path(name).stem] == "not a DICOM file (no DICM prefix)"
    with_strict = cxrsr(*arguments, "--strict")
    assert with_strict.returncode == ExitCode.SOME_FAILED
    assert with_strict.stderr.count("skipped: ") == count


def test_a_folder_of_nothing_else_has_no_input_and_a_named_file_fails(
    cxrsr: Command, others: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = ("-s", 2, "-m", tiny_model)
    nothing = cxrsr("upscale", *options, others, tmp_path / "out")
    assert nothing.returncode == ExitCode.NO_INPUT
    assert "nothing to do" in nothing.stdout
    named = cxrsr("upscale", *options, others / "hip.dcm", others / "notes.txt", tmp_path / "out")
    assert named.returncode == ExitCode.ALL_FAILED
    assert named.stderr.count("failed: ") == 2


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "empty.dcm": lambda _: b"",
    "text.dcm": lambda _: b"503 Service Unavailable",
    "zeros": lambda _: bytes(1000),
    "noise.dcm": lambda _: bytes(range(256)) * 4,
    "cut.dcm": lambda chest: chest[:700],
    "prefix.dcm": lambda chest: chest[:128] + b"DICN" + chest[132:],
}


def test_damaged_files_of_a_folder_fail(upscaler: Upscaler, inputs: Path) -> None:
    """They may have been chest radiographs."""
    chest = (inputs / "0.dcm").read_bytes()
    for name, spoil in DAMAGED.items():
        (inputs / name).write_bytes(spoil(chest))
    no_pixels = small_chest()
    del no_pixels.PixelData
    no_pixels.save_as(inputs / "no-pixels.dcm")
    small_chest(SamplesPerPixel=3, PhotometricInterpretation="RGB").save_as(inputs / "colour.dcm")
    failed = {
        result.job.source.name
        for result in run(upscaler, inputs)
        if result.status is FileStatus.FAILED
    }
    assert failed == {*DAMAGED, "no-pixels.dcm", "colour.dcm"}


@pytest.mark.parametrize("strict", [False, True])
def test_a_failure_counts_more_than_what_was_skipped(
    upscaler: Upscaler, inputs: Path, strict: bool
) -> None:
    for path in inputs.iterdir():
        path.write_bytes(b"")
    small_chest(BodyPartExamined="HIP").save_as(inputs / "hip.dcm")
    assert exit_code(run(upscaler, inputs), strict=strict) is ExitCode.ALL_FAILED


def test_refusals_are_remembered_until_the_file_or_the_choices_change(
    upscaler: Upscaler, inputs: Path
) -> None:
    small_chest(BodyPartExamined="HIP").save_as(inputs / "0.dcm")
    (inputs / "1.dcm").write_bytes(b"")
    first = run(upscaler, inputs)
    assert statuses(first)[:2] == [FileStatus.SKIPPED, FileStatus.FAILED]

    def read(self: Upscaler, job: Job) -> object:
        raise AssertionError(job.source.name)

    with patch.object(Upscaler, "read", read):
        again = run(upscaler, inputs)
    assert statuses(again) == [*statuses(first)[:2], *[FileStatus.UP_TO_DATE] * (COUNT - 2)]
    assert [str(result.error) for result in again[:2]] == [str(r.error) for r in first[:2]]
    small_chest(1).save_as(inputs / "1.dcm")
    allowed = replace(upscaler.options, allow=frozenset({AcceptanceOverride.BODY_PART}))
    changed = run(replace(upscaler, options=allowed), inputs)
    assert statuses(changed)[:2] == [FileStatus.DONE] * 2


def test_a_refusal_is_not_remembered_for_other_options(upscaler: Upscaler, inputs: Path) -> None:
    """Whether a damaged element can be written depends on them."""
    (inputs / "0.dcm").write_bytes(b"")
    run(upscaler, inputs)
    other = replace(upscaler, options=replace(upscaler.options, keep_private=False))
    with patch.object(Upscaler, "read", side_effect=NotDicomError("it was read again")):
        assert "it was read again" in str(run(other, inputs)[0].error)


def test_a_file_that_was_still_being_written_is_read_again(
    upscaler: Upscaler, inputs: Path
) -> None:
    """It becomes complete after it was judged and before the refusal is recorded."""
    path = inputs / "0.dcm"
    whole = path.read_bytes()
    real = Upscaler.read

    def read(self: Upscaler, job: Job) -> object:
        if job.source == path:
            path.write_bytes(whole)
            raise NotDicomError("truncated")
        return real(self, job)

    path.write_bytes(whole[:-100])
    with patch.object(Upscaler, "read", read):
        assert statuses(run(upscaler, inputs))[0] is FileStatus.FAILED
    assert statuses(run(upscaler, inputs))[0] is FileStatus.DONE


def test_the_ledger_has_the_reason(upscaler: Upscaler, inputs: Path) -> None:
    small_chest(BodyPartExamined="HIP").save_as(inputs / "0.dcm")
    run(upscaler, inputs)
    (job, *_) = jobs(inputs)
    refusal = Ledger(job.target.with_name(LEDGER_NAME)).find_refusal(job.target)
    assert refusal is not None
    assert refusal.kind == "OutOfScopeError"
    assert "HIP" in refusal.reason
