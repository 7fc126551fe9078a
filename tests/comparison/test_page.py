"""What a page contains, and where it may be written."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cxrsr_cli.comparison.compare import Shown, read_comparison
from cxrsr_cli.comparison.page import build_page, write_page
from cxrsr_cli.comparison.statements import PATIENT_KEYWORDS
from cxrsr_cli.errors import OutputError, UsageError, VerificationError
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import small_chest
from tests.helpers.comparisons import pair

PATIENT: dict[str, Any] = {
    "PatientName": "DOE^JANE", "PatientID": "4711", "PatientBirthDate": "19500102",
    "AccessionNumber": "ACC9", "StudyDescription": "Follow-up of Jane",
    "DerivationDescription": "made by Dr. Roe for Jane", "InstitutionName": "St. Elsewhere",
    "ImageComments": "Jane again", "WindowCenterWidthExplanation": "for Jane",
}  # fmt: skip
NAMES = re.compile(r"DOE|JANE|Jane|4711|19500102|ACC9|Elsewhere|Roe|source\.dcm|2\.25\.1000")


def without_pixels(page: str) -> str:
    """Return a page without its tiles, whose Base64 may spell anything."""
    return re.sub(r'(<script type="application/octet-stream"[^>]*>)[^<]*', r"\1", page)


def test_a_page_names_no_patient_unless_asked_to(tmp_path: Path) -> None:
    shown = pair(tmp_path, **PATIENT)
    assert not NAMES.search(without_pixels("".join(build_page(shown))))
    page = "".join(build_page(shown, with_patient=True))
    stated = [value for keyword, value in PATIENT.items() if keyword in PATIENT_KEYWORDS]
    assert all(value in page for value in [*stated, "source.dcm", "2.25.1000"])


@pytest.mark.parametrize(("stated", "said"), [("YES", "says that there is."), (None, "not say")])
def test_a_page_warns_of_text_in_the_pixels(tmp_path: Path, stated: str | None, said: str) -> None:
    page = "".join(build_page(pair(tmp_path, BurnedInAnnotation=stated)))
    assert "cannot be removed" in page
    assert said in page


def test_only_an_earlier_page_is_replaced(tmp_path: Path) -> None:
    shown, page = pair(tmp_path), tmp_path / "page.html"
    write_page(page, shown)
    write_page(page, shown)
    page.write_text("<!DOCTYPE html>somebody's page")
    for path in (page, shown[0].path):
        before = path.read_bytes()
        with pytest.raises(OutputError, match="not replaced"):
            write_page(path, shown)
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("modes", "expected"),
    [((0o644, 0o644), 0o644), ((0o600, 0o644), 0o600), ((0o644, 0o640), 0o640)],
)
def test_a_page_may_be_read_by_who_may_read_all_its_images(
    tmp_path: Path, modes: tuple[int, int], expected: int
) -> None:
    tmp_path.chmod(0o755)
    shown, page = pair(tmp_path), tmp_path / "page.html"
    shown[1].path.touch()
    for each, mode in zip(shown, modes, strict=True):
        each.path.chmod(mode)
    write_page(page, shown)
    assert page.stat().st_mode & 0o777 == expected


def test_large_outputs_are_reduced_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxrsr_cli.comparison.page.MAX_PIXELS", 4000)
    page = "".join(build_page(pair(tmp_path, (30, 40), scale=4)))
    assert "shown with pixels of 4x4 of its own" in page
    assert page.count('"scale":1.0,"rows":30,"columns":40') == 2


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            {"PixelSpacing": [0.1, 0.2], "ImagerPixelSpacing": [1, 1]},
            [0.1, 0.2, "by Pixel Spacing"],
        ),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.3, 0.3]}, [0.3, 0.3, "at the detector"]),
        (
            {"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": [0.4, 0.5]},
            [0.4, 0.5, "by Nominal Scanned Pixel Spacing"],
        ),
        ({"PixelSpacing": None, "ImagerPixelSpacing": None}, None),
    ],
)
def test_millimetres_are_those_that_the_object_states(
    tmp_path: Path, header: dict[str, Any], expected: list[object] | None
) -> None:
    page = "".join(build_page(pair(tmp_path, **header)))
    assert f'"spacing":{json.dumps(expected, separators=(",", ":"))},' in page


def test_an_output_is_audited_and_names_its_model(tmp_path: Path, upscaler: Upscaler) -> None:
    source, output = tmp_path / "in.dcm", tmp_path / "out.dcm"
    small_chest().save_as(source)
    upscaler.upscale_file(source, output)
    original, shown = read_comparison(source, [output])
    assert (original.scale, shown.scale, shown.model) == (1, 2, upscaler.options.model)
    assert shown.findings
    assert not shown.failures


def test_an_output_that_fails_its_audit_is_shown_with_what_fails(
    tmp_path: Path, upscaler: Upscaler
) -> None:
    source, output = tmp_path / "in.dcm", tmp_path / "out.dcm"
    small_chest().save_as(source)
    upscaler.upscale_file(source, output)
    changed = small_chest(5)
    changed.save_as(source)
    page = "".join(build_page(read_comparison(source, [output])))
    assert 'class="finding">1</button> the mean of each block' in page


def test_an_output_of_another_size_is_refused(tmp_path: Path) -> None:
    for name, rows in (("in.dcm", 24), ("out.dcm", 23)):
        chest = small_chest(Rows=rows)
        chest.PixelData = chest.PixelData[: 2 * rows * 20]
        chest.save_as(tmp_path / name)
    with pytest.raises(VerificationError, match="whole number"):
        read_comparison(tmp_path / "in.dcm", [tmp_path / "out.dcm"])


def test_a_frame_that_is_not_there_is_refused(tmp_path: Path) -> None:
    small_chest().save_as(tmp_path / "in.dcm")
    with pytest.raises(UsageError, match="no frame 2"):
        read_comparison(tmp_path / "in.dcm", [], frame=2)


def test_the_source_comes_first(tmp_path: Path) -> None:
    names = re.findall(r'"name":"([^"]*)"', "".join(build_page(pair(tmp_path))))
    assert "Source" in names
    assert isinstance(pair(tmp_path)[0], Shown)
