"""Evaluation computes what it documents."""

import csv
import json
import math
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from cxrsr_cli.commands.app import app
from cxrsr_cli.errors import CxrsrError, ExitCode, InputError, ModelError, UsageError
from cxrsr_cli.evaluation.bicubic_consistency import project_on_bicubic
from cxrsr_cli.evaluation.evaluator import (
    Evaluator,
    ImageScores,
    compute_scores,
)
from cxrsr_cli.evaluation.export import SCHEMA, build_report
from cxrsr_cli.evaluation.html_report import build_page
from cxrsr_cli.evaluation.input_kinds import InputKind, parse_inputs
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.plots import check_plotting
from cxrsr_cli.evaluation.protocol import PROTOCOLS, ProtocolName
from cxrsr_cli.evaluation.resource_usage import MethodComplexity, ResourceUsage
from cxrsr_cli.evaluation.result import EvaluationResult
from cxrsr_cli.evaluation.tables import (
    fidelity_table,
    format_markdown,
    format_text,
    kinds_table,
    tables,
)
from cxrsr_cli.evaluation.worst_cases import SIDE, worst_cases
from cxrsr_cli.images.image_files import GrayscaleImage, list_image_files
from cxrsr_cli.images.marks import mark_mask
from cxrsr_cli.inference.agreement import enforce_agreement
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.metrics.metric import Metric
from cxrsr_cli.metrics.psnr_ssim import PSNR_OUTSIDE_MARKS
from cxrsr_cli.metrics.registry import METRICS
from cxrsr_cli.networks.config import Agreement
from cxrsr_cli.networks.model_files import save_network
from cxrsr_cli.networks.resampling import block_mean, upsample
from cxrsr_cli.networks.rir import RirConfig
from tests.conftest import EXAMPLE, ROOT, describe, small_chest

BICUBIC, MODEL = Method("bicubic"), Method("model")
CONSISTENT = replace(BICUBIC, consistent=True)
EXACT = replace(BICUBIC, agreement=Agreement.EXACT)
INPUT = parse_inputs("bicubic")


