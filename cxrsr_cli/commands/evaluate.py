"""``cxrsr evaluate``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrsr_cli.commands.console import print_line
from cxrsr_cli.commands.options import (
    DeviceOption,
    MemoryOption,
    ModelOption,
    ProgressOption,
    show_progress,
)
from cxrsr_cli.errors import ExitCode, InputError, OutputError, UsageError
from cxrsr_cli.evaluation.methods import Method, parse_methods
from cxrsr_cli.evaluation.protocol import PROTOCOLS, ProtocolName
from cxrsr_cli.networks.config import SCALES
from cxrsr_cli.networks.model_files import DEFAULT_MODEL, ModelFile, find_model

if TYPE_CHECKING:
    from cxrsr_cli.evaluation.evaluator import Evaluator, ImageScores
    from cxrsr_cli.evaluation.result import EvaluationResult
    from cxrsr_cli.evaluation.worst_cases import WorstCase


def _file(option: str, text: str) -> Any:  # noqa: ANN401  as `typer.Option`
    return typer.Option(option, metavar="FILE", help=text)


def evaluate(
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            metavar="PATH",
            exists=True,
            help="Folder of grayscale images or DICOM files, or a text file that lists them. Can "
            "be repeated: each is a group, such as a hospital.",
        ),
    ],
    scale: Annotated[
        str,
        typer.Option("--scale", "-s", metavar="2,4,8", help="Scale factors, separated by commas."),
    ] = "4",
    model: ModelOption = DEFAULT_MODEL,
    protocol: Annotated[
        ProtocolName,
        typer.Option(
            "--protocol",
            help="What --input, --methods and --reference are if they are not given, and the "
            "first figure: mixed inputs outside burnt-in marks against bicubic, or bicubic inputs "
            "on whole images against bicubic+consistent, as in the paper.",
        ),
    ] = ProtocolName.MIXED,
    inputs: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="A,B,...",
            help="Kinds of input, separated by commas: bicubic, binned, bilinear, lanczos, "
            "blurred, jpeg-90, white-0.5, quantum-1, grain-1, salt-pepper-1, or all "
            f"[default: {PROTOCOLS[ProtocolName.MIXED].inputs}].",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            metavar="A,B,...",
            help="Methods, separated by commas: bicubic, model (that of --model), or the name or "
            "path of a model (with {scale} for the factor), each optionally with +impulse-filter, "
            "+exact and +consistent, and models with +noise-reduction-0.5, +ensemble, +noise and "
            f"+none, too [default: {PROTOCOLS[ProtocolName.MIXED].methods}].",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="METHOD",
            help="Method that the others are compared with "
            f"[default: {PROTOCOLS[ProtocolName.MIXED].reference}].",
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
    """Reduce images, upscale them by every method and compare with the originals.

    Metrics are computed on stored values, without a border of SCALE pixels;
    docs/evaluating.md defines them.

    Exit codes: 0 success, 2 usage, 3 no input, 4 some files could not be used,
    5 no file could, 6 cannot write, 7 model error.
    """
    from cxrsr_cli.evaluation.input_kinds import parse_inputs

    asked, groups = PROTOCOLS[protocol], _name_groups(data)
    scales, reference_method = _parse_scales(scale), Method.parse(reference or asked.reference)
    compared = parse_methods(methods or asked.methods, reference_method)
    kinds = parse_inputs(inputs or asked.inputs)
    models = {factor: _find_models(compared, model, factor) for factor in scales}
    outputs = _Outputs(csv, json, markdown, html, worst_cases)
    outputs.check()

    import torch

    from cxrsr_cli.evaluation import worst_cases as worst
    from cxrsr_cli.evaluation.evaluator import Evaluator
    from cxrsr_cli.evaluation.result import EvaluationResult
    from cxrsr_cli.evaluation.tables import format_text
    from cxrsr_cli.images.image_files import list_image_files

    paths = {group: list_image_files(folder) for group, folder in groups.items()}
    outputs.make_folder()
    results, cases = list[EvaluationResult](), dict[int, list["WorstCase"]]()
    for factor in scales:
        evaluator = Evaluator.load(
            factor,
            compared,
            {base: found.path for base, found in models[factor].items()},
            kinds,
            device=device,
            memory=memory,
        )
        failed = dict[Path, str]()
        images = _run(evaluator, paths, failed, show_progress(no_progress))
        result = EvaluationResult(
            scale=factor,
            methods=compared,
            reference=reference_method,
            models=models[factor],
            images=images,
            complexities={method: evaluator.complexity(method) for method in compared},
            data={group: str(folder) for group, folder in groups.items()},
            device=evaluator.device,
            threads=torch.get_num_threads(),
            whole_image=asked.whole_image,
            failed=failed,
        )
        typer.echo(format_text(result) if not results else f"\n{format_text(result)}")
        results.append(result)
        if outputs.need_worst_cases:
            cases[factor] = worst.worst_cases(result, evaluator)
        # After each scale: what comes later must not lose it.
        outputs.write(results, cases)
    if not any(result.images for result in results):
        raise InputError("no image can be used")
    if any(result.failed for result in results):
        raise typer.Exit(ExitCode.SOME_FAILED)


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
        """Check the files before any work is done for them, and the extra 'plot'."""
        from cxrsr_cli.dicom.write import check_writable

        files = [path for path in (self.csv, self.json, self.markdown, self.html) if path]
        for path in files:
            if not path.parent.is_dir():
                raise OutputError(f"no folder {path.parent} to write the scores to")
            if path.is_dir():
                raise OutputError(f"{path} is a folder, not a file for the scores")
            check_writable(path)
        if len({path.resolve() for path in files}) < len(files):
            raise OutputError("two outputs have the same path")
        if self.worst_cases:
            check_writable(self.worst_cases / "worst-case.png")
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


def _name_groups(folders: Sequence[Path]) -> dict[str, Path]:
    """Name folders by the parts of their paths that differ, such as the hospital's."""
    parts = [list(folder.resolve().parts) for folder in folders]
    if len(set(map(tuple, parts))) < len(parts):
        raise UsageError("--data names the same folder twice")
    for end in (0, -1):
        while min(map(len, parts)) > 1 and len({part[end] for part in parts}) == 1:
            for part in parts:
                del part[end]
    return {"/".join(part): folder for part, folder in zip(parts, folders, strict=True)}


def _parse_scales(text: str) -> list[int]:
    scales = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not set(scales) <= set(SCALES):
        known = ", ".join(map(str, SCALES))
        raise UsageError(f"scale is {text!r}; it must be some of {known}, separated by commas")
    return list(dict.fromkeys(scales))


def _run(
    evaluator: "Evaluator",
    paths: Mapping[str, Sequence[Path]],
    failed: dict[Path, str],
    progress: bool,
) -> list["ImageScores"]:
    """Score every image; put those that cannot be used into `failed`."""
    from tqdm import tqdm

    def fail(path: Path, error: InputError) -> None:
        failed[path] = str(error)
        print_line(f"failed: {path}: {error}", err=True)

    total = sum(map(len, paths.values())) * len(evaluator.inputs)
    evaluated = evaluator.evaluate(paths, fail)
    return list(
        tqdm(evaluated, total=total, unit="image", desc=f"x{evaluator.scale}", disable=not progress)
    )
