"""Results as tables, for the terminal and in Markdown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.paired_statistics import PairedDifference, average, compare
from cxrsr_cli.evaluation.result import Cell, EvaluationResult
from cxrsr_cli.metrics.agreement import DEVIATION, LR_PSNR
from cxrsr_cli.metrics.metric import Metric
from cxrsr_cli.metrics.psnr_ssim import PSNR, PSNR_OUTSIDE_MARKS, SSIM
from cxrsr_cli.metrics.registry import METRICS

_FIDELITY = (PSNR_OUTSIDE_MARKS, PSNR, SSIM, DEVIATION)
_GAIN_COLUMNS = (("95% interval", 20), ("median", 8), ("worst", 8), ("worse", 9))
_UNDEFINED = "-"
_MIN_NAME_WIDTH = 20


@dataclass(frozen=True, slots=True)
class Table:
    """Titles and cells as text.

    Attributes
    ----------
    columns : sequence of (str, int)
        Title of each column and its width in the terminal.
    rows : sequence of sequence of str
        One cell per column.
    """

    columns: Sequence[tuple[str, int]]
    rows: Sequence[Sequence[str]]

    def as_text(self) -> str:
        """Format in columns of fixed width, the first aligned to the left."""
        cells = [[title for title, _ in self.columns], *self.rows]
        widths = [
            max(width, *(len(cell) + 2 for cell in column))
            for (_, width), column in zip(self.columns, zip(*cells, strict=True), strict=True)
        ]
        widths[0] = max(_MIN_NAME_WIDTH, widths[0] - 1)
        return "\n".join(_line(row, widths) for row in cells)

    def as_markdown(self, *, left_columns: int = 1) -> str:
        """Format in Markdown, the first `left_columns` columns aligned to the left."""
        titles = [title for title, _ in self.columns]
        lines = [titles, ["---"] * left_columns + ["--:"] * (len(titles) - left_columns)]
        return "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *self.rows])


def fidelity_table(result: EvaluationResult) -> Table:
    """Tabulate PSNR, SSIM and agreement, and the paired differences of the first figure."""
    first = result.quality
    metrics = [first, *(metric for metric in _FIDELITY if metric is not first)]
    columns = [("method", 0), *((metric.title, 9) for metric in metrics)]
    columns += [(f"dB over {result.reference}", 0), *_GAIN_COLUMNS, ("p", 10)]

    def row(method: Method) -> list[str]:
        means = [_number(result.mean(method, metric), metric.decimals) for metric in metrics]
        found = result.difference(method, first)
        gains = [*_gain(found, first.decimals), _p_value(found)]
        return [str(method), *means, *([""] * len(gains) if method == result.reference else gains)]

    return Table(columns, [row(method) for method in result.methods])


def kinds_table(result: EvaluationResult) -> Table:
    """Tabulate the first figure of every method by kind of input and by group."""
    first = result.quality
    columns = [("method", 0), ("input", 0), ("images of", 0), ("images", 0), (first.title, 0)]
    columns += [(f"dB over {result.reference}", 0), *_GAIN_COLUMNS]

    def row(method: Method, cell: Cell) -> list[str]:
        return [
            str(method),
            str(cell.input_kind),
            cell.group,
            str(len(cell.images)),
            _number(average(cell.images, method, first), first.decimals),
            *_gain(compare(cell.images, method, result.reference, first), first.decimals),
        ]

    others = [method for method in result.methods if method != result.reference]
    return Table(columns, [row(method, cell) for method in others for cell in result.cells()])


def structure_table(result: EvaluationResult) -> Table:
    """Tabulate the other metrics, all but LR-PSNR with their mean paired difference."""
    paired = [metric for metric in METRICS if metric not in (*_FIDELITY, LR_PSNR)]
    columns = [("method", 0)]
    for metric in paired:
        columns += [(metric.title, len(metric.title) + 3), ("paired", 9)]
    columns.append((LR_PSNR.title, 13))

    def row(method: Method) -> list[str]:
        cells = [str(method)]
        for metric in paired:
            cells.append(_number(result.mean(method, metric), metric.decimals))
            difference = result.difference(method, metric).mean
            is_reference = method == result.reference
            cells.append("" if is_reference else _number(difference, metric.decimals, sign="+"))
        return [*cells, _number(result.mean(method, LR_PSNR), LR_PSNR.decimals)]

    return Table(columns, [row(method) for method in result.methods])


def costs_table(result: EvaluationResult) -> Table:
    """Tabulate complexity, time and memory."""
    columns = [
        ("method", 0), ("parameters", 12), ("MACs/input px", 15), ("s/MP out", 10),
        ("MB/MP out", 11),
    ]  # fmt: skip

    def row(method: Method) -> list[str]:
        cost = result.cost(method)
        peak = math.nan if cost.peak_bytes is None else cost.peak_bytes / 1e6
        return [
            str(method),
            f"{cost.complexity.parameters:,}",
            f"{cost.complexity.macs:,.0f}",
            _number(cost.seconds, 3),
            _number(peak, 0),
        ]

    return Table(columns, [row(method) for method in result.methods])


def all_metrics_table(result: EvaluationResult) -> Table:
    """Tabulate every metric of every method with all statistics."""
    columns = [
        (title, 0)
        for title in (
            "method", "metric", "mean", "paired difference", "95 % interval", "± SE", "median",
            "worst", "worse", "better", "p",
        )
    ]  # fmt: skip

    def row(method: Method, metric: Metric) -> list[str]:
        found = result.difference(method, metric)
        mean, interval, median, worst, worse = _gain(found, metric.decimals)
        return [
            str(method),
            metric.title,
            _number(result.mean(method, metric), metric.decimals),
            mean,
            interval,
            _number(found.standard_error, metric.decimals),
            median,
            worst,
            worse,
            f"{found.wins}/{found.count}",
            _p_value(found),
        ]

    others = [method for method in result.methods if method != result.reference]
    return Table(columns, [row(method, metric) for metric in METRICS for method in others])


def tables(result: EvaluationResult) -> list[Table]:
    """Return the tables that all outputs show, in their order."""
    by_kind = [kinds_table(result)] if len(list(result.cells())) > 1 else []
    return [fidelity_table(result), *by_kind, structure_table(result), costs_table(result)]


def format_text(result: EvaluationResult) -> str:
    """Format a result for the terminal."""
    if not result.images:
        return result.title
    return f"{result.title}\n" + "\n\n".join(table.as_text() for table in tables(result))


def format_markdown(results: Sequence[EvaluationResult]) -> str:
    """Format results as a Markdown document."""
    parts = ["# Evaluation"]
    for result in results:
        if not result.images:
            parts += [f"## x{result.scale}", result.title]
            continue
        parts += [
            f"## x{result.scale}",
            f"{result.title}; differences are to {result.reference}, image by image.",
        ]
        parts += [table.as_markdown() for table in tables(result)]
        parts += ["Every metric:", all_metrics_table(result).as_markdown()]
    return "\n\n".join(parts) + "\n"


def _gain(found: PairedDifference, decimals: int) -> list[str]:
    """Return the cell of the mean and those of `_GAIN_COLUMNS`."""
    return [
        _number(found.mean, decimals, sign="+"),
        _interval(found.low, found.high, decimals),
        _number(found.median, decimals, sign="+"),
        _number(found.worst, decimals, sign="+"),
        f"{found.losses}/{found.count}",
    ]


def _p_value(found: PairedDifference) -> str:
    return _UNDEFINED if math.isnan(found.p_value) else f"{found.p_value:.2g}"


def _interval(low: float, high: float, decimals: int) -> str:
    if math.isnan(low) or math.isnan(high):
        return _UNDEFINED
    return f"{_number(low, decimals, sign='+')} .. {_number(high, decimals, sign='+')}"


def _number(value: float, decimals: int, *, sign: str = "") -> str:
    return _UNDEFINED if math.isnan(value) else f"{value:{sign}.{decimals}f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    others = [f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "".join([f"{cells[0]:<{widths[0]}}", *others]).rstrip()
