"""Results as tables, for the terminal and in Markdown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.paired_statistics import PairedDifference
from cxrsr_cli.evaluation.result import EvaluationResult
from cxrsr_cli.metrics.input_consistency import INCONSISTENCY, LR_PSNR
from cxrsr_cli.metrics.psnr_ssim import PSNR, SSIM
from cxrsr_cli.metrics.registry import METRICS

_FIDELITY = (PSNR, SSIM, INCONSISTENCY)
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
        name = max([_MIN_NAME_WIDTH, *(len(row[0]) + 1 for row in self.rows)])
        widths = [name, *(width for _, width in self.columns[1:])]
        header = [title for title, _ in self.columns]
        return "\n".join(_line(row, widths) for row in (header, *self.rows))

    def as_markdown(self, *, left_columns: int = 1) -> str:
        """Format in Markdown, the first `left_columns` columns aligned to the left."""
        titles = [title for title, _ in self.columns]
        lines = [titles, ["---"] * left_columns + ["--:"] * (len(titles) - left_columns)]
        return "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *self.rows])


def fidelity_table(result: EvaluationResult) -> Table:
    """Tabulate PSNR, SSIM and consistency, and the paired differences of PSNR."""
    columns = [
        ("method", 0), (PSNR.title, 9), (SSIM.title, 9), (INCONSISTENCY.title, 14),
        (f"dB over {result.reference_name}", max(15, len(result.reference_name) + 10)),
        ("+- SE", 7), ("median", 8), ("worst", 8), ("better", 9),
        ("95% interval", 20), ("p", 10),
    ]  # fmt: skip

    def row(method: Method) -> list[str]:
        means = [_number(result.mean(method, metric), metric.decimals) for metric in _FIDELITY]
        gains = _statistics(result.difference(method, PSNR), PSNR.decimals)
        return [str(method), *means, *([""] * len(gains) if method == result.reference else gains)]

    return Table(columns, [row(method) for method in result.methods])


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
            "method", "metric", "mean", "paired difference", "± SE", "median", "worst", "better",
            "95 % interval", "p",
        )
    ]  # fmt: skip
    rows = [
        [
            str(method),
            metric.title,
            _number(result.mean(method, metric), metric.decimals),
            *_statistics(result.difference(method, metric), metric.decimals),
        ]
        for metric in METRICS
        for method in result.methods
        if method != result.reference
    ]
    return Table(columns, rows)


def format_text(result: EvaluationResult) -> str:
    """Format a result for the terminal."""
    tables = (table(result).as_text() for table in (fidelity_table, structure_table, costs_table))
    return f"{result.title}\n" + "\n\n".join(tables)


def format_markdown(results: Sequence[EvaluationResult]) -> str:
    """Format results as a Markdown document."""
    parts = ["# Evaluation"]
    for result in results:
        parts += [
            f"## x{result.scale}",
            f"{result.title}; differences are to {result.reference}, image by image.",
        ]
        parts += [
            table(result).as_markdown() for table in (fidelity_table, structure_table, costs_table)
        ]
        parts += ["Every metric:", all_metrics_table(result).as_markdown()]
    return "\n\n".join(parts) + "\n"


def _statistics(difference: PairedDifference, decimals: int) -> list[str]:
    return [
        _number(difference.mean, decimals, sign="+"),
        _number(difference.standard_error, decimals),
        _number(difference.median, decimals, sign="+"),
        _number(difference.worst, decimals, sign="+"),
        f"{difference.wins}/{difference.count}",
        _interval(difference.low, difference.high, decimals),
        _UNDEFINED if math.isnan(difference.p_value) else f"{difference.p_value:.2g}",
    ]


def _interval(low: float, high: float, decimals: int) -> str:
    if math.isnan(low) or math.isnan(high):
        return _UNDEFINED
    return f"{_number(low, decimals, sign='+')} .. {_number(high, decimals, sign='+')}"


def _number(value: float, decimals: int, *, sign: str = "") -> str:
    return _UNDEFINED if math.isnan(value) else f"{value:{sign}.{decimals}f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    others = [f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "".join([f"{cells[0]:<{widths[0]}}", *others]).rstrip()
