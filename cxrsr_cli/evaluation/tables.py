"""Outcomes as tables, for the terminal and in Markdown."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.paired_statistics import PairedDifference
from cxrsr_cli.evaluation.result import EvaluationResult
from cxrsr_cli.evaluation.scores import (
    HAARPSI_MED,
    INCONSISTENCY,
    LR_PSNR,
    METRICS,
    MS_SSIM,
    PSNR,
    SFRC_FLAGGED,
    SSIM,
)

_NOTHING = "-"
_NAME_WIDTH = 20


@dataclass(frozen=True, slots=True)
class Table:
    """Cells that are text already.

    Attributes
    ----------
    columns : sequence of (str, int)
        Title of each and its width in the terminal.
    rows : sequence of sequence of str
        As many cells as columns; an empty one says nothing.
    """

    columns: Sequence[tuple[str, int]]
    rows: Sequence[Sequence[str]]

    def as_text(self) -> str:
        """Lay out in columns, the first to the left."""
        name = max([_NAME_WIDTH, *(len(row[0]) + 1 for row in self.rows)])
        widths = [name, *(width for _, width in self.columns[1:])]
        header = [title for title, _ in self.columns]
        return "\n".join(_line(row, widths) for row in (header, *self.rows))

    def as_markdown(self, *, words: int = 1) -> str:
        """Lay out in Markdown, the first `words` columns to the left."""
        titles = [title for title, _ in self.columns]
        lines = [titles, ["---"] * words + ["--:"] * (len(titles) - words)]
        return "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *self.rows])


def fidelity_table(outcome: EvaluationResult) -> Table:
    """Tabulate PSNR and SSIM, and paired differences of PSNR to the reference."""
    columns = [
        ("method", 0), (PSNR.title, 9), (SSIM.title, 9), (INCONSISTENCY.title, 14),
        (f"dB over {outcome.reference_name}", max(15, len(outcome.reference_name) + 10)),
        ("+- SE", 7), ("median", 8), ("worst", 8), ("better", 9),
        ("95% interval", 20), ("p", 10),
    ]  # fmt: skip

    def row(method: Method) -> list[str]:
        means = [
            _number(outcome.mean(method, metric), metric.decimals)
            for metric in (PSNR, SSIM, INCONSISTENCY)
        ]
        return [str(method), *means, *_paired(outcome, method, lambda found: _gains(found, 3))]

    return Table(columns, [row(method) for method in outcome.methods])


def structure_table(outcome: EvaluationResult) -> Table:
    """Tabulate the other metrics, each with its mean paired difference."""
    paired, columns = (MS_SSIM, HAARPSI_MED, SFRC_FLAGGED), [("method", 0)]
    for metric in paired:
        columns += [(metric.title, len(metric.title) + 3), ("paired", 9)]
    columns.append((LR_PSNR.title, 13))

    def row(method: Method) -> list[str]:
        cells = [str(method)]
        for metric in paired:
            cells.append(_number(outcome.mean(method, metric), metric.decimals))
            difference = outcome.difference(method, metric).mean
            is_reference = method == outcome.reference
            cells.append("" if is_reference else _number(difference, metric.decimals, sign="+"))
        return [*cells, _number(outcome.mean(method, LR_PSNR), LR_PSNR.decimals)]

    return Table(columns, [row(method) for method in outcome.methods])


def costs_table(outcome: EvaluationResult) -> Table:
    """Tabulate what the methods cost."""
    columns = [
        ("method", 0), ("parameters", 12), ("MACs/input px", 15), ("s/MP out", 10),
        ("MB/MP out", 11),
    ]  # fmt: skip

    def row(method: Method) -> list[str]:
        cost = outcome.cost(method)
        peak = math.nan if cost.peak_bytes is None else cost.peak_bytes / 1e6
        return [
            str(method),
            f"{cost.complexity.parameters:,}",
            f"{cost.complexity.macs:,.0f}",
            _number(cost.seconds, 3),
            _number(peak, 0),
        ]

    return Table(columns, [row(method) for method in outcome.methods])


def all_metrics_table(outcome: EvaluationResult) -> Table:
    """Tabulate every metric of every method with all its statistics."""
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
            _number(outcome.mean(method, metric), metric.decimals),
            *_gains(outcome.difference(method, metric), metric.decimals),
        ]
        for metric in METRICS
        for method in outcome.methods
        if method != outcome.reference
    ]
    return Table(columns, rows)


def format_text(outcome: EvaluationResult) -> str:
    """Lay out an outcome for the terminal."""
    tables = (table(outcome).as_text() for table in (fidelity_table, structure_table, costs_table))
    return f"{outcome.title}\n" + "\n\n".join(tables)


def format_markdown(outcomes: Sequence[EvaluationResult]) -> str:
    """Lay out outcomes as a Markdown document."""
    parts = ["# Evaluation"]
    for outcome in outcomes:
        parts += [
            f"## x{outcome.scale}",
            f"{outcome.title}; differences are to {outcome.reference}, image by image.",
        ]
        parts += [
            table(outcome).as_markdown() for table in (fidelity_table, structure_table, costs_table)
        ]
        parts += ["Every metric:", all_metrics_table(outcome).as_markdown()]
    return "\n\n".join(parts) + "\n"


def _paired(
    outcome: EvaluationResult, method: Method, cells: Callable[[PairedDifference], list[str]]
) -> list[str]:
    found = cells(outcome.difference(method, PSNR))
    return [""] * len(found) if method == outcome.reference else found


def _gains(found: PairedDifference, decimals: int) -> list[str]:
    return [
        _number(found.mean, decimals, sign="+"),
        _number(found.standard_error, decimals),
        _number(found.median, decimals, sign="+"),
        _number(found.smallest, decimals, sign="+"),
        f"{found.wins}/{found.count}",
        _interval(found.low, found.high, decimals),
        _NOTHING if math.isnan(found.p_value) else f"{found.p_value:.2g}",
    ]


def _interval(low: float, high: float, decimals: int) -> str:
    if math.isnan(low) or math.isnan(high):
        return _NOTHING
    return f"{_number(low, decimals, sign='+')} .. {_number(high, decimals, sign='+')}"


def _number(value: float, decimals: int, *, sign: str = "") -> str:
    return _NOTHING if math.isnan(value) else f"{value:{sign}.{decimals}f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    others = [f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "".join([f"{cells[0]:<{widths[0]}}", *others]).rstrip()
