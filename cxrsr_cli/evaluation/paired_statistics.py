"""Paired comparison of methods over images."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from scipy.stats import bootstrap, wilcoxon

from cxrsr_cli.evaluation.evaluator import ImageScores
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.metrics.metric import Metric

RESAMPLES = 9999
CONFIDENCE = 0.95
_SEED = 20240310


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Method minus reference, case by case: an image with one kind of input.

    Interval, standard error and p-value are of the means of the images over their
    kinds of input: the cases of an image depend on each other.

    Attributes
    ----------
    mean, median : float
        Of the differences that are finite; the mean is that of the images' means.
    low, high : float
        95 % bootstrap confidence interval of the mean: bias-corrected and
        accelerated (Efron 1987), 9,999 resamples of the images, fixed seed. NaN
        for fewer than two images.
    standard_error : float
        Of the mean.
    worst : float
        Difference of the case in which the method is worst.
    wins, losses : int
        Number of cases in which the method is better than the reference, and in which it is
        worse by more than the metric's tolerance.
    count : int
        Number of cases for which the difference is defined.
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
    losses: int
    count: int
    p_value: float

    @classmethod
    def of(
        cls,
        differences: Sequence[float],
        *,
        larger_is_better: bool,
        tolerance: float = 0.0,
        images: Sequence[Hashable] | None = None,
    ) -> Self:
        """Summarise differences.

        Parameters
        ----------
        differences : sequence of float
            One of each case. NaN is left out. An infinite one, where one of the two outputs
            is without error, counts for `worst`, `wins`, `losses` and `count` only.
        larger_is_better : bool
            Direction of the metric.
        tolerance : float
            How much worse a case may be without being a loss.
        images : sequence, optional
            The image of each case. By default each case is of another image.
        """
        values = np.asarray(differences, dtype=np.float64)
        by_image = dict[Hashable, list[float]]()
        for image, value in zip(images or range(values.size), values.tolist(), strict=True):
            if math.isfinite(value):
                by_image.setdefault(image, []).append(value)
        defined = values[~np.isnan(values)]
        gains = defined if larger_is_better else -defined
        means = np.array([sum(own) / len(own) for own in by_image.values()])
        low, high = _interval(tuple(means.tolist()))
        several = means.size > 1
        return cls(
            mean=float(means.mean()) if means.size else math.nan,
            low=low,
            high=high,
            standard_error=float(means.std(ddof=1) / means.size**0.5) if several else math.nan,
            median=float(np.median(defined[np.isfinite(defined)])) if means.size else math.nan,
            worst=float(defined[gains.argmin()]) if defined.size else math.nan,
            wins=int((gains > 0).sum()),
            losses=int((gains < -tolerance).sum()),
            count=defined.size,
            p_value=float(wilcoxon(means).pvalue) if means.any() else math.nan,
        )


def differences(
    images: Sequence[ImageScores], method: Method, reference: Method, metric: Metric
) -> list[float]:
    """Return ``metric(method) - metric(reference)`` for every case.

    NaN where a value is not defined, or both outputs are without error.
    """
    return [
        image.scores[method][metric.key] - image.scores[reference][metric.key] for image in images
    ]


def compare(
    images: Sequence[ImageScores], method: Method, reference: Method, metric: Metric
) -> PairedDifference:
    """Compare a method with the reference by one metric."""
    return PairedDifference.of(
        differences(images, method, reference, metric),
        larger_is_better=metric.larger_is_better,
        tolerance=metric.tolerance,
        images=[image.path for image in images],
    )


def average(images: Sequence[ImageScores], method: Method, metric: Metric) -> float:
    """Return the mean over the cases for which the metric is defined."""
    values = [image.scores[method][metric.key] for image in images]
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


@lru_cache(maxsize=1024)  # several tables show the same interval
def _interval(values: tuple[float, ...]) -> tuple[float, float]:
    if len(values) < 2:
        return math.nan, math.nan
    if len(set(values)) == 1:
        return values[0], values[0]
    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        random_state=np.random.default_rng(_SEED),
    ).confidence_interval
    return float(interval.low), float(interval.high)
