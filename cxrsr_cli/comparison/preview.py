"""Small pictures of outputs: one beside each output, and all of a run on contact sheets."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, PngImagePlugin

from cxrsr_cli.batch.report import check_report_path
from cxrsr_cli.common.files import atomic_write, has_schema, permissions_of
from cxrsr_cli.comparison.compare import Shown, read_comparison
from cxrsr_cli.dicom.attributes import pixel_spacing
from cxrsr_cli.dicom.write import os_errors_as_output_error
from cxrsr_cli.images.display import Display
from cxrsr_cli.networks.resampling import upsample

SCHEMA = "cxrsr-preview/1"
"""In the file's text, so that only an earlier preview is replaced."""
SUFFIX = ".preview.png"
SHEET_NAME = "contact-sheet"

_PANEL_PIXELS = 512
_GAP_PIXELS = 8
_CAPTION_PIXELS = 16
_THUMBNAIL_PIXELS = 240
_SHEET_COLUMNS, _SHEET_ROWS = 5, 20
_DETAIL = 0.5, 0.3
"""Where the detail is: a share of the rows and of the columns, in a lung."""


@dataclass(slots=True)
class Previews:
    """Writes previews while a run goes on, and contact sheets at its end.

    Attributes
    ----------
    folder : Path or None
        Of the outputs; without one there is no contact sheet.
    written : list of Path
        Previews of this run, and those of outputs that were there before.
    """

    folder: Path | None
    written: list[Path] = field(default_factory=list)

    def add(self, source: Path, output: Path, *, is_new: bool) -> None:
        """Write the preview of an output; for one that was there before only if it is missing.

        Raises
        ------
        CxrsrError
            If it cannot be written, or its path holds something else.
        """
        path = preview_path(output)
        check_report_path(path, SCHEMA, "preview")
        if is_new or not path.exists():
            write_preview(path, source, output)
        self.written.append(path)

    def finish(self) -> list[Path]:
        """Write the contact sheets, remove those of an earlier run, and return their paths.

        A run without previews changes none. Raises as `add`.
        """
        if self.folder is None or not self.written:
            return []
        sheets, per_sheet = list[Path](), _SHEET_COLUMNS * _SHEET_ROWS
        written = sorted(self.written)
        for start in range(0, len(written), per_sheet):
            number = f"-{start // per_sheet + 1}" if start else ""
            sheets.append(self.folder / f"{SHEET_NAME}{number}.png")
            part = written[start : start + per_sheet]
            _save(draw_sheet(part, start + 1), sheets[-1], permissions_of(*part))
        for path in sorted(self.folder.glob(f"{SHEET_NAME}-*.png")):
            is_sheet = re.fullmatch(rf"{SHEET_NAME}-[0-9]+\.png", path.name)
            with os_errors_as_output_error(path):
                if is_sheet and path not in sheets and has_schema(path, SCHEMA):
                    path.unlink(missing_ok=True)
        return sheets


def preview_path(output: Path) -> Path:
    """Return the path of an output's preview, which no other output of its folder has."""
    return output.with_name(output.name + SUFFIX)


def write_preview(path: Path, source: Path, output: Path) -> None:
    """Write a picture of source and output; raises as `Previews.add`."""
    picture = draw_preview(*read_comparison(source, [output], audit=False))
    _save(picture, path, permissions_of(source, output))


