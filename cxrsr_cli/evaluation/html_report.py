"""Results as one HTML page that contains its pictures."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

from cxrsr_cli.evaluation.plots import paired_differences, quality_against_cost, worst_case_figure
from cxrsr_cli.evaluation.result import EvaluationResult
from cxrsr_cli.evaluation.tables import Table, all_metrics_table, tables
from cxrsr_cli.evaluation.worst_cases import WorstCase
from cxrsr_cli.versions import NOTICE, versions

_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 80em; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }
th, td { padding: .2em .7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% }
"""


def build_page(
    results: Sequence[EvaluationResult], cases: Mapping[int, Sequence[WorstCase]]
) -> str:
    """Build the page with all tables and plots.

    Parameters
    ----------
    results : sequence of EvaluationResult
        One per scale.
    cases : mapping
        The worst cases, by scale.

    Returns
    -------
    str
        An HTML document; the pictures are embedded.
    """
    software = ", ".join(f"{name} {version}" for name, version in versions().items() if version)
    sections = "".join(_section(result, cases[result.scale]) for result in results)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>cxrsr evaluation</title><style>{_STYLE}</style></head><body>"
        f"<h1>Evaluation</h1><p>{escape(NOTICE)}</p>{sections}<p>{escape(software)}</p>"
        "</body></html>\n"
    )


def _section(result: EvaluationResult, cases: Sequence[WorstCase]) -> str:
    if not result.images:
        return f"<h2>x{result.scale}</h2><p>{escape(result.title)}</p>"
    return (
        f"<h2>x{result.scale}</h2><p>{escape(result.title)}; networks on "
        f"{escape(result.device)}, {result.threads} CPU threads. Differences are to "
        f"{escape(str(result.reference))}, image by image.</p>"
        f"{''.join(_table(table) for table in tables(result))}"
        f"<h3>Quality against cost</h3>{_picture(quality_against_cost(result), 'scatter plot')}"
        f"{_paired_differences(result)}"
        f"<h3>Worst case of each method</h3>{''.join(_case(case) for case in cases)}"
        f"<h3>Every metric</h3>{_table(all_metrics_table(result))}"
    )


def _paired_differences(result: EvaluationResult) -> str:
    if list(result.methods) == [result.reference]:
        return ""
    return (
        "<h3>Paired differences</h3><p>A dot is an image with a kind of input, the triangle is the "
        f"mean.</p>{_picture(paired_differences(result), 'box plots')}"
    )


def _case(case: WorstCase) -> str:
    picture = _picture(worst_case_figure(case), "crops and difference maps")
    return f"<p>{escape(case.caption)}</p>{picture}"


def _table(table: Table) -> str:
    header = "".join(f"<th>{escape(title)}</th>" for title, _ in table.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    return f"<table><tr>{header}</tr>{rows}</table>"


def _picture(png: bytes, alt: str) -> str:
    encoded = base64.b64encode(png).decode("ascii")
    return f'<img alt="{alt}" src="data:image/png;base64,{encoded}">'