@pytest.fixture(scope="session")
def wild_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save an untrained network at x2 whose output is not that of its image skip."""
    path = tmp_path_factory.mktemp("model") / "wild-x2.safetensors"
    architecture = RirConfig(scale=2, channels=4, groups=1, blocks=1, noise_share=True)
    network = architecture.build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    save_network(network, describe(architecture), path)
    return path


def make_image(side: int = 196, seed: int = 0) -> GrayscaleImage:
    """Make smooth noise of signed 12 bits."""
    noise = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(seed))
    values = (upsample(noise, 4)[..., :side, :side] * 500).round_()
    return GrayscaleImage(f"seed {seed}", values, minimum=-2048, maximum=2047)


def low_of(original: GrayscaleImage) -> torch.Tensor:
    return original.downsample(2)


def scores_of(
    output: torch.Tensor, original: GrayscaleImage, low: torch.Tensor
) -> dict[str, float]:
    marks = mark_mask(original.values, original.data_range)
    return compute_scores(output, original, low, marks, 2)


def upscale(
    method: Method, models: dict[str, Path], original: GrayscaleImage, low: torch.Tensor
) -> torch.Tensor:
    ((_, output),) = Evaluator.load(2, (method,), models, INPUT, device="cpu").outputs(
        original, low
    )
    return output.values


def test_bicubic_is_clamped_made_exact_or_projected() -> None:
    original = make_image()
    low, limits = low_of(original), {"minimum": -2048.0, "maximum": 2047.0}
    plain = upsample(low, 2)
    expected = {
        BICUBIC: plain.clamp(-2048, 2047),
        EXACT: enforce_agreement(plain, low, 2, bound=0.0, **limits),
        CONSISTENT: project_on_bicubic(plain, low, 2, original.pixel_range),
    }
    for method, output in Evaluator(2, tuple(expected), {}, INPUT).outputs(original, low):
        assert torch.equal(output.values, expected[method].round())


@pytest.mark.parametrize("agreement", list(Agreement))
@pytest.mark.parametrize("reduction", [None, 0.0, 0.5, 1.0])
def test_a_model_is_run_with_the_agreement_and_noise_reduction_of_its_name(
    wild_model: Path, agreement: Agreement, reduction: float | None
) -> None:
    original = make_image(64)
    low = low_of(original)
    predictor = Predictor.load(
        wild_model, device="cpu", agreement=agreement, noise_reduction=reduction
    )
    method = Method("wild", noise_reduction=reduction, agreement=agreement)
    found = upscale(method, {"wild": wild_model}, original, low)
    expected = predictor.predict(low, original.pixel_range).clamp(-2048, 2047).round()
    assert torch.equal(found, expected)
    if agreement is Agreement.EXACT:
        assert (block_mean(found, 2) - low).abs().max() <= 0.5


def test_agreement_noise_reduction_and_ensemble_change_the_output(wild_model: Path) -> None:
    # Where everything looks like noise, agreement to within the noise binds nothing.
    smooth = upsample(torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)), 16)
    original = replace(make_image(64), values=(smooth * 500).round())
    low = InputKind.parse("salt-pepper-0.2").reduce(original, 2)
    names = ["wild", "wild+exact", "wild+none", "wild+noise-reduction-1", "wild+ensemble",
             "wild+consistent", "wild+impulse-filter"]  # fmt: skip
    methods = tuple(map(Method.parse, names))
    evaluator = Evaluator.load(2, methods, {"wild": wild_model}, INPUT, device="cpu")
    assert len(evaluator.predictors) == 4, "networks are shared where they can be"
    outputs = [output.values for _, output in evaluator.outputs(original, low)]
    assert len({tuple(values.flatten().tolist()) for values in outputs}) == len(names)
    costs = [evaluator.complexity(method).macs for method in methods]
    assert costs == [costs[0] * (8 if method.ensemble else 1) for method in methods]


def test_the_projection_of_the_paper_downsamples_to_the_input(wild_model: Path) -> None:
    original = make_image(64)
    low = low_of(original)
    found = upscale(Method("wild", consistent=True), {"wild": wild_model}, original, low)
    assert (replace(original, values=found).downsample(2) - low).abs().mean() < 0.5


def test_scores_do_not_depend_on_the_smallest_legal_value() -> None:
    original = make_image()
    low, output = low_of(original), original.values.roll(1, -1)
    expected = scores_of(output, original, low)
    unsigned = replace(original, values=original.values + 2048, minimum=0, maximum=4095)
    found = scores_of(output + 2048, unsigned, low + 2048)
    for metric in METRICS:
        assert found[metric.key] == pytest.approx(expected[metric.key], rel=1e-3)


def test_lr_psnr_is_the_range_divided_by_the_rms_of_block_means_to_the_input() -> None:
    original = make_image()
    low = block_mean(original.values, 2)
    found = scores_of(original.values + 3, original, low)
    assert found["deviation"] == pytest.approx(3)
    assert found["lr_psnr"] == pytest.approx(20 * math.log10(4095 / 3))


def test_psnr_outside_marks_leaves_out_the_surroundings_of_steep_edges() -> None:
    """A letter's error is seen in PSNR of the whole image only."""
    values = torch.full((1, 1, 100, 100), 100.0)
    values[..., 40:50, 40:50] = 255
    original = GrayscaleImage("a", values, 255)
    output = values + 1
    output[..., 30:60, 30:60] += 50
    found = scores_of(output, original, low_of(original))
    assert found["psnr_outside_marks"] == pytest.approx(20 * math.log10(255))
    assert found["psnr"] < 30
    stripes = torch.zeros(1, 1, 40, 40)
    stripes[..., ::8] = 255
    covered = replace(original, values=stripes)
    assert math.isnan(scores_of(stripes, covered, low_of(covered))["psnr_outside_marks"])


def test_the_output_for_monochrome1_is_the_negative_of_that_for_monochrome2(
    wild_model: Path,
) -> None:
    """The network gets bright bones for both."""
    method = Method("model", agreement=Agreement.EXACT)
    pixels = small_chest().pixel_array.astype(np.float32)
    low = torch.from_numpy(pixels)[None, None]

    def of(values: torch.Tensor, *, inverted: bool) -> torch.Tensor:
        original = GrayscaleImage("a", upsample(values, 2), 4095, inverted=inverted)
        return upscale(method, {"model": wild_model}, original, values)

    plain = of(low, inverted=False)
    assert (4095 - of(4095 - low, inverted=True) - plain).abs().max() <= 1
    assert (4095 - of(4095 - low, inverted=False) - plain).abs().max() > 1


