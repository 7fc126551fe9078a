"""One HTML page that contains its images, its program and nothing that is loaded from elsewhere."""

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrsr_cli.batch.report import check_report_path, display_path
from cxrsr_cli.common.files import atomic_write, permissions_of
from cxrsr_cli.comparison.compare import Shown
from cxrsr_cli.comparison.statements import statements
from cxrsr_cli.comparison.tiles import TILE_PIXELS, levels, means, steps_of_unit, tiles
from cxrsr_cli.dicom.attributes import pixel_spacing
from cxrsr_cli.dicom.write import os_errors_as_output_error
from cxrsr_cli.images.display import Display, Preset
from cxrsr_cli.images.picture_files import is_picture
from cxrsr_cli.verify.findings import Finding
from cxrsr_cli.versions import NOTICE

SCHEMA = "cxrsr-comparison/1"
"""Stands at the beginning of a page, so that only an earlier page is replaced."""
MAX_PIXELS = 160_000_000
"""Of all images of a page; larger outputs are reduced."""

_PROGRAM = "<!-- program -->"
_PIXELS = "<!-- pixels -->"
_BURNT_IN = {"YES": "The object says that there is.", "NO": "The object says that there is none."}
_SPACING_ORIGINS = {
    "PixelSpacing": "by Pixel Spacing",
    "ImagerPixelSpacing": "at the detector",
    "NominalScannedPixelSpacing": "by Nominal Scanned Pixel Spacing",
}
"""Where the millimetres of the scale bar are, or which attribute states them."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """An image as a page has it."""

    shown: Shown
    pixels: NDArray[np.generic]
    reduction: int = 1
    """Pixels of the image in a row of one pixel here."""


def write_page(path: Path, shown: Sequence[Shown], *, with_patient: bool = False) -> None:
    """Write a page, over an earlier one.

    Parameters
    ----------
    path : Path
        An HTML file; with the permissions that source and outputs have in common.
    shown : sequence of Shown
        The source, and its outputs.
    with_patient : bool
        Whether names of files and attributes that name a patient are included.

    Raises
    ------
    OutputError
        If it cannot be written, or its path holds something else.
    """
    check_report_path(path, SCHEMA, "comparison page")
    permissions = permissions_of(*(each.path for each in shown))
    with (
        os_errors_as_output_error(path),
        atomic_write(path, permissions=permissions) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(build_page(shown, with_patient=with_patient))


def build_page(shown: Sequence[Shown], *, with_patient: bool = False) -> Iterator[str]:
    """Yield the page in parts; parameters as of `write_page`.

    The coarsest level of every image comes before the program, which shows it while the browser
    reads the rest.
    """
    display = Display.from_dataset(shown[0].source.dataset, shown[0].pixels)
    folder = files("cxrsr_cli.comparison")
    template, style, program = (
        folder.joinpath(f"page.{suffix}").read_text("utf-8") for suffix in ("html", "css", "js")
    )
    layers = _fit([_Layer(each, each.pixels) for each in shown])
    page = Template(template).substitute(
        schema=SCHEMA,
        policy=_policy(style, program),
        style=style,
        notice=escape(NOTICE),
        warnings=_warnings(layers),
        findings=_finding_list(shown),
        statements=_statement_table(shown, with_patient=with_patient),
        data=_json(_data(layers, display)),
    )
    before, _, rest = page.partition(_PROGRAM)
    between, _, after = rest.partition(_PIXELS)
    yield before
    finer = list[tuple[int, int]]()
    for index, layer in enumerate(layers):
        coarsest, *others = levels(*layer.pixels.shape)
        yield from _scripts(index, layer, coarsest, display)
        finer += [(-level, index) for level in others]
    yield f"<script>{program}</script>{between}"
    for level, index in sorted(finer):
        yield from _scripts(index, layers[index], -level, display)
    yield after


def _policy(style: str, program: str) -> str:
    """Return a content security policy that allows our program and style, and no network."""
    program_hash, style_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
        for text in (program, style)
    )
    return (
        f"default-src 'none'; script-src 'sha256-{program_hash}'; "
        f"style-src 'sha256-{style_hash}'; base-uri 'none'; form-action 'none'"
    )


def _fit(layers: list[_Layer]) -> list[_Layer]:
    """Halve the resolution of the largest image until all fit in a page."""
    while sum(layer.pixels.size for layer in layers) > MAX_PIXELS:
        index = max(range(len(layers)), key=lambda each: layers[each].pixels.size)
        largest = layers[index]
        layers[index] = _Layer(largest.shown, means(largest.pixels, 2), 2 * largest.reduction)
    return layers


def _scripts(index: int, layer: _Layer, level: int, display: Display) -> Iterator[str]:
    minimum, maximum = int(display.pixel_range.minimum), int(display.pixel_range.maximum)
    for tile in tiles(layer.pixels, level, minimum, maximum):
        name = f"tile-{index}-{tile.level}-{tile.row}-{tile.column}"
        # A script of an unknown type is not run; its text is data.
        yield f'<script type="application/octet-stream" id="{name}">{tile.data}</script>\n'


def _json(data: dict[str, Any]) -> str:
    """Return JSON that ends no script element and begins no comment."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _data(layers: Sequence[_Layer], display: Display) -> dict[str, Any]:
    """Return what the program needs to know."""
    minimum, maximum = int(display.pixel_range.minimum), int(display.pixel_range.maximum)
    rows, columns = layers[0].shown.pixels.shape
    return {
        "rows": rows,
        "columns": columns,
        "minimum": minimum,
        "maximum": maximum,
        "steps": [steps_of_unit(level, minimum, maximum) for level in (0, 1)],
        "slope": display.slope,
        "intercept": display.intercept,
        "shift": display.shift,
        "inverted": display.pixel_range.inverted,
        "padding": display.padding and [display.padding.first, display.padding.last],
        "presets": [_preset(preset) for preset in display.presets],
        "spacing": _spacing(layers[0].shown),
        "tile": TILE_PIXELS,
        "layers": [
            {
                "name": _name(layer.shown, index),
                "scale": layer.shown.scale / layer.reduction,
                "rows": layer.pixels.shape[0],
                "columns": layer.pixels.shape[1],
                "levels": levels(*layer.pixels.shape),
            }
            for index, layer in enumerate(layers)
        ],
        "findings": [
            [index, place.row, place.column, place.side]
            for index, finding in _failures([layer.shown for layer in layers])
            if (place := finding.place)
        ],
    }


