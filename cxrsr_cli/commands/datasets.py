"""``cxrsr datasets``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrsr_cli.errors import ExitCode

if TYPE_CHECKING:
    from cxrsr_cli.training.public_datasets import LocalCopyCheck, PublicDataset


def datasets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of a dataset.")] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check", metavar="DIR", exists=True, file_okay=False, help="Check a local copy."
        ),
    ] = None,
) -> None:
    """List public datasets of chest radiographs, or check a local copy of one.

    Nothing is downloaded. Each dataset has its own terms of use.
    """
    from cxrsr_cli.training.public_datasets import (
        PAPER,
        check_local_copy,
        find_dataset,
        known_datasets,
    )

    if name is None:
        if check:
            raise typer.BadParameter("--check needs a NAME")
        for dataset in known_datasets():
            count = f"{dataset.count} images" if dataset.count else "images"
            bits = f"{dataset.bits} bits" if dataset.bits else "DICOM"
            typer.echo(f"{dataset.name}: {dataset.title}; {count}, {bits}; {dataset.terms}")
        typer.echo(f"\n{PAPER}")
        return
    dataset = find_dataset(name)
    if check is None:
        typer.echo(_facts(dataset))
        return
    copy = check_local_copy(dataset, check)
    typer.echo(_found(copy))
    problems = copy.problems(dataset)
    for problem in problems:
        typer.echo(f"problem: {problem}")
    if problems:
        raise typer.Exit(ExitCode.VERIFICATION)
    typer.echo("no problems")


def _facts(dataset: "PublicDataset") -> str:
    depth = f"{dataset.bits} bits" if dataset.bits else "of several depths"
    images = f"{dataset.count or 'number not stated'}, {depth}, at {', '.join(dataset.images)}"
    facts = {
        "source": dataset.source,
        "terms": dataset.terms,
        "citation": dataset.citation,
        "images": images,
        "data.patient_id_regex": dataset.patient_id_regex
        or "none: file names do not contain the patient",
        "split": dataset.split,
        "remarks": dataset.remarks,
    }
    return "\n".join([dataset.title, *(f"{name}: {fact}" for name, fact in facts.items())])


def _found(copy: "LocalCopyCheck") -> str:
    lines = [f"{copy.found} images, {copy.readable} of a sample read"]
    if copy.bits:
        lines[0] += f", {', '.join(map(str, copy.bits))} bits"
    if copy.patients:
        lines.append(f"{copy.patients} patients, by file name")
    return "\n".join([*lines, *(f"skipped {reason}" for reason in copy.refused)])
