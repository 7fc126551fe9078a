"""The image and the place where each method is worst against the reference."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from cxrsr_cli.errors import InputError
from cxrsr_cli.evaluation.evaluator import Evaluator, ImageScores, read_ground_truth
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.paired_statistics import differences
from cxrsr_cli.evaluation.result import EvaluationResult
from cxrsr_cli.images.marks import mark_mask

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
    input_kind : str
        How the input was made.
    difference : float
        Difference of the result's first figure to the reference, in dB.
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
    input_kind: str
    difference: float
    top: int
    left: int
    original: NDArray[np.float32]
    reference: NDArray[np.float32]
    output: NDArray[np.float32]
    inverted: bool

    @property
    def caption(self) -> str:
        """One line with method, image, input, difference and position."""
        height, width = self.original.shape
        return (
            f"{self.method}: image {self.image}, input {self.input_kind}, "
            f"{self.difference:+.3f} dB; "
            f"{width}x{height} pixels at row {self.top}, column {self.left}"
        )


def worst_cases(result: EvaluationResult, evaluator: Evaluator) -> list[WorstCase]:
    """Upscale the worst image of every method again and crop its worst part.

    Parameters
    ----------
    result : EvaluationResult
        Result of the evaluation.
    evaluator : Evaluator
        The one that made `result`.

    Returns
    -------
    list of WorstCase
        One for each method other than the reference, in their order: the image and the kind
        of input with the smallest difference of the first figure to the reference, and the
        square with the largest squared error, outside of marks if the first figure is.
    """
    cases = list[WorstCase]()
    for method in result.methods:
        gains = differences(result.images, method, result.reference, result.quality)
        defined = [index for index, gain in enumerate(gains) if not math.isnan(gain)]
        if method != result.reference and defined:
            index = min(defined, key=gains.__getitem__)
            pair = replace(evaluator, methods=(result.reference, method))
            cases.append(_case(pair, result.images[index], gains[index], result.whole_image))
    return cases


def _case(evaluator: Evaluator, image: ImageScores, gain: float, whole_image: bool) -> WorstCase:
    """Make the case of an evaluator with two methods: the reference and the other."""
    try:
        original = read_ground_truth(image.path, evaluator.scale)
    except InputError as changed:  # since it was scored
        raise type(changed)(f"{image.path}: {changed}") from changed
    low = image.input_kind.reduce(original, evaluator.scale)
    outputs = [_plane(output.values) for _, output in evaluator.outputs(original, low)]
    reference, output = outputs
    truth = _plane(original.values)
    error = (output - truth) ** 2
    if not whole_image:
        error[mark_mask(original.values, original.data_range)[0, 0].numpy()] = 0
    rows, columns = _largest_error_window(error, evaluator.scale)
    return WorstCase(
        method=evaluator.methods[1],
        image=image.name,
        input_kind=str(image.input_kind),
        difference=gain,
        top=rows.start,
        left=columns.start,
        original=truth[rows, columns],
        reference=reference[rows, columns],
        output=output[rows, columns],
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
