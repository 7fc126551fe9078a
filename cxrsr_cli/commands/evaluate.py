"""``cxrsr evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrsr_cli.commands.options import (
    DeviceOption,
    MemoryOption,
    ModelOption,
    ProgressOption,
    show_progress,
)
from cxrsr_cli.errors import OutputError, UsageError
from cxrsr_cli.evaluation.methods import DEFAULT, REFERENCE, Method, parse_methods
from cxrsr_cli.networks.config import SCALES
from cxrsr_cli.networks.model_files import DEFAULT_MODEL, ModelFile, find_model

if TYPE_CHECKING:
    from cxrsr_cli.evaluation.evaluator import Evaluator
    from cxrsr_cli.evaluation.result import EvaluationResult
    from cxrsr_cli.evaluation.worst_cases import WorstCase


def _file(option: str, text: str) -> Any:  # noqa: ANN401  as `typer.Option`
    return typer.Option(option, metavar="FILE", help=text)


def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="PATH",
            exists=True,
            help="Folder of grayscale images or DICOM files, or a text file that lists them.",
        ),
    ],
    scale: Annotated[
        str,
        typer.Option("--scale", "-s", metavar="2,4,8", help="Scale factors, separated by commas."),
    ] = "4",
    model: ModelOption = DEFAULT_MODEL,
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            metavar="A,B,...",
            help="Methods, separated by commas: bicubic, model (that of --model), or the name or "
            "path of a model (with {scale} for the factor), each optionally with +impulse-filter, "
            "+consistent and, for models, +ensemble.",
        ),
    ] = ",".join(map(str, DEFAULT)),
    reference: Annotated[
        str,
        typer.Option(
            "--reference", metavar="METHOD", help="Method that the others are compared with."
        ),
    ] = str(REFERENCE),
    noise: Annotated[
        str | None,
        typer.Option(
            "--noise",
            metavar="sp:0.01|gauss:0.01",
            help="Noise to add to the low-resolution input.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    memory: MemoryOption = None,
    csv: Annotated[Path | None, _file("--csv", "Write the scores of every image.")] = None,
    json: Annotated[Path | None, _file("--json", "Write scores, statistics and costs.")] = None,
    markdown: Annotated[Path | None, _file("--markdown", "Write all tables.")] = None,
    html: Annotated[
        Path | None, _file("--html", "Write a page with plots (needs the extra 'plot').")
    ] = None,
    worst_cases: Annotated[
        Path | None,
        typer.Option(
            "--worst-cases",
            metavar="DIR",
            file_okay=False,
            help="Write a picture of every method's worst case (needs the extra 'plot').",
        ),
    ] = None,
    no_progress: ProgressOption = False,
) -> None:
    """Downscale images, upscale them by every method and compare with the originals.

    Metrics are computed on stored values, without a border of SCALE pixels;
    docs/evaluating.md defines them.
    """
    from cxrsr_cli.evaluation.noise import Noise

    scales, reference_method = _parse_scales(scale), Method.parse(reference)
    compared = parse_methods(methods, reference_method)
    added_noise = Noise.parse(noise) if noise else None
    models = {factor: _find_models(compared, model, factor) for factor in scales}
    outputs = _Outputs(csv, json, markdown, html, worst_cases)
    outputs.check()

    from cxrsr_cli.evaluation import worst_cases as worst
    from cxrsr_cli.evaluation.evaluator import Evaluator
    from cxrsr_cli.evaluation.tables import format_text
    from cxrsr_cli.images.image_files import list_image_files

    paths = list_image_files(data)
    outputs.make_folder()
    results, cases = list["EvaluationResult"](), dict[int, list["WorstCase"]]()
    for factor in scales:
        evaluator = Evaluator.load(
            factor,
            compared,
            {base: found.path for base, found in models[factor].items()},
            device=device,
            memory=memory,
            noise=added_noise,
        )
        progress = show_progress(no_progress)
        result = _run(evaluator, paths, data, models[factor], reference_method, progress)
        typer.echo(format_text(result) if not results else f"\n{format_text(result)}")
        results.append(result)
        if outputs.need_worst_cases:
            cases[factor] = worst.worst_cases(result, evaluator, paths)
    outputs.write(results, cases)


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Where to write the results; None for no output of that kind."""

    csv: Path | None
    json: Path | None
    markdown: Path | None
    html: Path | None
    worst_cases: Path | None

    @property
    def need_worst_cases(self) -> bool:
        return bool(self.html or self.worst_cases)

    def check(self) -> None:
        """Check the folders of the files, and the extra 'plot'."""
        for path in (self.csv, self.json, self.markdown, self.html):
            if path and not path.parent.is_dir():
                raise OutputError(f"no folder {path.parent} to write the scores to")
        if self.need_worst_cases:
            from cxrsr_cli.evaluation.plots import check_plotting

            check_plotting()

    def make_folder(self) -> None:
        """Make the folder of the worst cases."""
        if folder := self.worst_cases:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error

    def write(self, results: list["EvaluationResult"], cases: dict[int, list["WorstCase"]]) -> None:
        from cxrsr_cli.evaluation.export import write_csv, write_json, write_text
        from cxrsr_cli.evaluation.html_report import build_page
        from cxrsr_cli.evaluation.plots import write_worst_cases
        from cxrsr_cli.evaluation.tables import format_markdown

        if self.csv:
            write_csv(results, self.csv)
        if self.json:
            write_json(results, self.json)
        if self.markdown:
            write_text(format_markdown(results), self.markdown)
        if self.html:
            write_text(build_page(results, cases), self.html)
        if self.worst_cases:
            write_worst_cases(cases, self.worst_cases)


def _find_models(methods: Sequence[Method], model: str, scale: int) -> dict[str, ModelFile]:
    return {
        method.base: find_model(method.resolve_model(model, scale), scale)
        for method in methods
        if method.is_model
    }


def _parse_scales(text: str) -> list[int]:
    scales = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not set(scales) <= set(SCALES):
        known = ", ".join(map(str, SCALES))
        raise UsageError(f"scale is {text!r}; it must be some of {known}, separated by commas")
    return list(dict.fromkeys(scales))


def _run(
    evaluator: "Evaluator",
    paths: list[Path],
    data: Path,
    models: dict[str, ModelFile],
    reference: Method,
    progress: bool,
) -> "EvaluationResult":
    import torch
    from tqdm import tqdm

    from cxrsr_cli.evaluation.result import EvaluationResult

    images = []
    with tqdm(
        total=len(paths), unit="image", desc=f"x{evaluator.scale}", disable=not progress
    ) as bar:
        for scores in evaluator.evaluate(paths):
            images.append(scores)
            bar.update()
    return EvaluationResult(
        scale=evaluator.scale,
        methods=evaluator.methods,
        reference=reference,
        models=models,
        images=images,
        complexities={method: evaluator.complexity(method) for method in evaluator.methods},
        data=str(data),
        device=evaluator.device,
        threads=torch.get_num_threads(),
        noise=evaluator.noise,
    )
