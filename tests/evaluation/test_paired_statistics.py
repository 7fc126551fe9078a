"""Paired statistics have their textbook values."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, t

from cxrsr_cli.evaluation.paired_statistics import PairedDifference

GAINS = [0.5, 1.0, 2.0, -0.25, 0.75, 1.5, 3.0, 0.1]


def test_statistics_of_known_differences() -> None:
    found = PairedDifference.of(GAINS, larger_is_better=True)
    assert found.mean == pytest.approx(1.075)
    assert found.median == pytest.approx(0.875)
    assert found.worst == -0.25
    assert (found.wins, found.losses, found.count) == (7, 1, 8)
    assert found.standard_error == pytest.approx(np.std(GAINS, ddof=1) / math.sqrt(8))
    # One negative rank, the second smallest: twice P(W <= 2) = 3 / 2**8.
    assert found.p_value == pytest.approx(2 * 3 / 2**8)


def test_an_image_is_a_loss_if_it_is_worse_by_more_than_the_tolerance() -> None:
    gains = [-0.05, -0.06, 0.0, 0.01, -math.inf, math.nan]
    found = PairedDifference.of(gains, larger_is_better=True, tolerance=0.05)
    assert (found.losses, found.count, found.worst) == (2, 5, -math.inf)
    assert found.mean == pytest.approx(-0.025)
    other = PairedDifference.of([0.05, 0.06], larger_is_better=False, tolerance=0.05)
    assert other.losses == 1


def test_the_cases_of_an_image_are_one_sample_of_the_interval() -> None:
    """More kinds of input of the same images do not make a mean more certain."""
    cases = [gain for gain in GAINS for _ in range(5)]
    images = [index for index in range(len(GAINS)) for _ in range(5)]
    once = PairedDifference.of(GAINS, larger_is_better=True)
    found = PairedDifference.of(cases, larger_is_better=True, images=images)
    assert (found.mean, found.low, found.high) == pytest.approx((once.mean, once.low, once.high))
    assert (found.p_value, found.count) == (once.p_value, 40)


def test_the_worst_difference_is_the_largest_if_smaller_is_better() -> None:
    found = PairedDifference.of(GAINS, larger_is_better=False)
    assert found.worst == 3.0
    assert found.wins == 1


def test_the_interval_covers_the_mean_in_95_percent_of_samples() -> None:
    """200 samples of 30; the bootstrap of so few values covers slightly less than 95 %."""
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = PairedDifference.of(random.normal(1, 1, 30).tolist(), larger_is_better=True)
        hits += found.low <= 1 <= found.high
    assert binomtest(hits, 200, 0.94).pvalue > 0.01


def test_the_interval_is_reproducible_and_close_to_the_t_interval() -> None:
    sample = np.random.default_rng(0).normal(0.3, 1, 100).tolist()
    first, again = (PairedDifference.of(sample, larger_is_better=True) for _ in range(2))
    assert first == again
    half = t.ppf(0.975, 99) * first.standard_error
    assert first.low == pytest.approx(first.mean - half, abs=0.03)
    assert first.high == pytest.approx(first.mean + half, abs=0.03)


@pytest.mark.parametrize(
    ("differences", "mean", "low", "p_value", "count"),
    [
        ([], math.nan, math.nan, math.nan, 0),
        ([1.0], 1.0, math.nan, 1.0, 1),
        ([0.0, 0.0, 0.0], 0.0, 0.0, math.nan, 3),
        ([2.0, 2.0], 2.0, 2.0, 0.5, 2),
        ([math.nan, 1.0, math.inf], 1.0, math.nan, 1.0, 2),
    ],
)
def test_statistics_of_few_or_equal_differences(
    differences: list[float], mean: float, low: float, p_value: float, count: int
) -> None:
    found = PairedDifference.of(differences, larger_is_better=True)
    assert found.mean == pytest.approx(mean, nan_ok=True)
    assert found.low == pytest.approx(low, nan_ok=True)
    assert found.p_value == pytest.approx(p_value, nan_ok=True)
    assert found.count == count
