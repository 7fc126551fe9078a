"""Agreement: the mean of each block of the output is the source's pixel, to within its noise.

A detector's pixel is the mean over its area. An output of a higher resolution shows the same
radiograph if the mean of its block of ``scale * scale`` pixels is that pixel. Where the pixel is
noisy, the mean may leave it by `SIGMAS` standard deviations of the noise.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from cxrsr_cli.dicom.pixel_format import Padding, PixelRange
from cxrsr_cli.inference.noise_curve import NO_NOISE, NoiseCurve
from cxrsr_cli.networks.config import Agreement
from cxrsr_cli.networks.resampling import block_mean, repeat_pixels

ROUNDING = 0.5
"""Stored units: rounding moves the mean of a block by no more."""
_STRIP_ROWS = 256
_VALUE_TOLERANCE = 4 * float(np.finfo(np.float32).eps)
"""Share of the largest legal value: outputs are made in float32."""
_BOUND_TOLERANCE = 0.01
"""Share of the bound: another machine may estimate the noise with another last digit."""

_NOISE = "; sigma at stored values: "
"""Stands before the noise in a description."""

SIGMAS = 2.0
"""Standard deviations of the noise by which a block's mean may leave the source's pixel."""


def enforce_agreement(
    estimate: torch.Tensor,
    source: torch.Tensor,
    scale: int,
    *,
    bound: torch.Tensor | float,
    minimum: torch.Tensor | float,
    maximum: torch.Tensor | float,
) -> torch.Tensor:
    """Move each block so that its mean is within the bound of the source, and all values legal.

    The block is shifted by what its mean lacks, and clipped to the range. What clipping took
    away is given to the other pixels of the block in proportion to their distance from the end
    of the range, which is enough at once: the mean is a legal value.

    Parameters
    ----------
    estimate : torch.Tensor
        ``(N, 1, scale * H, scale * W)``, floating point.
    source : torch.Tensor
        ``(N, 1, H, W)`` in the same units, within the range.
    scale : int
        Whole factor between the two.
    bound : torch.Tensor or float
        Largest difference between a block's mean and its pixel; a tensor broadcasts against
        `source`. 0 is `Agreement.EXACT`.
    minimum, maximum : torch.Tensor or float
        Legal range; tensors broadcast against `source`.

    Returns
    -------
    torch.Tensor
        Shape of `estimate`, within the range.

    Notes
    -----
    It is differentiable. Blocks do not depend on each other.
    """
    low, high, bound = (
        torch.as_tensor(limit, dtype=estimate.dtype, device=estimate.device)
        for limit in (minimum, maximum, bound)
    )
    mean = block_mean(estimate, scale)
    wanted = torch.maximum(torch.minimum(mean, source + bound), source - bound).clamp(low, high)
    moved = (estimate + repeat_pixels(wanted - mean, scale)).clamp(low, high)
    lacking = wanted - block_mean(moved, scale)
    room = torch.where(repeat_pixels(lacking, scale) > 0, high - moved, low - moved)
    share = lacking / block_mean(room, scale).abs().clamp(min=torch.finfo(room.dtype).tiny)
    return (moved + repeat_pixels(share.abs(), scale) * room).clamp(low, high)


@dataclass(frozen=True, slots=True)
class AgreementDeviation:
    """Difference between the means of an output's blocks and the source's pixels.

    Attributes
    ----------
    rms, mean, largest : float
        Root mean square, mean and largest absolute difference in stored units, over all pixels
        that are not padding.
    beyond : float
        Largest amount by which a difference exceeds its bound, `SIGMAS` standard deviations of
        the noise and half a stored unit of rounding; 0 if none does.
    noise : NoiseCurve
        Of the frame; decides the bound.
    """

    rms: float = 0.0
    mean: float = 0.0
    largest: float = 0.0
    beyond: float = 0.0
    noise: NoiseCurve = NO_NOISE

    @classmethod
    def measure(
        cls,
        output: NDArray[np.integer],
        stored: NDArray[np.int32],
        padding: Padding | None = None,
        noise: NoiseCurve | None = None,
    ) -> Self:
        """Measure one frame.

        Parameters
        ----------
        output : numpy.ndarray
            ``(scale * H, scale * W)`` stored values.
        stored : numpy.ndarray
            ``(H, W)`` stored values of the source.
        padding : Padding, optional
            Its pixels do not count.
        noise : NoiseCurve, optional
            Of the source; no noise by default.
        """
        scale, width = len(output) // len(stored), stored.shape[1]
        noise = noise or NO_NOISE
        squares, absolutes, pixels, largest, beyond = 0.0, 0.0, 0, 0.0, 0.0
        for top in range(0, len(stored), _STRIP_ROWS):
            rows = stored[top : top + _STRIP_ROWS]
            blocks = output[top * scale :][: len(rows) * scale].reshape(-1, scale, width, scale)
            error = np.abs(blocks.mean((1, 3), dtype=np.float64) - rows)
            over = error - SIGMAS * noise.at(rows) - ROUNDING
            if padding:
                counted = ~padding.mask(rows)
                error, over = error[counted], over[counted]
            squares += float(np.square(error).sum())
            absolutes += float(error.sum())
            pixels += error.size
            largest = max(largest, float(error.max(initial=0)))
            beyond = max(beyond, float(over.max(initial=0)))
        if not pixels:
            return cls(noise=noise)
        return cls(math.sqrt(squares / pixels), absolutes / pixels, largest, beyond, noise)

    @classmethod
    def worst_frame(
        cls,
        output: Iterable[NDArray[np.integer]],
        stored: Iterable[NDArray[np.int32]],
        padding: Padding | None = None,
        noise: Iterable[NoiseCurve] | None = None,
    ) -> Self:
        """Measure every frame; return the one furthest beyond its bound, else of largest error."""
        frames = list(zip(output, stored, strict=True))
        curves = list(noise) if noise is not None else [NO_NOISE] * len(frames)
        return max(
            (
                cls.measure(*pair, padding, curve)
                for pair, curve in zip(frames, curves, strict=True)
            ),
            key=lambda each: (each.beyond, each.largest),
        )

    def is_within_bound(self, pixel_range: PixelRange) -> bool:
        """Whether no difference exceeds its bound by more than arithmetic explains.

        Parameters
        ----------
        pixel_range : PixelRange
            Legal stored values.
        """
        largest_value = max(abs(pixel_range.minimum), abs(pixel_range.maximum))
        tolerance = _BOUND_TOLERANCE * SIGMAS * max(self.noise.sigmas)
        return self.beyond <= tolerance + _VALUE_TOLERANCE * largest_value

    def describe(self, agreement: Agreement) -> str:
        """Say for the object what was enforced, in ASCII: rule, deviation, and the noise."""
        found = f"largest difference {self.largest:.3g}, mean {self.mean:.3g} stored units"
        match agreement:
            case Agreement.NONE:
                return f"means of blocks not bound to the source pixels; {found}"
            case Agreement.EXACT:
                return f"mean of each block is the source pixel; {found}"
            case Agreement.NOISE:
                return (
                    f"mean of each block is the source pixel to within {SIGMAS:g} sigma of its "
                    f"noise; {found}{_NOISE}{self.noise}"
                )


def read_noise(description: str) -> NoiseCurve | None:
    """Return the noise that `AgreementDeviation.describe` wrote into a text; None if there is none.

    Raises
    ------
    ValueError
        If it is no curve.
    """
    stated = description.partition(_NOISE)[2]
    return NoiseCurve.from_text(stated.partition(";")[0]) if stated else None
