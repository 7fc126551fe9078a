"""A compressed frame that is not what its file says fails alone, in every command."""

import json
import re
import shutil
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.errors import UndecodablePixelDataError
from cxrsr_cli.images.image_files import read_images
from cxrsr_cli.send.transcode import transcode
from cxrsr_cli.verify.verify import verify
from tests.conftest import Command, small_chest

REFUSED = {
    "jpeg_marker_lost": "a frame has no header",
    "jpeg_jfif_version2": "the codec crashed, SIG",
    "jpeg_half_then_eoi": "pixels are missing or have errors",
    "rgb3_j2k": "have 3 components, but Samples per Pixel is 1",
    "rgb3_jls": "have 3 components, but Samples per Pixel is 1",
}
DONE = ("jpeg_alloc16_stored8", "j2k91_reversible", "min_dx_jpll")


@pytest.fixture
def folder(shared: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (*REFUSED, *DONE):
        shutil.copy(shared / "cases" / f"{name}.dcm", folder)
    small_chest().save_as(folder / "a-first.dcm")
    small_chest(1).save_as(folder / "z-last.dcm")
    return folder


@pytest.mark.parametrize("dry_run", [False, True], ids=["run", "dry run"])
def test_the_rest_of_a_folder_is_done(
    cxrsr: Command, folder: Path, tmp_path: Path, tiny_model: Path, dry_run: bool
) -> None:
    outputs, quarantine = tmp_path / "out", tmp_path / "bad"
    done = cxrsr(
        "upscale", folder, outputs, "--scale", 2, "--model", tiny_model, "--log-json",
        "--quarantine", quarantine, "--allow", "body-part", *["--dry-run"] * dry_run,
    )  # fmt: skip
    assert done.returncode == 4
    # Every line is JSON: nothing that a codec wrote is among them.
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    reasons = {Path(line["source"]).stem: line["error"] for line in lines if line.get("error")}
    assert reasons.keys() == REFUSED.keys()
    for name, says in REFUSED.items():
        assert says in reasons[name]["message"]
    if dry_run:
        assert not outputs.exists()
        return
    assert {path.stem for path in outputs.glob("*.dcm")} == {*DONE, "a-first", "z-last"}
    assert {path.stem for path in quarantine.glob("*.dcm")} == REFUSED.keys()


@pytest.mark.process
@pytest.mark.parametrize(("name", "says"), REFUSED.items())
def test_sending_verifying_and_training_refuse_the_file(
    shared: Path, tmp_path: Path, name: str, says: str
) -> None:
    path = shared / "cases" / f"{name}.dcm"
    with pytest.raises(UndecodablePixelDataError, match=re.escape(says)):
        transcode(path, ExplicitVRLittleEndian, tmp_path / "sent.dcm")
    with pytest.raises(UndecodablePixelDataError, match=re.escape(says)):
        read_images(path, 2, frozenset(AcceptanceOverride))
    larger = small_chest(Rows=320, Columns=352)
    larger.PixelData = bytes(320 * 352 * 2)
    larger.save_as(tmp_path / "derived.dcm")
    with pytest.raises(UndecodablePixelDataError, match=re.escape(says)):
        verify(path, tmp_path / "derived.dcm")
    assert not (tmp_path / "sent.dcm").exists()
