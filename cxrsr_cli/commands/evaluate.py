"""``cxrsr evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from cxrsr_cli.commands.options import (
    DeviceOption,
    ModelOption,
    ProgressOption,
    ScaleOption,
    TileOption,
    show_progress,
)
from cxrsr_cli.errors import OutputError
from cxrsr_cli.restore.architecture import DEFAULT_TILE
from cxrsr_cli.restore.registry import DEFAULT_MODEL, find_model


def evaluate(
    data: Annotated[
        Path, typer.Option("--data", exists=True, file_okay=False, help="Folder of images.")
    ],
    scale: ScaleOption = 4,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    tile: TileOption = DEFAULT_TILE,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write every image's scores there.")
    ] = None,
    no_progress: ProgressOption = False,
) -> None:
    """Degrade images, restore them by every method and compare with the originals.

    PSNR and SSIM on stored values, a border of SCALE pixels left out.
    """
    found = find_model(model, scale)
    if csv and not csv.parent.is_dir():
        raise OutputError(f"no folder {csv.parent} to write the scores to")

    from tqdm import tqdm

    from cxrsr_cli.judge.evaluation import evaluate_folder, write_csv
    from cxrsr_cli.judge.table import format_table
    from cxrsr_cli.learn.images import list_images
    from cxrsr_cli.restore.restorer import Restorer

    restorer = Restorer.load(found.path, device=device, tile=tile)
    paths = list_images(data)
    scores = []
    with tqdm(total=len(paths), unit="image", disable=not show_progress(no_progress)) as bar:
        for image_scores in evaluate_folder(paths, restorer):
            scores.append(image_scores)
            bar.update()
    typer.echo(f"{found.name} (SHA-256 {found.sha256[:12]}) on {len(scores)} images of {data}")
    typer.echo(format_table(scores))
    if csv:
        write_csv(scores, csv)
