"""Results as JSON and CSV."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxrsr_cli.common.files import atomic_write
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.paired_statistics import CONFIDENCE, RESAMPLES, average, compare
from cxrsr_cli.evaluation.result import Cell, EvaluationResult
from cxrsr_cli.metrics.fourier_ring_correlation import PATCH, THRESHOLD
from cxrsr_cli.metrics.registry import METRICS
from cxrsr_cli.versions import NOTICE, versions

SCHEMA = "cxrsr-evaluation/2"
"""New keys keep the number. It increases if a key is removed or changes its meaning."""


def build_report(results: Sequence[EvaluationResult]) -> dict[str, Any]:
    """Return the results as plain values; numbers that are not finite become None."""
    return {
        "schema": SCHEMA,
        "notice": NOTICE,
        "versions": versions(),
        "definitions": {
            "sfrc": {"patch": PATCH, "threshold": THRESHOLD, "below_cycles_per_pixel": "0.5/scale"},
            "bootstrap": {"resamples": RESAMPLES, "confidence": CONFIDENCE, "method": "BCa"},
        },
        "outcomes": [_finite(_as_dict(result)) for result in results],
    }


def write_json(results: Sequence[EvaluationResult], path: Path) -> None:
    """Write `build_report` atomically."""
    text = json.dumps(build_report(results), indent=2, allow_nan=False)
    write_text(f"{text}\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(results: Sequence[EvaluationResult], path: Path) -> None:
    """Write one line per scale, image, kind of input and method, atomically."""
    keys = [metric.key for metric in METRICS]
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(
            ["scale", "group", "image", "input", "method", *keys, "seconds", "peak_bytes"]
        )
        for result in results:
            for image in result.images:
                for method, scores in image.scores.items():
                    usage = image.usages[method]
                    of = [result.scale, image.group, image.name, image.input_kind, method]
                    values = [scores[key] for key in keys]
                    writer.writerow([*of, *values, usage.seconds, usage.peak_bytes])


def _as_dict(result: EvaluationResult) -> dict[str, Any]:
    return {
        "scale": result.scale,
        "data": dict(result.data),
        "first_figure": result.quality.key,
        "device": result.device,
        "threads": result.threads,
        "reference": str(result.reference),
        "models": {
            base: {"name": model.name, "sha256": model.sha256}
            for base, model in result.models.items()
        },
        "methods": {
            str(method): _method(result, method) for method in result.methods if result.images
        },
        "cells": [_cell(result, cell) for cell in result.cells()],
        "failed": [{"path": str(path), "error": error} for path, error in result.failed.items()],
        "images": [
            {
                "name": image.name,
                "group": image.group,
                "input": str(image.input_kind),
                "height": image.height,
                "width": image.width,
                "minimum": image.minimum,
                "maximum": image.maximum,
                "scores": {str(method): scores for method, scores in image.scores.items()},
                "usage": {str(method): asdict(usage) for method, usage in image.usages.items()},
            }
            for image in result.images
        ],
    }


def _method(result: EvaluationResult, method: Method) -> dict[str, Any]:
    cost = result.cost(method)
    metrics = {
        metric.key: {
            "mean": result.mean(method, metric),
            "difference": None
            if method == result.reference
            else asdict(result.difference(method, metric)),
        }
        for metric in METRICS
    }
    return {
        "model": method.base if method.is_model else None,
        "impulse_filter": method.impulse_filter,
        "noise_reduction": method.noise_reduction,
        "ensemble": method.ensemble,
        "agreement": method.agreement,
        "consistent": method.consistent,
        "metrics": metrics,
        "cost": {
            "parameters": cost.complexity.parameters,
            "macs_per_input_pixel": cost.complexity.macs,
            "seconds_per_output_megapixel": cost.seconds,
            "peak_bytes_per_output_megapixel": cost.peak_bytes,
        },
    }


def _cell(result: EvaluationResult, cell: Cell) -> dict[str, Any]:
    metric = result.quality
    return {
        "input": str(cell.input_kind),
        "group": cell.group,
        "methods": {
            str(method): {
                "mean": average(cell.images, method, metric),
                "difference": None
                if method == result.reference
                else asdict(compare(cell.images, method, result.reference, metric)),
            }
            for method in result.methods
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
