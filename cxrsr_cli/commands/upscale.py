"""``cxrsr upscale``."""

import os
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrsr_cli.commands.options import (
    DeviceOption,
    ModelOption,
    PrecisionOption,
    ProgressOption,
    ScaleOption,
    TileOption,
    show_progress,
)
from cxrsr_cli.errors import UsageError
from cxrsr_cli.read.permission import Permission
from cxrsr_cli.restore.architecture import DEFAULT_TILE
from cxrsr_cli.restore.precision import Precision
from cxrsr_cli.restore.registry import DEFAULT_MODEL, find_model
from cxrsr_cli.write.syntax import OutputSyntax

if TYPE_CHECKING:
    from cxrsr_cli.upscale import Result


class Verbosity(IntEnum):
    """How much is said on stderr."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


def upscale(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A DICOM file, or a folder (recursive).")
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="OUTPUT", help="The file to write, or the folder to mirror to."),
    ],
    scale: ScaleOption = 4,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.AUTO,
    tile: TileOption = DEFAULT_TILE,
    consistency: Annotated[
        bool,
        typer.Option(
            "--consistency/--no-consistency",
            help="Make the output downsample to its input, within the stored range.",
        ),
    ] = True,
    allow: Annotated[
        list[Permission] | None,
        typer.Option("--allow", help="Accept what the models never saw. Can be repeated."),
    ] = None,
    transfer_syntax: Annotated[
        OutputSyntax,
        typer.Option("--transfer-syntax", help="Lossless encoding of the output."),
    ] = OutputSyntax.SAME,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing outputs; never an input.")
    ] = False,
    no_progress: ProgressOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say failures only.")] = False,
) -> None:
    """Enlarge chest radiographs into derived DICOM objects.

    Exit codes: 0 all done, 1 unexpected, 2 usage, 3 nothing to do, 4 some
    failed, 5 all failed, 6 cannot write, 7 model problem, 130 interrupted.
    Not for diagnosis.
    """
    if verbose and quiet:
        raise UsageError("--verbose and --quiet exclude each other")
    verbosity = Verbosity.VERBOSE if verbose else Verbosity.QUIET if quiet else Verbosity.NORMAL
    found = find_model(model, scale)

    from tqdm import tqdm

    from cxrsr_cli.restore.restorer import Restorer
    from cxrsr_cli.upscale import Upscaler, exit_code, plan_jobs

    jobs = plan_jobs(source, _target(source, target))
    restorer = Restorer.load(
        found.path, device=device, precision=precision, tile=tile, consistent=consistency
    )
    upscaler = Upscaler(
        restorer, found, frozenset(allow or ()), overwrite=overwrite, syntax=transfer_syntax
    )
    if verbosity is Verbosity.VERBOSE:
        typer.echo(
            f"model {found.name} (SHA-256 {found.sha256[:12]}), device {restorer.device}, "
            f"{restorer.precision}, {len(jobs)} files",
            err=True,
        )
    results = []
    with tqdm(
        total=len(jobs),
        unit="file",
        disable=not show_progress(no_progress, quiet=quiet),
        bar_format="{percentage:3.0f}%|{bar}| {n:.1f}/{total} {unit}s [{elapsed}<{remaining}]",
    ) as bar:

        def advance(share: float) -> None:
            bar.update(share)

        for result in upscaler.run(jobs, advance):
            results.append(result)
            for line in _lines(result, verbosity):
                bar.write(line, file=typer.get_text_stream("stderr"))
    if verbosity is not Verbosity.QUIET:
        typer.echo(_summary(results))
    raise typer.Exit(exit_code(results))


def _target(source: Path, text: str) -> Path:
    """Read OUTPUT: a trailing slash asks for a folder, be it there or not."""
    target = Path(text)
    return target / source.name if text.endswith(os.sep) and source.is_file() else target


def _lines(result: "Result", verbosity: Verbosity) -> Iterable[str]:
    name = result.job.source
    if result.error:
        yield f"failed: {name}: {result.error}"
        return
    if verbosity is Verbosity.QUIET:
        return
    for warning in result.warnings:
        yield f"warning: {name}: {warning}"
    if verbosity is Verbosity.VERBOSE:
        (rows, columns), (tall, wide) = result.input_shape, result.output_shape
        yield (
            f"done: {name}: {columns}x{rows} -> {wide}x{tall} in {result.seconds:.1f} s, "
            f"downsampled output within {result.inconsistency:.2f} stored units RMS of the input"
        )


def _summary(results: "list[Result]") -> str:
    failed = sum(1 for result in results if result.error)
    seconds = sum(result.seconds for result in results)
    return f"{len(results) - failed} upscaled, {failed} failed, {seconds:.1f} s"
