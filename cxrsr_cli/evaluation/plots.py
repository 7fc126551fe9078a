"""Pictures of an outcome; needs the extra 'plot'."""

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
from cxrsr_cli.evaluation.scores import HAARPSI_MED, MS_SSIM, PSNR, Metric
from cxrsr_cli.evaluation.worst_cases import SIDE, WorstCase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 110
_SHOWN = 99.5
"""Percentile at which grey and colours of crops end: a marker would hide the rest."""

_PANEL, _GAP, _TITLE, _SCALE = 2 * SIDE, 10, 20, 130
"""Pixels of a crop's panel, twice as large as most crops so that each of their pixels is four
of the picture (which also packs well), between panels, of a line above, and of the colours' bar."""

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


def quality_against_cost(outcome: EvaluationResult) -> bytes:
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


def paired_differences(outcome: EvaluationResult) -> bytes:
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


def worst_case_figure(case: WorstCase, *, alone: bool = False) -> bytes:
    """Show a case beside the truth, with maps of the differences, as PNG.

    Parameters
    ----------
    case : Case
        What is shown.
    alone : bool
        Whether nothing stands beside the picture: it is then narrower,
        without the map of the reference, and says itself what it shows.
    """
    grey = "gray_r" if case.inverted else "gray"
    low, high = np.percentile(case.original, (100 - _SHOWN, _SHOWN)).tolist()
    shown = {"original": case.original, "reference": case.reference, str(case.method): case.output}
    errors = {"reference": case.reference - case.original, "method": case.output - case.original}
    largest = float(np.percentile(np.abs([*errors.values()]), _SHOWN)) or 1.0
    if alone:
        del errors["reference"]
    panels = len(shown) + len(errors)
    width, height = panels * (_PANEL + _GAP) + _SCALE, _PANEL + 4 * _GAP + _TITLE * alone
    figure = _figure(width / _DPI, height / _DPI)
    # Placed by hand: a layout would not make a panel a whole multiple of a crop.
    figure.set_layout_engine("none")

    def panel(index: int, title: str) -> "Axes":
        left = (index * (_PANEL + _GAP) + _GAP) / width
        axes = figure.add_axes((left, _GAP / height, _PANEL / width, _PANEL / height))
        _bare(axes, title)
        return axes

    for index, (title, pixels) in enumerate(shown.items()):
        panel(index, title).imshow(pixels, cmap=grey, vmin=low, vmax=high, interpolation="nearest")
    for index, (title, error) in enumerate(errors.items(), start=len(shown)):
        image = panel(index, f"{title} - original").imshow(
            error, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest"
        )
    beside = (panels * (_PANEL + _GAP) + _GAP) / width
    bar = figure.add_axes(
        (beside, 3 * _GAP / height, 1.5 * _GAP / width, (_PANEL - 4 * _GAP) / height)
    )
    figure.colorbar(image, cax=bar, label="stored units", extend="both")
    if alone:
        figure.suptitle(case.caption, fontsize=9, y=1 - _GAP / 2 / height)
    return _png(figure)


def write_worst_cases(cases: Mapping[int, Sequence[WorstCase]], folder: Path) -> None:
    """Write `worst_case_figure` of every case, each whole or not at all.

    Parameters
    ----------
    cases : mapping
        The worst cases, by scale.
    folder : Path
        Where ``failure-x4-METHOD.png`` are written; must exist.
    """
    written = set[str]()
    for scale, found in cases.items():
        for case in found:
            # A method may be called as a file is, with whatever its name holds.
            plain = re.sub(r"[^A-Za-z0-9._+-]", "-", f"failure-x{scale}-{case.method}")
            copies = (f"{plain}-{number}" for number in count(2))
            name = next(name for name in chain([plain], copies) if name.lower() not in written)
            written.add(name.lower())  # there are file systems that ignore case
            with atomic_write(folder / f"{name}.png") as temporary:
                temporary.write_bytes(worst_case_figure(case, alone=True))


def _boxes(
    axes: "Axes", outcome: EvaluationResult, methods: Sequence[Method], metric: Metric
) -> None:
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
    figure.savefig(buffer, format="png", dpi=_DPI, pil_kwargs={"optimize": True})
    return buffer.getvalue()
