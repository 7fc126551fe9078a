"""Where each method does worst against the reference."""

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
from cxrsr_cli.evaluation.scores import PSNR

SIDE = 160
"""Pixels of the original that a crop shows, at most."""


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The worst image of a method, where it is worst.

    Attributes
    ----------
    method : Method
        Whose.
    image : str
        Name of the image.
    difference : float
        Of PSNR to the reference, over the whole image, in dB.
    top, left : int
        Of the crop, in pixels of the original.
    original, reference, output : numpy.ndarray
        ``(h, w)`` float32 stored values: crops of the truth, of what the
        reference made, and of what the method made.
    inverted : bool
        True if small values are bright (MONOCHROME1).
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
        """One line that says whose it is, how bad, and from where."""
        height, width = self.original.shape
        return (
            f"{self.method}: image {self.image}, {self.difference:+.3f} dB over the whole image; "
            f"{width}x{height} pixels at row {self.top}, column {self.left}"
        )


def worst_cases(
    outcome: EvaluationResult, bench: Evaluator, paths: Sequence[Path]
) -> list[WorstCase]:
    """Restore the worst image of every method again, and cut out its worst part.

    Parameters
    ----------
    outcome : Outcome
        What the evaluation found.
    bench : Bench
        That made it.
    paths : sequence of Path
        Of the images, in the order of the outcome's.

    Returns
    -------
    list of Case
        One for each method other than the reference, in their order: the
        image whose PSNR falls most behind (or gains least), and the square in
        which its squared error is largest.
    """
    worst = dict[int, list[tuple[Method, float]]]()
    for method in outcome.methods:
        if method == outcome.reference:
            continue
        gains = differences(outcome.images, method, outcome.reference, PSNR)
        finite = [index for index, gain in enumerate(gains) if math.isfinite(gain)]
        if finite:
            index = min(finite, key=gains.__getitem__)
            worst.setdefault(index, []).append((method, gains[index]))
    cases = [
        case
        for index, found in worst.items()
        for case in _cases(bench, paths[index], outcome.reference, found)
    ]
    order = list(outcome.methods)
    return sorted(cases, key=lambda case: order.index(case.method))


def _cases(
    bench: Evaluator, path: Path, reference: Method, found: Sequence[tuple[Method, float]]
) -> Iterator[WorstCase]:
    original = read_ground_truth(path, bench.scale)
    low = make_low_resolution(original, bench.scale, bench.noise)
    outputs = {method: _plane(made.values) for method, made in bench.outputs(original, low)}
    truth = _plane(original.values)
    for method, gain in found:
        rows, columns = _largest_error_window((outputs[method] - truth) ** 2, bench.scale)
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
    """Return the square in which the mean is largest, off the border if it can be."""
    sides = [min(SIDE, length) for length in values.shape]
    means = uniform_filter(values.astype(np.float64), sides, mode="constant")
    starts = []
    for length, side in zip(values.shape, sides, strict=True):
        margin = min(border, (length - side) // 2)
        starts.append((margin, length - side - margin))
    # A filter of side n stands centred at start + n // 2.
    places = means[
        tuple(
            slice(first + side // 2, last + side // 2 + 1)
            for (first, last), side in zip(starts, sides, strict=True)
        )
    ]
    place = np.unravel_index(int(places.argmax()), places.shape)
    corner = [int(offset) + first for offset, (first, _) in zip(place, starts, strict=True)]
    rows, columns = (slice(start, start + side) for start, side in zip(corner, sides, strict=True))
    return rows, columns
