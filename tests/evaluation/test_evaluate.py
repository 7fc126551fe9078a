"""Evaluation computes what it documents, and the shipped models reach their documented gain."""

import csv
import json
import math
import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cxrsr_cli.commands.app import app
from cxrsr_cli.errors import ExitCode, ModelError, UsageError
from cxrsr_cli.evaluation.evaluator import (
    Evaluator,
    ImageScores,
    compute_scores,
    make_low_resolution,
    read_ground_truth,
)
from cxrsr_cli.evaluation.export import SCHEMA, build_report
from cxrsr_cli.evaluation.methods import (
    BICUBIC,
    CONSISTENT_MODEL,
    DEFAULT,
    MODEL,
    REFERENCE,
    Method,
)
from cxrsr_cli.evaluation.noise import Noise
from cxrsr_cli.evaluation.plots import check_plotting
from cxrsr_cli.evaluation.resource_usage import MethodComplexity, ResourceUsage
from cxrsr_cli.evaluation.result import EvaluationResult
from cxrsr_cli.evaluation.tables import fidelity_table, format_markdown, format_text
from cxrsr_cli.evaluation.worst_cases import SIDE, worst_cases
from cxrsr_cli.images.image_files import GrayscaleImage, list_image_files
from cxrsr_cli.inference.data_consistency import project_iteratively
from cxrsr_cli.metrics.metric import Metric
from cxrsr_cli.metrics.psnr_ssim import psnr
from cxrsr_cli.metrics.registry import METRICS
from cxrsr_cli.networks.model_files import ModelFile, bundled_models
from cxrsr_cli.networks.resampling import downsample, upsample
from tests.conftest import EXAMPLE, ROOT, Command, small_chest

MODELS = bundled_models()
CLASSIC = (Method(BICUBIC), REFERENCE)


@dataclass(frozen=True)
class Promise:
    """Lower limits of a shipped model on nih/test; its card has the exact values."""

    mean_gain: float
    reference: Method = REFERENCE
    noise: Noise | None = None


FILTERED = Method(BICUBIC, impulse_filter=True, consistent=True)
PROMISES = {
    "rir-s-x2": Promise(1.6),
    "rir-s-x4": Promise(2.5),
    "rir-s-x8": Promise(1.1),
    "rir-sp-x4": Promise(2.3, FILTERED, Noise.parse("sp:0.01")),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_shipped_models_exceed_the_reference_on_every_image(shared: Path, model: ModelFile) -> None:
    """The reference is range-aware consistent bicubic, with noise that of the filtered image."""
    promise = PROMISES[model.name]
    scale, projected = model.metadata.scale, model.metadata.consistency
    assert projected == (promise.noise is None)
    model_method = Method(MODEL, consistent=projected)
    methods = (promise.reference, model_method)
    evaluator = Evaluator.load(scale, methods, {MODEL: model.path}, device="cpu")
    gains = []
    for path in list_image_files(shared / "cxr" / "nih" / "test"):
        original = read_ground_truth(path, scale)
        low = make_low_resolution(original, scale, promise.noise)
        outputs = {method: output.values for method, output in evaluator.outputs(original, low)}
        reference_psnr, model_psnr = (
            psnr(outputs[method], original.values, peak=255, border=scale) for method in methods
        )
        gains.append(model_psnr - reference_psnr)
        if projected:
            assert (downsample(outputs[model_method], scale) - low).square().mean().sqrt() < 1
    assert len(gains) == 30
    assert min(gains) > 0
    assert sum(gains) / len(gains) >= promise.mean_gain


def test_weights_are_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "models").iterdir()) < 64 << 20


def make_image(side: int = 196, seed: int = 0) -> GrayscaleImage:
    """Make smooth noise of signed 12 bits."""
    noise = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(seed))
    values = (upsample(noise, 4)[..., :side, :side] * 500).round_()
    return GrayscaleImage(f"seed {seed}", values, minimum=-2048, maximum=2047)


def test_bicubic_is_clamped_and_consistent_bicubic_is_projected() -> None:
    original = make_image()
    low = make_low_resolution(original, 2)
    outputs = dict(Evaluator(2, CLASSIC, {}).outputs(original, low))
    bicubic = upsample(low, 2)
    consistent = project_iteratively(bicubic, low, 2, minimum=-2048, maximum=2047)
    assert torch.equal(outputs[CLASSIC[0]].values, bicubic.clamp(-2048, 2047).round())
    assert torch.equal(outputs[CLASSIC[1]].values, consistent.round())


