"""Outcomes as one HTML page that needs nothing else."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

from cxrsr_cli.evaluation.plots import paired_differences, quality_against_cost, worst_case_figure
from cxrsr_cli.evaluation.result import EvaluationResult
from cxrsr_cli.evaluation.tables import (
    Table,
    all_metrics_table,
    costs_table,
    fidelity_table,
    structure_table,
)
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
    outcomes: Sequence[EvaluationResult], cases: Mapping[int, Sequence[WorstCase]]
) -> str:
    """Draw and lay out everything.

    Parameters
    ----------
    outcomes : sequence of Outcome
        One a scale.
    cases : mapping
        The worst cases, by scale.

    Returns
    -------
    str
        An HTML document; its pictures are in it.
    """
    software = ", ".join(f"{name} {found}" for name, found in versions().items() if found)
    sections = "".join(_section(outcome, cases[outcome.scale]) for outcome in outcomes)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>cxrsr evaluation</title><style>{_STYLE}</style></head><body>"
        f"<h1>Evaluation</h1><p>{escape(NOTICE)}</p>{sections}<p>{escape(software)}</p>"
        "</body></html>\n"
    )


def _section(outcome: EvaluationResult, cases: Sequence[WorstCase]) -> str:
    tables = "".join(
        _table(table(outcome)) for table in (fidelity_table, structure_table, costs_table)
    )
    return (
        f"<h2>x{outcome.scale}</h2><p>{escape(outcome.title)}; networks on "
        f"{escape(outcome.device)}, {outcome.threads} CPU threads. Differences are to "
        f"{escape(str(outcome.reference))}, image by image.</p>{tables}"
        f"<h3>Quality against cost</h3>{_picture(quality_against_cost(outcome), 'scatter plot')}"
        f"<h3>Paired differences</h3><p>A dot is an image, a triangle the mean.</p>"
        f"{_picture(paired_differences(outcome), 'box plots')}"
        f"<h3>Where each method does worst</h3>{''.join(_case(case) for case in cases)}"
        f"<h3>Every metric</h3>{_table(all_metrics_table(outcome))}"
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
