"""The documents say what the code does."""

import re
from pathlib import Path

import pytest
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary

from cxrsr_cli.derive.geometry import PIXEL_GEOMETRY, PixelGeometryAttribute
from cxrsr_cli.errors import ExitCode
from cxrsr_cli.metrics.metric import Metric
from cxrsr_cli.metrics.registry import METRICS
from tests.conftest import ROOT, Command

UPSCALE = (ROOT / "docs" / "upscale.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", list(ExitCode), ids=lambda code: code.name)
def test_every_exit_code_is_documented(code: ExitCode) -> None:
    assert re.search(rf"^\| {code.value} \|", UPSCALE, re.MULTILINE)


@pytest.mark.parametrize(
    ("command", "page", "least"),
    [
        ("upscale", "upscale.md", 10),
        ("compare", "compare.md", 4),
        ("evaluate", "evaluating.md", 10),
        ("send", "send.md", 10),
        ("serve", "serve.md", 2),
        ("queue list", "serve.md", 2),
        ("queue retry", "serve.md", 1),
        ("queue purge", "serve.md", 2),
    ],
)
def test_every_option_is_documented(cxrsr: Command, command: str, page: str, least: int) -> None:
    shown = cxrsr(*command.split(), "--help").stdout
    options = set(re.findall(r"--[a-z][a-z-]*[a-z]", shown)) - {"--help"}
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert len(options) >= least, "the help is read"
    documented = set(re.findall(r"--[a-z][a-z-]*[a-z]", text))
    assert options - documented == set()


def test_every_command_of_the_queue_is_documented(cxrsr: Command) -> None:
    listed = cxrsr("queue", "--help").stdout.partition("Commands:")[2]
    commands = re.findall(r"^  (\w+) ", listed, re.MULTILINE)
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    assert set(commands) == set(re.findall(r"^cxrsr queue (\w+) ", text, re.MULTILINE))


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_imports_of_the_python_examples_exist(path: Path) -> None:
    """Whole examples run in `test_api`, for `docs/python.md`."""
    for example in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        for line in re.findall(r"^from cxrsr_cli.*", example, re.MULTILINE):
            exec(line, {})  # noqa: S102 - it is from our page


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_every_metric_is_defined(metric: Metric) -> None:
    text = (ROOT / "docs" / "evaluating.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| {metric.title} \|", text, re.MULTILINE)


@pytest.mark.parametrize("line", PIXEL_GEOMETRY, ids=lambda line: line.keyword)
def test_every_rescaled_attribute_is_documented(line: PixelGeometryAttribute) -> None:
    """By its name, or for shutters and collimators by what it counts."""
    text = (ROOT / "docs" / "derived-object.md").read_text(encoding="utf-8")
    kinds = {"Edge": "edges", "Center": "centres", "Vertices": "vertices", "Radius": "radii"}
    words = [word for part, word in kinds.items() if part in line.keyword]
    if "Shutter" in line.keyword or "Collimator" in line.keyword:
        assert words
        assert re.search(rf"shutter and collimator .*{words[0]}", text)
        return
    entries = (*DicomDictionary.values(), *RepeatersDictionary.values())
    (name,) = (entry[2] for entry in entries if entry[4] == line.keyword)
    assert re.search(rf"^\|.*{re.escape(name)}", text, re.MULTILINE)


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/*/*.md")],
    ids=lambda path: path.name,
)
def test_every_link_leads_to_a_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (path.parent / target).exists(), target