def test_scores_do_not_depend_on_the_smallest_legal_value() -> None:
    original = make_image()
    low, output = make_low_resolution(original, 2), original.values.roll(1, -1)
    expected = compute_scores(output, original, low, 2)
    unsigned = replace(original, values=original.values + 2048, minimum=0, maximum=4095)
    found = compute_scores(output + 2048, unsigned, low + 2048, 2)
    for metric in METRICS:
        assert found[metric.key] == pytest.approx(expected[metric.key], rel=1e-3)


def test_lr_psnr_is_the_range_divided_by_the_rms_to_the_input() -> None:
    original = make_image()
    low = make_low_resolution(original, 2)
    found = compute_scores(original.values + 3, original, low, 2)
    # The input is rounded, which adds a twelfth of a unit squared.
    assert found["inconsistency"] == pytest.approx(math.sqrt(9 + 1 / 12), rel=0.001)
    assert found["lr_psnr"] == pytest.approx(20 * math.log10(4095 / found["inconsistency"]))


def test_the_output_for_monochrome1_is_the_negative_of_that_for_monochrome2() -> None:
    """The network gets bright bones for both."""
    model = next(model for model in MODELS if model.name == "rir-s-x2")
    method = Method("rir-s")
    evaluator = Evaluator.load(2, (method,), {method.base: model.path}, device="cpu")
    pixels = small_chest().pixel_array.astype(np.float32)
    low = torch.from_numpy(pixels)[None, None]

    def upscale(values: torch.Tensor, *, inverted: bool) -> torch.Tensor:
        original = GrayscaleImage("a", upsample(values, 2), 255, inverted=inverted)
        ((_, output),) = evaluator.outputs(original, values)
        return output.values

    plain = upscale(low, inverted=False)
    assert (255 - upscale(255 - low, inverted=True) - plain).abs().max() <= 1
    assert (255 - upscale(255 - low, inverted=False) - plain).abs().max() > 1


def test_an_output_that_is_not_finite_is_an_error(tiny_model: Path) -> None:
    method = Method("tiny", consistent=True)
    evaluator = Evaluator.load(2, (method,), {"tiny": tiny_model}, device="cpu")
    original = make_image(32)
    for parameter in evaluator.predictors["tiny"].network.parameters():
        parameter.data.fill_(math.nan)
    with pytest.raises(ModelError, match="for seed 0 is not finite"):
        list(evaluator.outputs(original, make_low_resolution(original, 2)))


def make_result(values: dict[Method, list[float]]) -> EvaluationResult:
    """Make a result with these PSNRs; the other metrics are equal."""
    others = {
        "ssim": 0.9, "ms_ssim": math.nan, "haarpsi_med": 0.8, "lr_psnr": math.inf,
        "sfrc_flagged": 0.1, "inconsistency": 0.0,
    }  # fmt: skip
    rows = zip(*values.values(), strict=True)
    images = [
        ImageScores(
            f"image {index}",
            1000,
            2000,
            0,
            255,
            {method: {"psnr": psnr} | others for method, psnr in zip(values, row, strict=True)},
            {method: ResourceUsage(4.0 * (index + 1), 1000 * (index + 1)) for method in values},
        )
        for index, row in enumerate(rows)
    ]
    complexities = dict.fromkeys(values, MethodComplexity(7, 8.0))
    return EvaluationResult(2, tuple(values), REFERENCE, {}, images, complexities, "data", "cpu", 1)


THREE = {Method(BICUBIC): [30.0, 31.0, 33.0], REFERENCE: [31.0, 31.5, 32.0]}


def test_the_model_cards_quote_the_columns_of_the_table() -> None:
    header, bicubic, floor = fidelity_table(make_result(THREE)).as_text().splitlines()
    card = (ROOT / "models" / "rir-s-x4.md").read_text(encoding="utf-8")
    (quoted,) = {line for line in card.splitlines() if line.startswith("method  ")}
    assert header.startswith(quoted)
    assert bicubic.split()[:9] == [
        "bicubic", "31.333", "0.9000", "0.000", "-0.167", "0.601", "-0.500", "-1.000", "1/3",
    ]  # fmt: skip
    assert floor.split() == ["bicubic+consistent", "31.500", "0.9000", "0.000"]


