"""Paired comparison of methods over images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, wilcoxon

from cxrsr_cli.evaluation.evaluator import ImageScores
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.metrics.metric import Metric

RESAMPLES = 9999
CONFIDENCE = 0.95
_SEED = 20240310


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Method minus reference, image by image.

    Attributes
    ----------
    mean, median : float
        Of the differences.
    low, high : float
        95 % bootstrap confidence interval of the mean: bias-corrected and
        accelerated (Efron 1987), 9,999 resamples of the images, fixed seed. NaN
        for fewer than two images.
    standard_error : float
        Of the mean.
    worst : float
        Difference of the image on which the method is worst.
    wins : int
        Number of images on which the method is better than the reference.
    count : int
        Number of images for which both values are finite.
    p_value : float
        Two-sided Wilcoxon signed-rank test (Wilcoxon 1945; zeros left out). NaN
        if all differences are zero.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    median: float
    worst: float
    wins: int
    count: int
    p_value: float

    @classmethod
    def of(cls, differences: Sequence[float], *, larger_is_better: bool) -> Self:
        """Summarise the differences that are finite."""
        values = np.asarray(differences, dtype=np.float64)
        values = values[np.isfinite(values)]
        if not values.size:
            nan = math.nan
            return cls(nan, nan, nan, nan, nan, nan, 0, 0, nan)
        low, high = _interval(values)
        gains = values if larger_is_better else -values
        several = values.size > 1
        return cls(
            mean=float(values.mean()),
            low=low,
            high=high,
            standard_error=float(values.std(ddof=1) / values.size**0.5) if several else math.nan,
            median=float(np.median(values)),
            worst=float(values[gains.argmin()]),
            wins=int((gains > 0).sum()),
            count=values.size,
            p_value=float(wilcoxon(values).pvalue) if values.any() else math.nan,
        )


def differences(
    images: Sequence[ImageScores], method: Method, reference: Method, metric: Metric
) -> list[float]:
    """Return ``metric(method) - metric(reference)`` for every image; NaN where not finite."""
    pairs = [
        (image.scores[method][metric.key], image.scores[reference][metric.key]) for image in images
    ]
    return [a - b if math.isfinite(a) and math.isfinite(b) else math.nan for a, b in pairs]


def compare(
    images: Sequence[ImageScores], method: Method, reference: Method, metric: Metric
) -> PairedDifference:
    """Compare a method with the reference by one metric."""
    return PairedDifference.of(
        differences(images, method, reference, metric), larger_is_better=metric.larger_is_better
    )


def average(images: Sequence[ImageScores], method: Method, metric: Metric) -> float:
    """Return the mean over the images for which the metric is defined."""
    values = [image.scores[method][metric.key] for image in images]
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    if values.size < 2:
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        random_state=np.random.default_rng(_SEED),
    ).confidence_interval
    return float(interval.low), float(interval.high)
