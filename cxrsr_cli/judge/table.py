"""Scores as a table for the terminal."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median, stdev

from cxrsr_cli.judge.evaluation import ImageScores, Method, Score

_HEADER = (
    f"{'method':<20}{'PSNR dB':>9}{'SSIM':>9}{'RMS to input':>14}"
    f"{'dB over floor':>15}{'+- SE':>7}{'median':>8}{'worst':>8}{'better':>9}"
)


def format_table(scores: Sequence[ImageScores]) -> str:
    """Lay out means over the images, and paired differences to the floor.

    Parameters
    ----------
    scores : sequence of ImageScores
        At least one image.

    Returns
    -------
    str
        One line a method. The floor is range-aware consistent bicubic; "SE"
        is the standard error of the mean difference, "median" and "worst" are
        the middle and smallest difference of the images, "better" counts the
        images above the floor.
    """
    lines = [_HEADER]
    for method in Method:
        column = [image.scores[method] for image in scores]
        line = (
            f"{method:<20}{_mean(column, lambda score: score.psnr):>9.3f}"
            f"{_mean(column, lambda score: score.ssim):>9.4f}"
            f"{_mean(column, lambda score: score.inconsistency):>14.3f}"
        )
        if method is not Method.CONSISTENT_BICUBIC:
            gains = [
                image.scores[method].psnr - image.scores[Method.CONSISTENT_BICUBIC].psnr
                for image in scores
            ]
            error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
            better = f"{sum(gain > 0 for gain in gains)}/{len(gains)}"
            line += f"{fmean(gains):>+15.3f}{error:>7.3f}"
            line += f"{median(gains):>+8.3f}{min(gains):>+8.3f}{better:>9}"
        lines.append(line)
    return "\n".join(lines)


def _mean(scores: Sequence[Score], of: Callable[[Score], float]) -> float:
    return fmean(of(score) for score in scores)
