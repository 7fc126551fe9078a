"""Outcomes for machines: JSON and CSV."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxrsr_cli.common.files import atomic_write
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.paired_statistics import CONFIDENCE, RESAMPLES
from cxrsr_cli.evaluation.result import EvaluationResult
from cxrsr_cli.evaluation.scores import METRICS
from cxrsr_cli.metrics.fourier_ring_correlation import PATCH, THRESHOLD
from cxrsr_cli.versions import NOTICE, versions

SCHEMA = "cxrsr-evaluation/1"
"""Grows by new keys; another number when one changes its meaning or goes."""


def build_report(outcomes: Sequence[EvaluationResult]) -> dict[str, Any]:
    """Return outcomes as plain values; what is not a finite number is None."""
    return {
        "schema": SCHEMA,
        "notice": NOTICE,
        "versions": versions(),
        "definitions": {
            "sfrc": {"patch": PATCH, "threshold": THRESHOLD, "below_cycles_per_pixel": "0.5/scale"},
            "bootstrap": {"resamples": RESAMPLES, "confidence": CONFIDENCE, "method": "BCa"},
        },
        "outcomes": [_finite(_outcome(outcome)) for outcome in outcomes],
    }


def write_json(outcomes: Sequence[EvaluationResult], path: Path) -> None:
    """Write `build_report`, whole or not at all."""
    text = json.dumps(build_report(outcomes), indent=2, allow_nan=False)
    write_text(f"{text}\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a text, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(outcomes: Sequence[EvaluationResult], path: Path) -> None:
    """Write one line per scale, image and method."""
    keys = [metric.key for metric in METRICS]
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as opened,
    ):
        writer = csv.writer(opened)
        writer.writerow(["scale", "image", "method", *keys, "seconds", "peak_bytes"])
        for outcome in outcomes:
            for image in outcome.images:
                for method, score in image.scores.items():
                    values = [metric.of(score) for metric in METRICS]
                    usage = image.usages[method]
                    row = [outcome.scale, image.name, str(method), *values]
                    writer.writerow([*row, usage.seconds, usage.peak_bytes])


def _outcome(outcome: EvaluationResult) -> dict[str, Any]:
    return {
        "scale": outcome.scale,
        "data": outcome.data,
        "noise": str(outcome.noise) if outcome.noise else None,
        "device": outcome.device,
        "threads": outcome.threads,
        "reference": str(outcome.reference),
        "models": {
            base: {"name": model.name, "sha256": model.sha256}
            for base, model in outcome.models.items()
        },
        "methods": {str(method): _method(outcome, method) for method in outcome.methods},
        "images": [
            {
                "name": image.name,
                "height": image.height,
                "width": image.width,
                "minimum": image.minimum,
                "maximum": image.maximum,
                "scores": {str(method): asdict(score) for method, score in image.scores.items()},
                "usage": {str(method): asdict(usage) for method, usage in image.usages.items()},
            }
            for image in outcome.images
        ],
    }


def _method(outcome: EvaluationResult, method: Method) -> dict[str, Any]:
    cost = outcome.cost(method)
    metrics = {
        metric.key: {
            "mean": outcome.mean(method, metric),
            "difference": None
            if method == outcome.reference
            else asdict(outcome.difference(method, metric)),
        }
        for metric in METRICS
    }
    return {
        "model": method.base if method.is_model else None,
        "filtered": method.filtered,
        "ensemble": method.ensemble,
        "consistent": method.consistent,
        "metrics": metrics,
        "cost": {
            "parameters": cost.complexity.parameters,
            "macs_per_input_pixel": cost.complexity.macs,
            "seconds_per_output_megapixel": cost.seconds,
            "peak_bytes_per_output_megapixel": cost.peak_bytes,
        },
    }


def _finite(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list():
            return [_finite(item) for item in value]
        case _:
            return value
