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

    from cxrsr_cli.training.train import TrainingObserver
    from cxrsr_cli.training.train import train as run_training

    stderr = typer.get_text_stream("stderr")
    with init_distributed(device) as (process_group, chosen):
        shown = show_progress(no_progress) and process_group.is_main
        with tqdm(total=checked.total_steps, unit="step", disable=not shown) as bar:

            def write(*lines: str) -> None:
                for line in lines if process_group.is_main else ():
                    bar.write(line, file=stderr)

            class Observer(TrainingObserver):
                def on_image(self, done: int, total: int) -> None:
                    bar.set_postfix_str(f"images {done}/{total}" if done < total else "")

                def on_data(self, summary: "DataSummary") -> None:
                    write(*_describe_data(summary))

                def on_warm_start(self, report: "WarmStartReport") -> None:
                    write(_describe_warm_start(report))

                def on_step(self, step: int) -> None:
                    bar.update(step - bar.n)

                def on_log(self, entry: "LogEntry") -> None:
                    write(_describe_entry(entry))

            path = run_training(
                checked,
                run_dir,
                command=shlex.join(["cxrsr", *sys.argv[1:]]),
                resume=resume,
                device=chosen,
                process_group=process_group,
                observer=Observer(),
            )
    if process_group.is_main:
        typer.echo(f"weights: {path}")


def _describe_data(summary: "DataSummary") -> list[str]:
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


def _describe_warm_start(report: "WarmStartReport") -> str:
    wider = f", each channel {report.widening} times" if report.widening > 1 else ""
    line = f"warm start: {len(report.loaded)} tensors loaded{wider}"
    reinitialised = ", ".join(report.reinitialised)
    return f"{line}; reinitialised: {reinitialised}" if reinitialised else line


def _describe_entry(entry: "LogEntry") -> str:
    line = f"step {entry.step}: loss {entry.loss:.5f}, {entry.seconds:.0f} s"
    if entry.psnr is None:
        return line
    line += f", validation {entry.psnr:.3f} dB"
    if entry.psnr_skip is not None:
        line += f" ({entry.psnr - entry.psnr_skip:+.3f} dB over the image skip)"
    return line