@pytest.mark.parametrize("name", ["tiny", "tiny+none", "tiny+consistent"])
def test_an_output_that_is_not_finite_is_an_error(tiny_model: Path, name: str) -> None:
    method = Method.parse(name)
    evaluator = Evaluator.load(2, (method,), {"tiny": tiny_model}, INPUT, device="cpu")
    original = make_image(32)
    (predictor,) = evaluator.predictors.values()
    for parameter in predictor.network.parameters():
        parameter.data.fill_(math.nan)
    broken = Predictor.from_network(predictor.network, predictor.device)
    evaluator = replace(evaluator, predictors=dict.fromkeys(evaluator.predictors, broken))
    with pytest.raises(ModelError, match="for seed 0 is not finite"):
        list(evaluator.outputs(original, low_of(original)))


def make_result(
    values: dict[Method, list[float]], kinds: str = "bicubic", groups: tuple[str, ...] = ("test",)
) -> EvaluationResult:
    """Make a result with these first figures; the other metrics are equal.

    With several kinds and groups, the values are of a group with a kind after the other.
    """
    others = {
        "psnr": 20.0, "ssim": 0.9, "ms_ssim": math.nan, "haarpsi_med": 0.8, "lr_psnr": math.inf,
        "sfrc_flagged": 0.1, "deviation": 0.0,
    }  # fmt: skip
    rows = list(zip(*values.values(), strict=True))
    cells = [(group, kind) for group in groups for kind in parse_inputs(kinds)]
    size = len(rows) // len(cells)
    images = [
        ImageScores(
            group,
            Path(group) / f"{index % size}",
            f"image {index % size}",
            kind,
            1000,
            2000,
            0,
            255,
            {
                method: {"psnr_outside_marks": value} | others
                for method, value in zip(values, row, strict=True)
            },
            {method: ResourceUsage(4.0 * (index + 1), 1000 * (index + 1)) for method in values},
        )
        for index, (row, (group, kind)) in enumerate(
            zip(rows, (cell for cell in cells for _ in range(size)), strict=True)
        )
    ]
    complexities = dict.fromkeys(values, MethodComplexity(7, 8.0))
    data = {group: f"data/{group}" for group in groups}
    return EvaluationResult(2, tuple(values), BICUBIC, {}, images, complexities, data, "cpu", 1)


TWO = {BICUBIC: [30.0, 31.0, 33.0], MODEL: [31.0, 31.5, 32.94]}


def test_the_first_figure_is_psnr_outside_marks_against_bicubic() -> None:
    header, bicubic, model = fidelity_table(make_result(TWO)).as_text().splitlines()
    assert re.split(r"  +", header) == [
        "method", "PSNR outside marks dB", "PSNR dB", "SSIM", "RMS to input", "dB over bicubic",
        "95% interval", "median", "worst", "worse", "p",
    ]  # fmt: skip
    assert bicubic.split() == ["bicubic", "31.333", "20.000", "0.9000", "0.000"]
    assert re.search(r"^model +31.813 .* \+0.480 .* \+0.500 +-0.060 +1/3 ", model)


def test_the_model_cards_quote_the_columns_of_the_tables() -> None:
    """From the left; a card may leave out the last ones."""
    result = make_result({method: values * 2 for method, values in TWO.items()}, "bicubic,white-1")
    titles = [[title for title, _ in table.columns] for table in tables(result)]
    for card in bundled_cards():
        lines = card.read_text(encoding="utf-8").replace("+impulse-filter", "").splitlines()
        headers = [re.split(r"  +", line) for line in lines if line.startswith("method  ")]
        assert headers, card.name
        assert all(any(each[: len(header)] == header for each in titles) for header in headers)


def bundled_cards() -> list[Path]:
    return [path.with_suffix(".md") for path in sorted((ROOT / "models").glob("rir*.safetensors"))]


def test_the_first_figure_of_the_paper_is_that_of_whole_images() -> None:
    result = replace(make_result(TWO), whole_image=True)
    header, bicubic, _ = fidelity_table(result).as_text().splitlines()
    assert header.split()[1:3] == ["PSNR", "dB"]
    assert bicubic.split()[1] == "20.000"


