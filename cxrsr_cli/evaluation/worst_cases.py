"""The image and the place where each method is worst against the reference."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from cxrsr_cli.evaluation.evaluator import Evaluator, make_low_resolution, read_ground_truth
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.paired_statistics import differences
from cxrsr_cli.evaluation.result import EvaluationResult
from cxrsr_cli.metrics.psnr_ssim import PSNR

SIDE = 160
"""Largest height and width of a crop, in pixels of the original."""


@dataclass(frozen=True, slots=True)
class WorstCase:
    """A crop of the worst image of a method.

    Attributes
    ----------
    method : Method
        The method.
    image : str
        Name of the image.
    difference : float
        Difference of PSNR to the reference over the whole image, in dB.
    top, left : int
        Corner of the crop, in pixels of the original.
    original, reference, output : numpy.ndarray
        ``(h, w)`` float32 stored values: crops of the original, of the output
        of the reference, and of the output of the method.
    inverted : bool
        Whether small values are bright (MONOCHROME1).
    """

    method: Method
    image: str
    difference: float
    top: int
    left: int
    original: NDArray[np.float32]
    reference: NDArray[np.float32]
    output: NDArray[np.float32]
    inverted: bool

    @property
    def caption(self) -> str:
        """One line with method, image, difference and position."""
        height, width = self.original.shape
        return (
            f"{self.method}: image {self.image}, {self.difference:+.3f} dB over the whole image; "
            f"{width}x{height} pixels at row {self.top}, column {self.left}"
        )


def worst_cases(
    result: EvaluationResult, evaluator: Evaluator, paths: Sequence[Path]
) -> list[WorstCase]:
    """Upscale the worst image of every method again and crop its worst part.

    Parameters
    ----------
    result : EvaluationResult
        Result of the evaluation.
    evaluator : Evaluator
        The one that made `result`.
    paths : sequence of Path
        Files of the images, in the order of ``result.images``.

    Returns
    -------
    list of WorstCase
        One for each method other than the reference, in their order: the image
        with the smallest difference of PSNR to the reference, and the square
        with the largest squared error.
    """
    worst = dict[int, list[tuple[Method, float]]]()
    for method in result.methods:
        if method == result.reference:
            continue
        gains = differences(result.images, method, result.reference, PSNR)
        finite = [index for index, gain in enumerate(gains) if math.isfinite(gain)]
        if finite:
            index = min(finite, key=gains.__getitem__)
            worst.setdefault(index, []).append((method, gains[index]))
    cases = [
        case
        for index, gains in worst.items()
        for case in _cases(evaluator, paths[index], result.reference, gains)
    ]
    order = list(result.methods)
    return sorted(cases, key=lambda case: order.index(case.method))


def _cases(
    evaluator: Evaluator, path: Path, reference: Method, gains: Sequence[tuple[Method, float]]
) -> Iterator[WorstCase]:
    original = read_ground_truth(path, evaluator.scale)
    low = make_low_resolution(original, evaluator.scale, evaluator.noise)
    outputs = {method: _plane(output.values) for method, output in evaluator.outputs(original, low)}
    truth = _plane(original.values)
    for method, gain in gains:
        rows, columns = _largest_error_window((outputs[method] - truth) ** 2, evaluator.scale)
        yield WorstCase(
            method=method,
            image=original.name,
            difference=gain,
            top=rows.start,
            left=columns.start,
            original=truth[rows, columns],
            reference=outputs[reference][rows, columns],
            output=outputs[method][rows, columns],
            inverted=original.inverted,
        )


def _plane(values: torch.Tensor) -> NDArray[np.float32]:
    plane: NDArray[np.float32] = values[0, 0].numpy()
    return plane


def _largest_error_window(values: NDArray[np.float32], border: int) -> tuple[slice, slice]:
    """Return the square with the largest mean, outside of the border where possible."""
    sides = [min(SIDE, length) for length in values.shape]
    means = uniform_filter(values.astype(np.float64), sides, mode="constant")
    starts = []
    for length, side in zip(values.shape, sides, strict=True):
        margin = min(border, (length - side) // 2)
        starts.append((margin, length - side - margin))
    # The window of a filter of size n that begins at `start` has its centre at start + n // 2.
    centres = means[
        tuple(
            slice(first + side // 2, last + side // 2 + 1)
            for (first, last), side in zip(starts, sides, strict=True)
        )
    ]
    centre = np.unravel_index(int(centres.argmax()), centres.shape)
    corner = [int(offset) + first for offset, (first, _) in zip(centre, starts, strict=True)]
    rows, columns = (slice(start, start + side) for start, side in zip(corner, sides, strict=True))
    return rows, columns
