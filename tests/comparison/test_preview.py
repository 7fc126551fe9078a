"""Pictures beside outputs, and contact sheets."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrsr_cli.comparison.preview import Previews, draw_preview, draw_sheet, preview_path
from cxrsr_cli.errors import OutputError
from cxrsr_cli.images.display import Display
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import Command, small_chest
from tests.helpers.comparisons import pair


@pytest.mark.parametrize(
    ("output", "preview"),
    [
        ("a/x.dcm", "a/x.dcm.preview.png"),
        ("a/x", "a/x.preview.png"),
        ("1.2.840.3", "1.2.840.3.preview.png"),
    ],
)
def test_every_output_of_a_folder_has_a_preview_of_its_own(output: str, preview: str) -> None:
    assert preview_path(Path(output)) == Path(preview)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_source_and_output_have_the_same_window_and_polarity(
    tmp_path: Path, photometric: str
) -> None:
    source, output = pair(tmp_path, (200, 160), scale=4, PhotometricInterpretation=photometric)
    display = Display.from_dataset(source.source.dataset, source.pixels)
    picture = np.asarray(draw_preview(source, output))
    assert picture.dtype == np.uint8
    detail = display.grey(output.pixels, display.presets[0])
    side = min(512 // 4, 160)
    top, left = int((200 - side) * 0.5) * 4, int((160 - side) * 0.3) * 4
    magnified = detail[top : top + side * 4, left : left + side * 4]
    assert np.array_equal(picture[-512 - 16 : -16, -512:], magnified)


def test_only_previews_are_replaced(tmp_path: Path, upscaler: Upscaler) -> None:
    source, output = tmp_path / "in.dcm", tmp_path / "out.dcm"
    small_chest().save_as(source)
    upscaler.upscale_file(source, output)
    previews = Previews(tmp_path)
    previews.add(source, output, is_new=True)
    previews.add(source, output, is_new=True)
    other = tmp_path / "contact-sheet.png"
    Image.new("L", (3, 3)).save(other)
    before = other.read_bytes()
    with pytest.raises(OutputError, match="is not a preview of cxrsr"):
        previews.finish()
    assert other.read_bytes() == before


def test_a_contact_sheet_has_every_output(tmp_path: Path) -> None:
    for index in range(7):
        draw_preview(*pair(tmp_path / "in", scale=2)).save(tmp_path / f"{index}.preview.png")
    sheet = draw_sheet(sorted(tmp_path.glob("*.preview.png")), 1)
    assert sheet.width > 4 * 200
    assert np.asarray(sheet)[-200:].max() > 0


def written_previews(folder: Path, upscaler: Upscaler, modes: list[int]) -> Previews:
    """Make an output and its preview for each mode, which the source has."""
    folder.chmod(0o755)
    source = folder / "in.dcm"
    small_chest().save_as(source)
    previews = Previews(folder)
    for index, mode in enumerate(modes):
        source.chmod(mode)
        output = folder / f"{index}.dcm"
        upscaler.upscale_file(source, output)
        previews.add(source, output, is_new=True)
    return previews


def test_a_sheet_may_be_read_by_who_may_read_all_its_previews(
    tmp_path: Path, upscaler: Upscaler
) -> None:
    previews = written_previews(tmp_path, upscaler, [0o644, 0o600, 0o644])
    assert [path.stat().st_mode & 0o777 for path in previews.written] == [0o644, 0o600, 0o644]
    (sheet,) = previews.finish()
    assert sheet.stat().st_mode & 0o777 == 0o600


def test_a_preview_may_be_read_by_who_may_read_source_and_output(
    tmp_path: Path, upscaler: Upscaler
) -> None:
    previews = written_previews(tmp_path, upscaler, [0o644])
    (tmp_path / "0.dcm").chmod(0o600)
    previews.add(tmp_path / "in.dcm", tmp_path / "0.dcm", is_new=True)
    assert previews.written[-1].stat().st_mode & 0o777 == 0o600


def test_sheets_of_an_earlier_larger_run_are_removed(
    tmp_path: Path, upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxrsr_cli.comparison.preview._SHEET_ROWS", 1)
    monkeypatch.setattr("cxrsr_cli.comparison.preview._SHEET_COLUMNS", 2)
    previews = written_previews(tmp_path, upscaler, [0o644] * 6)
    names = ["contact-sheet.png", "contact-sheet-2.png", "contact-sheet-3.png"]
    assert [path.name for path in previews.finish()] == names
    Image.new("L", (3, 3)).save(tmp_path / "contact-sheet-4.png")
    kept = {"contact-sheet-4.png", "contact-sheet-x.dcm.preview.png"}
    (tmp_path / "contact-sheet-x.dcm.preview.png").write_bytes(previews.written[0].read_bytes())
    del previews.written[3:]
    previews.finish()
    found = {path.name for path in tmp_path.glob("contact-sheet*")}
    assert found == {"contact-sheet.png", "contact-sheet-2.png"} | kept


def test_upscale_writes_previews_and_a_contact_sheet(
    inputs: Path, tmp_path: Path, tiny_model: Path, cxrsr: Command
) -> None:
    target = tmp_path / "out"
    options = ("upscale", "--preview", "--scale", 2, "--model", tiny_model, inputs, target)
    assert cxrsr(*options).returncode == 0
    pictures = sorted(path.name for path in target.glob("*.png"))
    assert pictures == sorted([*(f"{i}.dcm.preview.png" for i in range(6)), "contact-sheet.png"])
    (target / "3.dcm.preview.png").write_text("mine")
    (target / "4.dcm.preview.png").unlink()
    again = cxrsr(*options)
    assert again.returncode == 6
    assert "3.dcm.preview.png exists and is not a preview of cxrsr" in again.stderr
    assert (target / "4.dcm.preview.png").exists()
    assert (target / "3.dcm.preview.png").read_text() == "mine"


def test_compare_writes_a_page_and_says_where(
    tmp_path: Path, upscaler: Upscaler, cxrsr: Command
) -> None:
    source, output, page = (tmp_path / name for name in ("in.dcm", "out.dcm", "page.html"))
    small_chest().save_as(source)
    upscaler.upscale_file(source, output)
    done = cxrsr("compare", source, output, output, "-o", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert page.as_uri() in done.stdout
    small_chest(3).save_as(source)
    failing = cxrsr("compare", source, output, "-o", page)
    assert failing.returncode == 9
    assert "claims of the audit fail" in failing.stderr