def test_each_kind_of_input_with_each_group_has_a_line() -> None:
    """The counts tell on how many images a method loses more than the tolerance."""
    gains = [1.0, 0.2, 0.0, -0.04, -0.06, 0.1, -3.0, -0.2]
    values = {BICUBIC: [30.0] * 8, MODEL: [30 + gain for gain in gains]}
    result = make_result(values, "bicubic,white-1", ("nih", "hannover"))
    lines = [re.split(r"  +", line) for line in kinds_table(result).as_text().splitlines()]
    assert [line[:4] for line in lines[1:]] == [
        ["model", "bicubic", "nih", "2"],
        ["model", "bicubic", "hannover", "2"],
        ["model", "white-1", "nih", "2"],
        ["model", "white-1", "hannover", "2"],
    ]
    found = {tuple(line[1:3]): [line[5], *line[-3:]] for line in lines[1:]}
    assert found == {
        ("bicubic", "nih"): ["+0.600", "+0.600", "+0.200", "0/2"],
        ("white-1", "nih"): ["-0.020", "-0.020", "-0.040", "0/2"],
        ("bicubic", "hannover"): ["+0.020", "+0.020", "-0.060", "1/2"],
        ("white-1", "hannover"): ["-1.600", "-1.600", "-3.000", "2/2"],
    }
    total = result.difference(MODEL, PSNR_OUTSIDE_MARKS)
    assert (total.losses, total.count) == (3, 8)
    assert total.worst == pytest.approx(-3)
    assert result.title == "x2 on 4 images of data/nih, data/hannover, input bicubic, white-1"
    assert "white-1" in format_text(result)
    assert format_markdown([result]).count("| white-1 |") == 2


def test_costs_are_the_median_time_and_the_largest_memory_of_a_megapixel() -> None:
    cost = make_result(TWO).cost(BICUBIC)
    assert cost.seconds == 4.0
    assert cost.peak_bytes == 1500
    assert cost.complexity == MethodComplexity(7, 8.0)


