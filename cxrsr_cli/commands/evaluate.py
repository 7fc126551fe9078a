"""``cxrsr evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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


def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            "--data", exists=True, help="Folder of grey images or DICOM chests, or a list of them."
        ),
    ],
    scale: Annotated[
        str, typer.Option("--scale", "-s", metavar="2,4,8", help="Factors, parted by commas.")
    ] = "4",
    model: ModelOption = DEFAULT_MODEL,
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            metavar="A,B,...",
            help="bicubic, model (that of --model), or a model's name or path ({scale} in it is "
            "replaced); each with +filtered and +consistent, a model with +ensemble.",
        ),
    ] = ",".join(map(str, DEFAULT)),
    reference: Annotated[
        str, typer.Option("--reference", metavar="METHOD", help="What the others are compared to.")
    ] = str(REFERENCE),
    noise: Annotated[
        str | None,
        typer.Option(
            "--noise", metavar="sp:0.01|gauss:0.01", help="Noise on the low-resolution input."
        ),
    ] = None,
    device: DeviceOption = "auto",
    memory: MemoryOption = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write every image's scores there.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write scores, statistics and costs there.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write all tables there.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page with plots there (needs the extra 'plot')."),
    ] = None,
    failures: Annotated[
        Path | None,
        typer.Option(
            "--failures",
            metavar="DIR",
            file_okay=False,
            help="Write a picture of every method's worst case there (needs the extra 'plot').",
        ),
    ] = None,
    no_progress: ProgressOption = False,
) -> None:
    """Degrade images, restore them by every method and compare with the originals.

    On stored values, a border of SCALE pixels left out; docs/evaluating.md
    defines every metric.
    """
    from cxrsr_cli.evaluation.noise import Noise

    scales = _scales(scale)
    compared = Method.parse(reference)
    chosen = parse_methods(methods, compared)
    added = Noise.parse(noise) if noise else None
    models = {
        factor: {
            method.base: find_model(method.resolve_model(model, factor), factor)
            for method in chosen
            if method.is_model
        }
        for factor in scales
    }
    for path in (csv, json, markdown, html):
        if path and not path.parent.is_dir():
            raise OutputError(f"no folder {path.parent} to write the scores to")

    from cxrsr_cli.evaluation.evaluator import Evaluator
    from cxrsr_cli.evaluation.export import write_csv, write_json, write_text
    from cxrsr_cli.evaluation.html_report import build_page
    from cxrsr_cli.evaluation.plots import check_plotting, write_worst_cases
    from cxrsr_cli.evaluation.tables import format_markdown, format_text
    from cxrsr_cli.evaluation.worst_cases import worst_cases
    from cxrsr_cli.images.image_files import list_image_files

    if html or failures:
        check_plotting()
    paths = list_image_files(data)
    if failures:
        try:
            failures.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {failures}: {error.strerror}") from error
    outcomes, cases = list["EvaluationResult"](), dict[int, list["WorstCase"]]()
    for factor in scales:
        bench = Evaluator.load(
            factor,
            chosen,
            {base: found.path for base, found in models[factor].items()},
            device=device,
            memory=memory,
            noise=added,
        )
        outcome = _run(bench, paths, data, models[factor], compared, show_progress(no_progress))
        typer.echo(format_text(outcome) if not outcomes else f"\n{format_text(outcome)}")
        outcomes.append(outcome)
        if html or failures:
            cases[factor] = worst_cases(outcome, bench, paths)
    if csv:
        write_csv(outcomes, csv)
    if json:
        write_json(outcomes, json)
    if markdown:
        write_text(format_markdown(outcomes), markdown)
    if html:
        write_text(build_page(outcomes, cases), html)
    if failures:
        write_worst_cases(cases, failures)


def _scales(text: str) -> list[int]:
    scales = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not set(scales) <= set(SCALES):
        known = ", ".join(map(str, SCALES))
        raise UsageError(f"scale is {text!r}; it must be some of {known}, parted by commas")
    return list(dict.fromkeys(scales))


def _run(
    bench: "Evaluator",
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
    with tqdm(total=len(paths), unit="image", desc=f"x{bench.scale}", disable=not progress) as bar:
        for scores in bench.evaluate(paths):
            images.append(scores)
            bar.update()
    return EvaluationResult(
        scale=bench.scale,
        methods=bench.methods,
        reference=reference,
        models=models,
        images=images,
        complexities={method: bench.complexity(method) for method in bench.methods},
        data=str(data),
        device=bench.device,
        threads=torch.get_num_threads(),
        noise=bench.noise,
    )
