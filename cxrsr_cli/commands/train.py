"""``cxrsr train``."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrsr_cli.commands.options import DeviceOption, ProgressOption, show_progress

if TYPE_CHECKING:
    from cxrsr_cli.training.training_data import DataSummary
    from cxrsr_cli.training.training_log import LogEntry
    from cxrsr_cli.training.warm_start import WarmStartReport


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML configuration of the training.")
    ],
    run_dir: Annotated[
        Path,
        typer.Option("--run-dir", metavar="DIR", help="Folder for checkpoint, log and weights."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a key, such as data.train=DIR; repeatable."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue exactly from the checkpoint in the run folder."),
    ] = False,
    device: DeviceOption = "auto",
    no_progress: ProgressOption = False,
) -> None:
    """Train a network on radiographs.

    Writes checkpoint.pt, metrics.jsonl and, at the end, NAME-xSCALE.safetensors
    to the run folder. To train on several devices, start it with torchrun:
    torchrun --nproc-per-node N -m cxrsr_cli train ...
    """
    from cxrsr_cli.training.config import load_train_config
    from cxrsr_cli.training.distributed import init_distributed

    checked = load_train_config(config, overrides or ())

    from tqdm import tqdm

    from cxrsr_cli.training.train import train as run_training

    stderr = typer.get_text_stream("stderr")
    with init_distributed(device) as (processes, chosen):
        shown = show_progress(no_progress) and processes.is_main
        with tqdm(total=checked.total_steps, unit="step", disable=not shown) as bar:

            def write(line: str) -> None:
                if processes.is_main:
                    bar.write(line, file=stderr)

            def stepped(step: int) -> None:
                bar.update(step - bar.n)

            def prepared(done: int, total: int) -> None:
                bar.set_postfix_str(f"images {done}/{total}" if done < total else "")

            def collected(summary: "DataSummary") -> None:
                for line in _found(summary):
                    write(line)

            path = run_training(
                checked,
                run_dir,
                command=shlex.join(["cxrsr", *sys.argv[1:]]),
                resume=resume,
                device=chosen,
                processes=processes,
                report=lambda progress: write(_line(progress)),
                stepped=stepped,
                prepared=prepared,
                collected=collected,
                started_from=lambda taken: write(_start(taken)),
            )
    if processes.is_main:
        typer.echo(f"weights: {path}")


def _found(summary: "DataSummary") -> list[str]:
    split = summary.split
    lines = [f"skipped {file.name}: {file.reason}" for file in summary.skipped]
    lines.append(
        f"images: {summary.train} for training, {summary.val} for validation, "
        f"{len(summary.skipped)} files skipped"
    )
    if split.train or split.val:
        lines.append(
            f"patients: {split.train} in training, {split.val} in validation, none in both"
        )
    if split.unknown:
        lines.append(
            f"warning: no patient ID for {split.unknown} files; the check that no patient is in "
            "both training and validation leaves them out; set data.patient_id_regex"
        )
    return lines


def _start(taken: "WarmStartReport") -> str:
    wider = f", each channel {taken.widening} times" if taken.widening > 1 else ""
    line = f"warm start: {len(taken.loaded)} tensors loaded{wider}"
    return line + (
        f"; reinitialised: {', '.join(taken.reinitialised)}" if taken.reinitialised else ""
    )


def _line(progress: "LogEntry") -> str:
    line = f"step {progress.step}: loss {progress.loss:.5f}, {progress.seconds:.0f} s"
    if progress.psnr is None:
        return line
    line += f", validation {progress.psnr:.3f} dB"
    if progress.psnr_skip is not None:
        line += f" ({progress.psnr - progress.psnr_skip:+.3f} dB over the image skip)"
    return line