def test_nan_is_none_in_json_and_a_dash_in_tables() -> None:
    result = make_result(TWO)
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
            pixels[200:260, 20:80] = random.integers(80, 120, (60, 60))
        pixels[20:40, 300:320] = 255
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    evaluator = Evaluator(2, (CONSISTENT, BICUBIC), {}, parse_inputs("binned,white-1,bicubic"))
    images = list(evaluator.evaluate({"test": list_image_files(tmp_path)}))
    assert len(images) == 6
    result = replace(make_result(TWO), images=images, methods=evaluator.methods)
    result = replace(result, reference=CONSISTENT)
    (case,) = worst_cases(result, evaluator)
    assert (case.method, case.image, case.input_kind) == (BICUBIC, "1", "bicubic")
    assert case.original.shape == (SIDE, SIDE)
    assert 260 - SIDE <= case.top <= 200
    assert 80 - SIDE <= case.left <= 20
    pixels = np.asarray(Image.open(tmp_path / "1.png"))
    rows, columns = slice(case.top, case.top + SIDE), slice(case.left, case.left + SIDE)
    assert np.array_equal(case.original, pixels[rows, columns])
    (scores,) = (
        image.scores for image in images if (image.name, str(image.input_kind)) == ("1", "bicubic")
    )
    key = PSNR_OUTSIDE_MARKS.key
    assert case.difference == pytest.approx(scores[BICUBIC][key] - scores[CONSISTENT][key])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with two originals, one of them a DICOM file."""
    below = tmp_path / "images"
    below.mkdir()
    small_chest().save_as(below / "b.dcm")
    Image.fromarray(small_chest(5).pixel_array).save(below / "a.png")
    return below


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_evaluate_writes_tables_csv_json_and_markdown(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """An untrained model returns its image skip, in agreement with the input."""
    done = evaluate(
        "--data", folder, "-s", 2, "-m", tiny_model, "--csv", tmp_path / "scores.csv",
        "--json", tmp_path / "scores.json", "--markdown", tmp_path / "scores.md",
    )  # fmt: skip
    assert done.exit_code == ExitCode.OK, done.output
    assert "on 2 images" in done.output
    kinds = PROTOCOLS[ProtocolName.MIXED].inputs.split(",")
    rows = {line.split()[0]: line.split()[1:] for line in done.output.splitlines()[2:4]}
    assert list(rows) == ["bicubic", "model"]
    assert re.findall(r"^model +(\S+) +images +2 ", done.output, re.MULTILINE) == kinds

    with (tmp_path / "scores.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {(line["image"], line["input"], line["method"]) for line in lines} == {
        (image, kind, method) for image in "ab" for kind in kinds for method in rows
    }
    assert {line["group"] for line in lines} == {"images"}
    report = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert report["schema"] == SCHEMA
    (outcome,) = report["outcomes"]
    of_bicubic = [
        float(line["psnr_outside_marks"]) for line in lines if line["method"] == "bicubic"
    ]
    mean = sum(of_bicubic) / len(of_bicubic)
    statistics = outcome["methods"]["bicubic"]["metrics"]["psnr_outside_marks"]
    assert statistics["mean"] == pytest.approx(mean)
    assert [(cell["input"], cell["group"]) for cell in outcome["cells"]] == [
        (kind, "images") for kind in kinds
    ]
    assert outcome["cells"][0]["methods"]["model"]["difference"]["count"] == 2
    assert f"{mean:.3f}" in (tmp_path / "scores.md").read_text(encoding="utf-8")


def test_folders_are_groups_named_by_the_parts_of_their_paths_that_differ(
    folder: Path, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        copytree(folder, tmp_path / "data" / name / "test")
    folders = [tmp_path / "data" / name / "test" for name in ("one", "other")]
    done = evaluate(
        "--data", folders[0], "--data", folders[1], "-s", 2, "--input", "binned,white-1",
        "--methods", "bicubic,bicubic+exact", "--json", tmp_path / "scores.json",
    )  # fmt: skip
    assert done.exit_code == ExitCode.OK, done.output
    (outcome,) = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["outcomes"]
    assert outcome["data"] == dict(zip(("one", "other"), map(str, folders), strict=True))
    assert [(cell["input"], cell["group"]) for cell in outcome["cells"]] == [
        ("binned", "one"), ("binned", "other"), ("white-1", "one"), ("white-1", "other"),
    ]  # fmt: skip


def test_the_protocol_of_the_paper_projects_whole_images_of_bicubic_input(
    folder: Path, tiny_model: Path
) -> None:
    """An untrained model returns its image skip, whose projection is the reference."""
    done = evaluate("--data", folder, "-s", 2, "-m", tiny_model, "--protocol", "paper")
    assert done.exit_code == ExitCode.OK, done.output
    title, header, *lines = done.output.splitlines()[:5]
    assert title.endswith("input bicubic")
    assert header.split()[1:3] == ["PSNR", "dB"]
    assert "dB over bicubic+consistent" in header
    rows = {line.split()[0]: float(line.split()[1]) for line in lines}
    assert list(rows) == ["bicubic", "bicubic+consistent", "model+consistent"]
    assert rows["bicubic"] < rows["bicubic+consistent"]
    assert rows["model+consistent"] == pytest.approx(rows["bicubic+consistent"], abs=0.1)


def test_a_bad_file_is_named_and_the_others_are_evaluated(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_bytes(b"no picture")
    done = evaluate(
        "--data", folder, "-s", 2, "--methods", "bicubic", "--input", "bicubic",
        "--json", tmp_path / "scores.json",
    )  # fmt: skip
    assert done.exit_code == ExitCode.SOME_FAILED, done.output
    assert f"failed: {folder / 'bad.png'}: damaged" in done.output
    assert "on 2 images" in done.output
    (outcome,) = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["outcomes"]
    (failed,) = outcome["failed"]
    assert failed["path"].endswith("bad.png")
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    done = evaluate(
        "--data", folder, "-s", "2,4", "--methods", "bicubic", "--json", tmp_path / "none.json"
    )
    assert isinstance(done.exception, InputError)
    outcomes = json.loads((tmp_path / "none.json").read_text(encoding="utf-8"))["outcomes"]
    assert [(len(one["failed"]), one["images"]) for one in outcomes] == [(3, []), (3, [])]


def test_a_scale_that_no_image_fits_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Image.new("L", (7, 7)).save(tmp_path / "data" / "a.png")
    done = evaluate(
        "--data", tmp_path / "data", "-s", "8,2", "--methods", "bicubic", "--input", "bicubic",
        "--json", tmp_path / "scores.json", "--csv", tmp_path / "scores.csv",
        "--markdown", tmp_path / "scores.md",
    )  # fmt: skip
    assert done.exit_code == ExitCode.SOME_FAILED, done.output
    assert "can be used at x8" in done.output
    outcomes = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["outcomes"]
    assert [(one["scale"], len(one["failed"]), len(one["images"])) for one in outcomes] == [
        (8, 1, 0), (2, 0, 1),
    ]  # fmt: skip
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8").count("\n2,") == 1
    text = (tmp_path / "scores.md").read_text(encoding="utf-8")
    assert text.index("## x8") < text.index("can be used at x8") < text.index("## x2")
    nothing = replace(make_result(TWO), images=[])
    assert "no image of data/test can be used at x2" in build_page([nothing], {2: []})


def test_each_scale_is_written_as_it_ends(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Evaluator.load

    def fail_at_x4(scale: int, *given: Any, **more: Any) -> Evaluator:  # noqa: ANN401 - as `Evaluator.load`
        if scale == 4:
            raise ModelError("damaged")
        return load(scale, *given, **more)

    monkeypatch.setattr(Evaluator, "load", fail_at_x4)
    done = evaluate(
        "--data", folder, "-s", "2,4", "--methods", "bicubic", "--input", "bicubic",
        "--csv", tmp_path / "scores.csv",
    )  # fmt: skip
    assert isinstance(done.exception, ModelError)
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8").count("\n2,") == 2


def test_a_page_of_the_reference_alone_has_no_differences(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.html"
    arguments = ["-s", "2", "--methods", "bicubic", "--input", "bicubic", "--html", page]
    done = evaluate("--data", folder, *arguments)
    assert done.exit_code == ExitCode.OK, done.output
    assert "Paired differences" not in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_and_the_pictures_show_all_scales_and_methods(
    folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    done = evaluate(
        "--data", folder, "-s", "2,4", "--methods", "bicubic,bicubic+exact,bicubic+impulse-filter",
        "--input", "binned,salt-pepper-1", "--html", tmp_path / "page.html",
        "--worst-cases", tmp_path / "new" / "bad",
    )  # fmt: skip
    assert done.exit_code == ExitCode.OK, done.output
    assert done.output.count("input binned, salt-pepper-1") == 2
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<h2>") == 2
    assert page.count("<td>salt-pepper-1</td>") == 2 * 2
    # For each scale: cost, box plots, and the worst cases of two methods.
    assert page.count("data:image/png;base64,") == 2 * (2 + 2)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert {path.name for path in (tmp_path / "new" / "bad").iterdir()} == {
        f"worst-case-x{scale}-bicubic+{suffix}.png"
        for scale in (2, 4)
        for suffix in ("exact", "impulse-filter")
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
        (("--input", "salt"), ExitCode.USAGE, "no kind of input is named 'salt'"),
        (("--data", "FOLDER"), ExitCode.USAGE, "names the same folder twice"),
        (("--methods", "unheard-of"), ExitCode.MODEL, "no model 'unheard-of'"),
        (("--reference", "unheard-of"), ExitCode.MODEL, "no model 'unheard-of'"),
        (("--json", "nowhere/scores.json"), ExitCode.CANNOT_WRITE, "no folder nowhere"),
        (("--csv", "FOLDER"), ExitCode.CANNOT_WRITE, "is a folder"),
        (("--csv", "a.txt", "--json", "a.txt"), ExitCode.CANNOT_WRITE, "the same path"),
        (("--worst-cases", f"{EXAMPLE}/bad"), ExitCode.CANNOT_WRITE, "not a writable folder"),
        (("--data", "EMPTY"), ExitCode.NO_INPUT, "no image .* below"),
    ],
)
def test_illegal_options_are_refused(
    folder: Path, tmp_path: Path, arguments: tuple[str, str], code: ExitCode, reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"FOLDER": folder, "EMPTY": tmp_path / "empty"}
    given = [places.get(argument, argument) for argument in arguments]
    error = evaluate("--data", folder, "--methods", "bicubic", *given).exception
    assert isinstance(error, CxrsrError)
    assert error.exit_code == code
    assert re.search(reason, str(error))


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
    done = evaluate(
        "--data", folder, "-s", 2, "--methods", "bicubic,bicubic+exact", "--input", "bicubic",
        "--json", tmp_path / "scores.json", "--csv", tmp_path / "scores.csv",
        "--markdown", tmp_path / "scores.md", *page,
    )  # fmt: skip
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
