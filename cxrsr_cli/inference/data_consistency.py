"""Data consistency: an output must downsample to its input, with legal values.

An estimate is moved to the nearest image that reproduces the input under
`downsample` and lies inside the stored range. So the output keeps what the
radiograph says, and a network fills in only what the radiograph leaves open.

The equality alone is the consistency enforcing module of Bahat and Michaeli
(CVPR 2020). The range matters on radiographs. Where collimated borders are
black or white, plain back-projection leaves the range, and clipping
afterwards breaks the equality by several stored units.

`ConsistencyDeviation` measures how far a downsampled output is from its input.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_banded
from scipy.ndimage import binary_dilation

from cxrsr_cli.dicom.pixel_format import Padding, PixelRange
from cxrsr_cli.networks.resampling import downsample, upsample

DEFAULT_STEPS = 15
OUTPUT_STEPS = 45
"""For an output: where a long border at the end of the range has a bright neighbourhood,
more steps than the default help. The number of steps does not depend on the error:
otherwise parts of an image would stop at different steps, and the seams would show."""

MARGIN = 16
"""Input pixels around a tile beyond which nothing changes what is inside. Pixels up to
half of that from where the range binds are projected, and pixels further away weigh
less than a ten thousandth there."""
_NEAR = MARGIN // 2

_RANGE_TOLERANCE = 0.05
"""Stored units by which values may leave the range and be clipped: a tenth of rounding."""

_DIAGONALS = 4
"""Diagonals of ``downsample(upsample(.))`` on each side: two pixels each."""
_BORDER = 8
"""Border rows where the operator differs from the interior (upper bound)."""

_KERNEL_RADIUS = 2
"""Input pixels on each side that the downsampling kernel covers."""

_STRIP_PIXELS = 1 << 22
"""Output pixels that are downsampled at a time, so that only these become float32."""


def project_iteratively(
    estimate: torch.Tensor,
    low_resolution: torch.Tensor,
    scale: int,
    *,
    minimum: float | torch.Tensor,
    maximum: float | torch.Tensor,
    steps: int = DEFAULT_STEPS,
) -> torch.Tensor:
    """Project `estimate` on the images within the range that downsample to `low_resolution`.

    Accelerated projected gradient: ``x <- clip(v + up(lr - down(v)))`` with
    the momentum of FISTA (Beck and Teboulle 2009).

    Parameters
    ----------
    estimate : torch.Tensor
        ``(N, C, scale * H, scale * W)``, floating point.
    low_resolution : torch.Tensor
        ``(N, C, H, W)``, same units as `estimate`.
    scale : int
        Whole factor between the two.
    minimum, maximum : float or torch.Tensor
        Legal range of the output, in the units of `estimate`. Tensors, for a batch
        of images with a range each, broadcast against it.
    steps : int
        Iterations; 0 only clips.

    Returns
    -------
    torch.Tensor
        Shape of `estimate`, every value within ``[minimum, maximum]``.
    """
    low, high = (
        torch.as_tensor(limit, dtype=estimate.dtype, device=estimate.device)
        for limit in (minimum, maximum)
    )
    current = estimate.clamp(low, high)
    point = estimate
    momentum = 1.0
    for _ in range(steps):
        previous = current
        residual = low_resolution - downsample(point, scale)
        current = upsample(residual, scale).add_(point).clamp_(low, high)
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        point = torch.lerp(previous, current, 1 + (momentum - 1) / following)
        momentum = following
    return current


def enforce_consistency(
    estimate: torch.Tensor | None,
    low_resolution: torch.Tensor,
    scale: int,
    pixel_range: PixelRange,
    *,
    steps: int = DEFAULT_STEPS,
) -> torch.Tensor:
    """Project as `project_iteratively` does, but iterate only where the range binds.

    Elsewhere the projection is linear and has a closed form (`project_closed_form`),
    which is exact.

    Parameters
    ----------
    estimate : torch.Tensor or None
        ``(1, 1, scale * H, scale * W)`` float32 stored values; None for bicubic
        interpolation of `low_resolution`.
    low_resolution, scale, steps
        As in `project_iteratively`.
    pixel_range : PixelRange
        Legal range of the output, in the units of `estimate`.

    Returns
    -------
    torch.Tensor
        ``(1, 1, scale * H, scale * W)`` within the range. Rows or columns further
        away than `MARGIN` hardly change it.
    """
    minimum, maximum = pixel_range.minimum, pixel_range.maximum
    if estimate is None:
        output = upsample(solve_down_up(low_resolution, scale), scale)
    else:
        output = project_closed_form(estimate, low_resolution, scale)
    excess = torch.maximum(minimum - output.amin(), output.amax() - maximum)
    if not excess > _RANGE_TOLERANCE:  # also for NaN, which the caller finds
        return output.clamp_(minimum, maximum)
    binding = _binding_columns(
        output, scale, minimum - _RANGE_TOLERANCE, maximum + _RANGE_TOLERANCE
    )
    output.clamp_(minimum, maximum)
    for start, stop, context_start, context_stop in _column_runs(binding):
        low = low_resolution[..., context_start:context_stop]
        context = slice(context_start * scale, context_stop * scale)
        first = upsample(low, scale) if estimate is None else estimate[..., context]
        projected = project_iteratively(
            first, low, scale, minimum=minimum, maximum=maximum, steps=steps
        )
        inner = slice((start - context_start) * scale, (stop - context_start) * scale)
        output[..., start * scale : stop * scale] = projected[..., inner]
    return output


def _binding_columns(
    output: torch.Tensor, scale: int, lowest: float, highest: float
) -> torch.Tensor:
    """Return for each column of the input whether an output value in it is out of bounds."""
    columns = ((output < lowest) | (output > highest)).any(-2)[0, 0]
    return columns.view(-1, scale).any(-1)


def _column_runs(binding: torch.Tensor) -> Iterator[tuple[int, int, int, int]]:
    """Yield (start, stop, context_start, context_stop) of column runs to project.

    Close runs are merged.
    """
    width = len(binding)
    columns = binding.nonzero()[:, 0].tolist()
    gaps = enumerate(pairwise(columns), 1)
    breaks = [number for number, (one, other) in gaps if other - one > 2 * MARGIN]
    for first, last in pairwise([0, *breaks, len(columns)]):
        start, stop = max(columns[first] - _NEAR, 0), min(columns[last - 1] + 1 + _NEAR, width)
        yield start, stop, max(start - _NEAR, 0), min(stop + _NEAR, width)


def consistent_bicubic(
    low_resolution: torch.Tensor,
    scale: int,
    pixel_range: PixelRange,
    *,
    steps: int = DEFAULT_STEPS,
) -> torch.Tensor:
    """Project bicubic interpolation: the baseline that a network must improve on.

    Parameters
    ----------
    low_resolution : torch.Tensor
        ``(N, C, H, W)``, floating point.
    scale, steps
        As in `project_iteratively`.
    pixel_range : PixelRange
        Legal range of the output, in the units of `low_resolution`.

    Returns
    -------
    torch.Tensor
        ``(N, C, scale * H, scale * W)`` within the range.
    """
    return project_iteratively(
        upsample(low_resolution, scale),
        low_resolution,
        scale,
        minimum=pixel_range.minimum,
        maximum=pixel_range.maximum,
        steps=steps,
    )


def project_closed_form(
    estimate: torch.Tensor, low_resolution: torch.Tensor, scale: int
) -> torch.Tensor:
    """Project on the images that downsample to `low_resolution`, whatever their range.

    Parameters
    ----------
    estimate : torch.Tensor
        ``(1, 1, scale * H, scale * W)`` float32.
    low_resolution : torch.Tensor
        ``(1, 1, H, W)`` float32, on the same device, in the same units.
    scale : int
        Whole factor.

    Returns
    -------
    torch.Tensor
        The nearest image to `estimate` whose `downsample` is `low_resolution`.
    """
    missing = low_resolution - downsample(estimate, scale)
    return upsample(solve_down_up(missing, scale), scale).add_(estimate)


def solve_down_up(low_resolution: torch.Tensor, scale: int) -> torch.Tensor:
    """Apply the inverse of ``downsample(upsample(.))``.

    Parameters
    ----------
    low_resolution : torch.Tensor
        ``(1, 1, H, W)`` float32.
    scale : int
        Whole factor.

    Returns
    -------
    torch.Tensor
        Of the same shape; its `upsample` downsamples to `low_resolution`.
    """
    values = low_resolution[0, 0].cpu().double().numpy()
    for _ in range(2):
        diagonals = _diagonals(values.shape[0], scale)
        # Solve along the first axis, then transpose. Two transpositions cancel.
        values = solve_banded((_DIAGONALS, _DIAGONALS), diagonals, values, check_finite=False).T
    return torch.from_numpy(values.astype(np.float32))[None, None].to(low_resolution.device)


@lru_cache(maxsize=16)
def _diagonals(length: int, scale: int) -> NDArray[np.float64]:
    """Return the diagonals of ``downsample(upsample(.))`` along one axis."""
    matrix = _matrix(min(length, 4 * _BORDER), scale)
    diagonals = np.zeros((2 * _DIAGONALS + 1, length))
    rows = np.arange(length)
    # All rows between the borders are equal.
    like = np.minimum(rows, 2 * _BORDER - 1)
    like = np.maximum(like, rows - length + len(matrix))
    for offset in range(-_DIAGONALS, _DIAGONALS + 1):
        column = rows + offset
        inside = (column >= 0) & (column < length)
        diagonals[_DIAGONALS - offset, column[inside]] = matrix[
            like[inside], (like + offset)[inside]
        ]
    return diagonals


def _matrix(length: int, scale: int) -> NDArray[np.float64]:
    columns = torch.eye(length, dtype=torch.float64).reshape(length, 1, length, 1)
    responses = downsample(upsample(columns, scale), scale)
    return responses.reshape(length, length).T.numpy()


@dataclass(frozen=True, slots=True)
class ConsistencyDeviation:
    """Difference between the downsampled output and the input.

    Attributes
    ----------
    rms, largest : float
        In stored units, over all pixels that are not padding.
    """

    rms: float = 0.0
    largest: float = 0.0

    @classmethod
    def measure(
        cls,
        output: NDArray[np.integer],
        stored: NDArray[np.int32],
        padding: Padding | None = None,
    ) -> Self:
        """Measure one frame.

        Parameters
        ----------
        output : numpy.ndarray
            ``(scale * H, scale * W)`` stored values.
        stored : numpy.ndarray
            ``(H, W)`` stored values of the input.
        padding : Padding, optional
            Pixels of padding, and those whose kernel covers padding, do not count.
        """
        counted = None
        if padding:
            counted = ~binary_dilation(
                padding.mask(stored), iterations=_KERNEL_RADIUS, structure=np.ones((3, 3))
            )
        squares, pixels, largest = 0.0, 0, 0.0
        for rows, error in _strips(output, stored):
            kept = error if counted is None else error[counted[rows]]
            squares += float(np.square(kept).sum())
            pixels += kept.size
            largest = max(largest, float(np.abs(kept).max(initial=0)))
        return cls(math.sqrt(squares / pixels), largest) if pixels else cls()

    @classmethod
    def worst_frame(
        cls,
        output: Iterable[NDArray[np.integer]],
        stored: Iterable[NDArray[np.int32]],
        padding: Padding | None = None,
    ) -> Self:
        """Measure every frame, and return the one with the largest RMS."""
        frames = zip(output, stored, strict=True)
        return max((cls.measure(*pair, padding) for pair in frames), key=lambda each: each.rms)

    def lr_psnr(self, span: int) -> float:
        """Return the PSNR of the low-resolution images in dB (NTIRE 2021's LR-PSNR).

        Parameters
        ----------
        span : int
            Largest minus smallest legal stored value: the peak.
        """
        return 20 * math.log10(span / self.rms) if self.rms else math.inf


def _strips(
    output: NDArray[np.integer], stored: NDArray[np.int32]
) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    """Downsample strip by strip, each with the rows that the kernel covers beyond it.

    At the border of the image, the kernel is cut as for the whole image. So the
    strips together equal the whole, bit for bit.
    """
    height, scale = len(stored), len(output) // len(stored)
    step = max(1, _STRIP_PIXELS // (scale * output.shape[1]))
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        first, last = max(0, top - _KERNEL_RADIUS), min(height, rows.stop + _KERNEL_RADIUS)
        low = _downsampled(output[first * scale : last * scale], scale)
        yield rows, low[rows.start - first : rows.stop - first] - stored[rows]


def _downsampled(high: NDArray[np.integer], scale: int) -> NDArray[np.float32]:
    image = torch.from_numpy(high.astype(np.float32))[None, None]
    low: NDArray[np.float32] = downsample(image, scale)[0, 0].numpy()
    return low
