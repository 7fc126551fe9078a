"""Pictures of an outcome; needs the extra 'plot'."""

import io
import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from cxrsr_cli.errors import UsageError
from cxrsr_cli.judge.method import Method
from cxrsr_cli.judge.outcome import Outcome
from cxrsr_cli.judge.score import HAARPSI_MED, MS_SSIM, PSNR, Metric
from cxrsr_cli.judge.statistics import differences
from cxrsr_cli.judge.worst import Case

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 110
_SHOWN = 99.5
"""Percentile at which grey and colours of crops end: a marker would hide the rest."""

_MARKERS = "os^Dvp*hX<>"


def check_plotting() -> None:
    """Find out before hours of work whether plots can be made.

    Raises
    ------
    UsageError
        If matplotlib is not installed; names the extra.
    """
    if find_spec("matplotlib") is None:
        raise UsageError("plots need the extra 'plot': pip install 'cxrsr[plot]'")


def quality_against_cost(outcome: Outcome) -> bytes:
    """Plot mean PSNR and HaarPSI_MED over the time a method takes, as PNG."""
    figure = _figure(11, 4.2)
    for place, metric in enumerate((PSNR, HAARPSI_MED), start=1):
        axes = figure.add_subplot(1, 2, place)
        for index, method in enumerate(outcome.methods):
            axes.plot(
                [outcome.cost(method).seconds],
                [outcome.mean(method, metric)],
                _MARKERS[index % len(_MARKERS)],
                color=f"C{index}",
                markersize=9,
                label=str(method) if place == 1 else None,
            )
        axes.set_xscale("log")
        axes.set_xlabel(f"seconds per megapixel of output ({outcome.device})")
        axes.set_ylabel(f"mean {metric.title}")
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(4, len(outcome.methods)))
    return _png(figure)


def paired_differences(outcome: Outcome) -> bytes:
    """Plot the images' differences to the reference as boxes, as PNG."""
    others = [method for method in outcome.methods if method != outcome.reference]
    figure = _figure(12, 1.4 + 0.5 * len(others))
    shared: Axes | None = None
    for place, metric in enumerate((PSNR, MS_SSIM, HAARPSI_MED), start=1):
        axes = figure.add_subplot(1, 3, place, sharey=shared)
        shared = shared or axes
        _boxes(axes, outcome, others, metric)
        if place > 1:
            axes.tick_params(labelleft=False)
    return _png(figure)


def worst_crops(case: Case) -> bytes:
    """Show a case beside the truth, with maps of the differences, as PNG."""
    figure = _figure(15, 3.4)
    low, high = np.percentile(case.original, (100 - _SHOWN, _SHOWN)).tolist()
    errors = [case.reference - case.original, case.output - case.original]
    largest = float(np.percentile(np.abs(errors), _SHOWN)) or 1.0
    grey = "gray_r" if case.inverted else "gray"
    shown = {"original": case.original, "reference": case.reference, str(case.method): case.output}
    for place, (title, pixels) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(1, 5, place)
        axes.imshow(pixels, cmap=grey, vmin=low, vmax=high, interpolation="nearest")
        _bare(axes, title)
    maps = []
    for place, (title, error) in enumerate(zip(("reference", "method"), errors, strict=True)):
        axes = figure.add_subplot(1, 5, 4 + place)
        image = axes.imshow(error, cmap="RdBu_r", vmin=-largest, vmax=largest)
        _bare(axes, f"{title} - original")
        maps.append(axes)
    figure.colorbar(image, ax=maps, label="stored units", shrink=0.85, extend="both")
    return _png(figure)


def _boxes(axes: "Axes", outcome: Outcome, methods: Sequence[Method], metric: Metric) -> None:
    columns = [
        [gain for gain in gains if math.isfinite(gain)]
        for gains in (
            differences(outcome.images, method, outcome.reference, metric) for method in methods
        )
    ]
    places = list(range(1, len(methods) + 1))
    axes.boxplot(columns, positions=places, orientation="horizontal", widths=0.6, showmeans=True)
    for place, column in zip(places, columns, strict=True):
        axes.plot(column, [place] * len(column), ".", color="C0", alpha=0.4)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(places, [str(method) for method in methods])
    axes.set_ylim(len(methods) + 0.6, 0.4)
    axes.set_xlabel(f"{metric.title}, minus {outcome.reference}")
    axes.grid(axis="x", alpha=0.3)


def _bare(axes: "Axes", title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # its canvas for PNG is Agg, whatever the backend

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
