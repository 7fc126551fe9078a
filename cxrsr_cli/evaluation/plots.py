"""Plots of a result and pictures of worst cases; needs the extra 'plot'."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxrsr_cli.common.files import atomic_write
from cxrsr_cli.errors import UsageError
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.paired_statistics import differences
from cxrsr_cli.evaluation.result import EvaluationResult
from cxrsr_cli.evaluation.worst_cases import SIDE, WorstCase
from cxrsr_cli.metrics.haarpsi import HAARPSI_MED
from cxrsr_cli.metrics.metric import Metric
from cxrsr_cli.metrics.registry import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 110
_PERCENTILE = 99.5
"""Limit of the grey and colour scales of crops; with the maximum, a marker would hide the rest."""

_PANEL, _GAP, _TITLE, _SCALE = 2 * SIDE, 10, 20, 130
"""Pixels of a panel, between panels, of the caption, and of the colour bar. A panel is twice as
large as most crops, so that a pixel becomes four, which also compresses well."""

_MARKERS = "os^Dvp*hX<>"


def check_plotting() -> None:
    """Check that plots can be made, before the evaluation starts.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UsageError("plots need the extra 'plot': pip install 'cxrsr[plot]'")


def quality_against_cost(result: EvaluationResult) -> bytes:
    """Plot the first figure and HaarPSI_MED of every method over its time, as PNG."""
    figure = _figure(11, 4.2)
    for position, metric in enumerate((result.quality, HAARPSI_MED), start=1):
        axes = figure.add_subplot(1, 2, position)
        for index, method in enumerate(result.methods):
            axes.plot(
                [result.cost(method).seconds],
                [result.mean(method, metric)],
                _MARKERS[index % len(_MARKERS)],
                color=f"C{index}",
                markersize=9,
                label=str(method) if position == 1 else None,
            )
        axes.set_xscale("log")
        axes.set_xlabel(f"seconds per megapixel of output ({result.device})")
        axes.set_ylabel(f"mean {metric.title}")
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(4, len(result.methods)))
    return _png(figure)


def paired_differences(result: EvaluationResult) -> bytes:
    """Plot the differences of the images to the reference as box plots, as PNG."""
    others = [method for method in result.methods if method != result.reference]
    metrics = [metric for metric in METRICS if metric.is_plotted]
    figure = _figure(4 * len(metrics), 1.4 + 0.5 * len(others))
    shared: Axes | None = None
    for position, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(1, len(metrics), position, sharey=shared)
        shared = shared or axes
        _boxes(axes, result, others, metric)
        if position > 1:
            axes.tick_params(labelleft=False)
    return _png(figure)


def worst_case_figure(case: WorstCase, *, standalone: bool = False) -> bytes:
    """Draw the crops of a case and maps of the differences to the original, as PNG.

    Parameters
    ----------
    case : WorstCase
        The case to draw.
    standalone : bool
        Whether the picture is not part of a page. It then has a caption and no
        difference map of the reference.
    """
    grey = "gray_r" if case.inverted else "gray"
    low, high = np.percentile(case.original, (100 - _PERCENTILE, _PERCENTILE)).tolist()
    crops = {"original": case.original, "reference": case.reference, str(case.method): case.output}
    errors = {"reference": case.reference - case.original, "method": case.output - case.original}
    largest = float(np.percentile(np.abs([*errors.values()]), _PERCENTILE)) or 1.0
    if standalone:
        del errors["reference"]
    panels = len(crops) + len(errors)
    width, height = panels * (_PANEL + _GAP) + _SCALE, _PANEL + 4 * _GAP + _TITLE * standalone
    figure = _figure(width / _DPI, height / _DPI)
    # A layout engine would not make the panel a whole multiple of the crop.
    figure.set_layout_engine("none")

    def panel(index: int, title: str) -> "Axes":
        left = (index * (_PANEL + _GAP) + _GAP) / width
        axes = figure.add_axes((left, _GAP / height, _PANEL / width, _PANEL / height))
        _bare(axes, title)
        return axes

    for index, (title, pixels) in enumerate(crops.items()):
        panel(index, title).imshow(pixels, cmap=grey, vmin=low, vmax=high, interpolation="nearest")
    for index, (title, error) in enumerate(errors.items(), start=len(crops)):
        image = panel(index, f"{title} - original").imshow(
            error, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest"
        )
    bar_left = (panels * (_PANEL + _GAP) + _GAP) / width
    bar = figure.add_axes(
        (bar_left, 3 * _GAP / height, 1.5 * _GAP / width, (_PANEL - 4 * _GAP) / height)
    )
    figure.colorbar(image, cax=bar, label="stored units", extend="both")
    if standalone:
        figure.suptitle(case.caption, fontsize=9, y=1 - _GAP / 2 / height)
    return _png(figure)


def write_worst_cases(cases: Mapping[int, Sequence[WorstCase]], folder: Path) -> None:
    """Write `worst_case_figure` of every case, each atomically.

    Parameters
    ----------
    cases : mapping
        The worst cases, by scale.
    folder : Path
        Gets a file ``worst-case-x4-METHOD.png`` for each case; must exist.
    """
    written = set[str]()
    for scale, of_scale in cases.items():
        for case in of_scale:
            # A method can have the name of a file, with any characters.
            stem = re.sub(r"[^A-Za-z0-9._+-]", "-", f"worst-case-x{scale}-{case.method}")
            numbered = (f"{stem}-{number}" for number in count(2))
            name = next(name for name in chain([stem], numbered) if name.lower() not in written)
            written.add(name.lower())  # some file systems ignore case
            with atomic_write(folder / f"{name}.png") as temporary:
                temporary.write_bytes(worst_case_figure(case, standalone=True))


def _boxes(
    axes: "Axes", result: EvaluationResult, methods: Sequence[Method], metric: Metric
) -> None:
    columns = [
        [gain for gain in gains if math.isfinite(gain)]
        for gains in (
            differences(result.images, method, result.reference, metric) for method in methods
        )
    ]
    positions = list(range(1, len(methods) + 1))
    axes.boxplot(columns, positions=positions, orientation="horizontal", widths=0.6, showmeans=True)
    for position, column in zip(positions, columns, strict=True):
        axes.plot(column, [position] * len(column), ".", color="C0", alpha=0.4)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(positions, [str(method) for method in methods])
    axes.set_ylim(len(methods) + 0.6, 0.4)
    axes.set_xlabel(f"{metric.title}, minus {result.reference}")
    axes.grid(axis="x", alpha=0.3)


def _bare(axes: "Axes", title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # Agg draws its PNG with every backend

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, pil_kwargs={"optimize": True})
    return buffer.getvalue()