def _spacing(source: Shown) -> tuple[float, float, str] | None:
    """Return the millimetres between rows and between columns, and what states them."""
    spacing = pixel_spacing(source.source.dataset)
    if spacing is None:
        return None
    is_of_file = is_picture(source.path)
    origin = "as the file states" if is_of_file else _SPACING_ORIGINS[spacing.keyword]
    return spacing.rows, spacing.columns, origin


def _preset(preset: Preset) -> dict[str, Any]:
    plain: dict[str, Any] = {"name": preset.name, "low": preset.low, "high": preset.high}
    if preset.curve is not None:
        plain["curve"] = base64.b64encode(zlib.compress(preset.curve.tobytes())).decode("ascii")
    return plain


def _name(shown: Shown, index: int) -> str:
    if not index:
        return "Source"
    return f"Output {index}: \u00d7{shown.scale} {shown.model}".rstrip()


def _failures(shown: Sequence[Shown]) -> Iterator[tuple[int, Finding]]:
    for index, each in enumerate(shown):
        for finding in each.failures:
            yield index, finding


def _warnings(layers: Sequence[_Layer]) -> str:
    stated = str(layers[0].shown.source.dataset.get("BurnedInAnnotation") or "")
    burnt_in = _BURNT_IN.get(stated, "The object does not say.")
    text = (
        "Text that is burnt into the pixels, such as a name, cannot be removed from this page. "
        f"{burnt_in} Look before you pass the page on."
    )
    texts = [text]
    texts += [
        f"{_name(layer.shown, index)} is shown with pixels of {layer.reduction}x{layer.reduction} "
        f"of its own, because a page holds {MAX_PIXELS // 1_000_000} million pixels."
        for index, layer in enumerate(layers)
        if layer.reduction > 1
    ]
    return "".join(f"<li>{escape(text)}</li>" for text in texts)


def _finding_list(shown: Sequence[Shown]) -> str:
    """Return what the audit of each output found; a finding with a place is a button."""
    parts, number = list[str](), 0
    for index, each in enumerate(shown[1:], start=1):
        checked = [finding for finding in each.findings if finding.status != "not checked"]
        count = f"{len(each.failures)} of {len(checked)} claims fail"
        parts.append(f"<h3>{escape(_name(each, index))}</h3>")
        parts.append(f"<p>{count if each.findings else 'Not audited.'}</p><ul>")
        for finding in each.failures:
            detail = f": {finding.detail}" if finding.detail else ""
            text = escape(f"{finding.claim}{detail}")
            if finding.place:
                number += 1
                text = f'<button type="button" class="finding">{number}</button> {text}'
            parts.append(f"<li>{text}</li>")
        parts.append("</ul>")
    return "".join(parts)


def _statement_table(shown: Sequence[Shown], *, with_patient: bool) -> str:
    titles = ["", *(_name(each, index) for index, each in enumerate(shown))]
    rows = list(statements(shown, with_patient=with_patient))
    if with_patient:
        rows.insert(0, ("File", *(display_path(each.path) for each in shown)))
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(_row(*row) for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(title: str, *values: str) -> str:
    cells = "".join(f"<td>{escape(value)}</td>" for value in values)
    return f"<tr><th>{escape(title)}</th>{cells}</tr>"