def test_the_table_names_another_reference() -> None:
    text = format_text(replace(make_result(THREE), reference=Method(BICUBIC)))
    assert "dB over reference" in text
    assert re.search(r"bicubic\+consistent +31\.500 .* \+0\.167 .* 2/3", text)


def test_costs_are_the_median_time_and_the_largest_memory_of_a_megapixel() -> None:
    cost = make_result(THREE).cost(REFERENCE)
    assert cost.seconds == 4.0
    assert cost.peak_bytes == 1500
    assert cost.complexity == MethodComplexity(7, 8.0)


def test_nan_is_none_in_json_and_a_dash_in_tables() -> None:
    result = make_result(THREE)
    text = json.dumps(build_report([result]), allow_nan=False)
    (outcome,) = json.loads(text)["outcomes"]
    assert outcome["methods"]["bicubic"]["metrics"]["ms_ssim"]["mean"] is None
    assert outcome["images"][0]["scores"]["bicubic"]["lr_psnr"] is None
    assert "nan" not in format_text(result) + format_markdown([result])


def test_a_worst_case_shows_the_worst_part_of_the_worst_image(tmp_path: Path) -> None:
    """The second image has a square of noise, which bicubic cannot reproduce."""
    random = np.random.default_rng(0)
    for index in range(2):
        pixels = np.full((300, 400), 100, dtype=np.uint8)
        if index:
            pixels[200:260, 20:80] = random.integers(0, 255, (60, 60))
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    paths = list_image_files(tmp_path)
    evaluator = Evaluator(2, CLASSIC, {})
    images = list(evaluator.evaluate(paths))
    result = replace(make_result(THREE), images=images)
    (case,) = worst_cases(result, evaluator, paths)
    assert (case.method, case.image) == (Method(BICUBIC), "1")
    assert case.original.shape == (SIDE, SIDE)
    assert 260 - SIDE <= case.top <= 200
    assert 80 - SIDE <= case.left <= 20
    pixels = np.asarray(Image.open(paths[1]))
    rows, columns = slice(case.top, case.top + SIDE), slice(case.left, case.left + SIDE)
    assert np.array_equal(case.original, pixels[rows, columns])
    assert case.difference == pytest.approx(
        images[1].scores[CLASSIC[0]]["psnr"] - images[1].scores[REFERENCE]["psnr"]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with two originals, one of them a DICOM file."""
    below = tmp_path / "images"
    below.mkdir()
    small_chest().save_as(below / "b.dcm")
    Image.fromarray(small_chest(5).pixel_array).save(below / "a.png")
    return below


def test_evaluate_writes_tables_csv_json_and_markdown(
    cxrsr: Command, folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """An untrained model returns its image skip, which is the reference."""
    done = cxrsr(
        "evaluate", "--data", folder, "-s", 2, "-m", tiny_model, "--csv", tmp_path / "scores.csv",
        "--json", tmp_path / "scores.json", "--markdown", tmp_path / "scores.md",
    )  # fmt: skip
    assert done.returncode == ExitCode.OK, done.stderr
    assert "on 2 images" in done.stdout
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[2:6]}
    assert set(rows) == {str(method) for method in DEFAULT}
    reference = float(rows[str(REFERENCE)][0])
    assert reference > float(rows[BICUBIC][0])
    assert float(rows[str(CONSISTENT_MODEL)][0]) == pytest.approx(reference, abs=0.1)

    with (tmp_path / "scores.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {(line["image"], line["method"]) for line in lines} == {
        (image, str(method)) for image in "ab" for method in DEFAULT
    }
    report = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert report["schema"] == SCHEMA
    (outcome,) = report["outcomes"]
    mean = sum(float(line["psnr"]) for line in lines if line["method"] == str(REFERENCE)) / 2
    assert outcome["methods"][str(REFERENCE)]["metrics"]["psnr"]["mean"] == pytest.approx(mean)
    assert f"{mean:.3f}" in (tmp_path / "scores.md").read_text(encoding="utf-8")


def test_the_page_and_the_pictures_show_all_scales_and_methods(
    cxrsr: Command, folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    done = cxrsr(
        "evaluate", "--data", folder, "-s", "2,4", "--methods", "bicubic,rir-s+ensemble+consistent",
        "--noise", "sp:0.01", "--html", tmp_path / "page.html",
        "--worst-cases", tmp_path / "new" / "bad",
    )  # fmt: skip
    assert done.returncode == ExitCode.OK, done.stderr
    assert all(name in done.stdout for name in ("rir-s-x2", "rir-s-x4"))
    assert done.stdout.count("noise sp:0.01 on the input") == 2
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<h2>") == 2
    # For each scale: cost, box plots, and the worst cases of two methods.
    assert page.count("data:image/png;base64,") == 2 * (2 + 2)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert {path.name for path in (tmp_path / "new" / "bad").iterdir()} == {
        f"worst-case-x{scale}-{method}.png"
        for scale in (2, 4)
        for method in ("bicubic", "rir-s+ensemble+consistent")
    }


def test_plots_without_the_extra_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cxrsr_cli.evaluation.plots.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"cxrsr\[plot\]"):
        check_plotting()


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("-s", "3"), ExitCode.USAGE, "scale is '3'"),
        (("-s", "2,"), ExitCode.USAGE, "scale is '2,'"),
        (("--methods", "bicubic+ensemble"), ExitCode.USAGE, "no \\+ensemble"),
        (("--noise", "salt"), ExitCode.USAGE, "noise is 'salt'"),
        (("--methods", "unheard-of"), ExitCode.MODEL, "no model 'unheard-of'"),
        (("--reference", "unheard-of"), ExitCode.MODEL, "no model 'unheard-of'"),
        (("--json", "nowhere/scores.json"), ExitCode.CANNOT_WRITE, "no folder nowhere"),
        (("--worst-cases", f"{EXAMPLE}/bad"), ExitCode.CANNOT_WRITE, "Not a directory"),
    ],
)
def test_illegal_options_are_refused(
    cxrsr: Command, folder: Path, arguments: tuple[str, str], code: ExitCode, reason: str
) -> None:
    done = cxrsr("evaluate", "--data", folder, *arguments)
    assert done.returncode == code
    assert re.search(reason, done.stderr)


def test_a_folder_without_images_is_refused(
    cxrsr: Command, tiny_model: Path, tmp_path: Path
) -> None:
    done = cxrsr("evaluate", "--data", tmp_path, "-s", 2, "-m", tiny_model)
    assert done.returncode == ExitCode.NO_INPUT
    assert re.search("no image .* below", done.stderr)


def test_a_metric_from_outside_the_package_is_in_all_outputs(
    folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One `Metric` in the registry is all that a new metric needs."""
    largest_error = Metric(
        "largest_error",
        "largest error",
        1,
        lambda compared: (compared.image - compared.reference).abs().max().item(),
        larger_is_better=False,
    )
    METRICS.append(largest_error)
    request.addfinalizer(METRICS.pop)
    page = ["--html", str(tmp_path / "page.html")] if find_spec("matplotlib") else []
    done = CliRunner().invoke(app, [
        "evaluate", "--data", str(folder), "-s", "2", "--methods", "bicubic,bicubic+consistent",
        "--json", str(tmp_path / "scores.json"), "--csv", str(tmp_path / "scores.csv"),
        "--markdown", str(tmp_path / "scores.md"), *page,
    ])  # fmt: skip
    assert done.exit_code == ExitCode.OK, done.output
    assert "largest error" in done.output
    (outcome,) = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["outcomes"]
    values = [image["scores"]["bicubic"]["largest_error"] for image in outcome["images"]]
    statistics = outcome["methods"]["bicubic"]["metrics"]["largest_error"]
    assert statistics["mean"] == pytest.approx(sum(values) / 2)
    assert f"{statistics['mean']:.1f}" in done.output
    with (tmp_path / "scores.csv").open(encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["method"] == "bicubic"]
    assert [float(line["largest_error"]) for line in lines] == values
    for path in (tmp_path / "scores.md", *map(Path, page[1:])):
        assert path.read_text(encoding="utf-8").count("largest error") >= 2