def draw_preview(source: Shown, output: Shown) -> Image.Image:
    """Draw source and output with the same window: whole above, a detail below."""
    display = Display.from_dataset(source.source.dataset, source.pixels)
    preset, scale = display.presets[0], output.scale
    rows, columns = source.pixels.shape
    side = max(1, min(_PANEL_PIXELS // scale, rows, columns))
    top, left = (
        int((length - side) * share) for length, share in zip((rows, columns), _DETAIL, strict=True)
    )
    detail = slice(top, top + side), slice(left, left + side)
    magnified = tuple(slice(part.start * scale, part.stop * scale) for part in detail)
    values = torch.from_numpy(source.pixels[detail].astype(np.float32))[None, None]
    enlarged = upsample(values, scale)[0, 0].numpy()
    panels = [
        _whole(display.grey(_thinned(source.pixels), preset)),
        _whole(display.grey(_thinned(output.pixels), preset)),
        _scaled(display.grey(enlarged, preset)),
        _scaled(display.grey(output.pixels[magnified], preset)),
    ]
    spacing = pixel_spacing(source.source.dataset)
    width = f", {side * spacing.columns:.0f} mm wide" if spacing else ""
    captions = [
        f"source {columns}x{rows}",
        f"output {output.pixels.shape[1]}x{output.pixels.shape[0]} {output.model}",
        f"source, bicubic{width}",
        f"output{width}; not for diagnosis",
    ]
    return _arrange(panels, captions, 2)


def _thinned(values: NDArray[np.integer]) -> NDArray[np.number]:
    """Return means of blocks, so that what Pillow reduces is not much larger than a panel."""
    step = max(1, max(values.shape) // (2 * _PANEL_PIXELS))
    rows, columns = (length // step * step for length in values.shape)
    if step == 1:
        return values
    blocks = values[:rows, :columns].reshape(rows // step, step, columns // step, step)
    return np.asarray(blocks.mean((1, 3), dtype=np.float32))


def _whole(grey: NDArray[np.uint8]) -> Image.Image:
    share = _PANEL_PIXELS / max(grey.shape)
    size = max(1, round(grey.shape[1] * share)), max(1, round(grey.shape[0] * share))
    kernel = Image.Resampling.BOX if share < 1 else Image.Resampling.BICUBIC
    return Image.fromarray(grey).resize(size, kernel)


def _scaled(grey: NDArray[np.uint8]) -> Image.Image:
    times = max(1, _PANEL_PIXELS // max(grey.shape))
    return Image.fromarray(grey.repeat(times, 0).repeat(times, 1))


def draw_sheet(previews: Sequence[Path], first_number: int) -> Image.Image:
    """Draw the outputs of previews, numbered in the order of their paths.

    Names of files are left out, because they may name patients.
    """
    thumbnails = []
    for path in previews:
        with Image.open(path) as picture:
            half = picture.width // 2, picture.height // 2
            output = picture.crop(
                (
                    half[0] + _GAP_PIXELS // 2,
                    0,
                    picture.width,
                    half[1] - _CAPTION_PIXELS - _GAP_PIXELS // 2,
                )
            )
        output.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
        thumbnails.append(output)
    return _arrange(
        thumbnails, [str(first_number + i) for i in range(len(previews))], _SHEET_COLUMNS
    )


def _arrange(panels: Sequence[Image.Image], captions: Sequence[str], columns: int) -> Image.Image:
    """Place panels of one size or less in rows, each with its caption below."""
    columns = min(columns, len(panels))
    width, height = (max(panel.size[axis] for panel in panels) for axis in (0, 1))
    cell = width + _GAP_PIXELS, height + _CAPTION_PIXELS + _GAP_PIXELS
    rows = -(-len(panels) // columns)
    sheet = Image.new("L", (columns * cell[0] - _GAP_PIXELS, rows * cell[1] - _GAP_PIXELS))
    draw = ImageDraw.Draw(sheet)
    for index, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        row, column = divmod(index, columns)
        place = column * cell[0], row * cell[1]
        sheet.paste(
            panel, (place[0] + (width - panel.width) // 2, place[1] + (height - panel.height) // 2)
        )
        draw.text((place[0] + 2, place[1] + height + 2), caption, fill=200)
    return sheet


def _save(picture: Image.Image, path: Path, permissions: int) -> None:
    """Save a picture over an earlier preview."""
    check_report_path(path, SCHEMA, "preview")
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", SCHEMA)
    with (
        os_errors_as_output_error(path),
        atomic_write(path, permissions=permissions) as temporary,
    ):
        picture.save(temporary, "PNG", pnginfo=text)
