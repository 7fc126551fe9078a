"""``cxrsr train``."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrsr_cli.commands.options import DeviceOption, ProgressOption, show_progress

if TYPE_CHECKING:
    from cxrsr_cli.learn.training import Progress


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="What to train.")],
    run_dir: Annotated[Path, typer.Option("--run-dir", help="Gets checkpoint, log and weights.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override, such as data.train=DIR."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's checkpoint, exactly.")
    ] = False,
    device: DeviceOption = "auto",
    no_progress: ProgressOption = False,
) -> None:
    """Train a network on a folder of images.

    Writes checkpoint.pt, metrics.jsonl and at the end NAME-xSCALE.safetensors
    to the run folder.
    """
    from cxrsr_cli.learn.config import load_train_config

    checked = load_train_config(config, overrides or ())

    from tqdm import tqdm

    from cxrsr_cli.learn.training import train as run_training
    from cxrsr_cli.restore.device import choose_device

    with tqdm(
        total=checked.total_steps, unit="step", disable=not show_progress(no_progress)
    ) as bar:

        def report(progress: "Progress") -> None:
            bar.update(progress.step - bar.n)
            bar.write(_line(progress), file=typer.get_text_stream("stderr"))

        def prepared(done: int, total: int) -> None:
            bar.set_postfix_str(f"images {done}/{total}" if done < total else "")

        path = run_training(
            checked,
            run_dir,
            command=shlex.join(["cxrsr", *sys.argv[1:]]),
            resume=resume,
            device=choose_device(device),
            report=report,
            prepared=prepared,
        )
    typer.echo(f"weights: {path}")


def _line(progress: "Progress") -> str:
    line = f"step {progress.step}: loss {progress.loss:.5f}, {progress.seconds:.0f} s"
    if progress.psnr is None:
        return line
    line += f", validation {progress.psnr:.3f} dB"
    if progress.psnr_skip is not None:
        line += f" ({progress.psnr - progress.psnr_skip:+.3f} dB over the image skip)"
    return line
