"""Degrade a patch as `DegradationConfig` says, all randomness from one seed."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxrsr_cli.learn.degradation import DegradationConfig, Range
from cxrsr_cli.restore.resample import downsample

_SHARE_THAT_NORMALISATION_CUTS = 0.001
_LEAST_SHOT_NOISE = 1e-4


@dataclass(frozen=True, slots=True)
class DegradedPatch:
    """A patch before and after; shares of the legal range, within [0, 1].

    Attributes
    ----------
    low : torch.Tensor
        ``(1, H, W)`` float32, what the network gets.
    high : torch.Tensor
        ``(1, scale * H, scale * W)`` float32, what it is to make of it.
    full_range : bool
        Whether salt and pepper are so many that the percentiles of an image
        like this one, which the network's values are measured by, are the
        ends of its range.
    """

    low: torch.Tensor
    high: torch.Tensor
    full_range: bool


def degrade_patch(
    original: torch.Tensor, scale: int, degradation: DegradationConfig, *, step: float, seed: int
) -> DegradedPatch:
    """Make input and target of a patch.

    In this order: noise below one step of the stored values (`depth`), after
    which the target is done; blur; shrinking by `downsample`; shot noise;
    Gaussian noise; salt and pepper; rounding and clipping; JPEG.

    Parameters
    ----------
    original : torch.Tensor
        ``(1, scale * H, scale * W)`` float32, shares of the legal range.
    scale : int
        Whole factor.
    degradation : Degradation
        What is done.
    step : float
        One stored value, as a share of the range.
    seed : int
        Of everything drawn.

    Returns
    -------
    Degraded
        Input and target.
    """
    draw = _RandomStrength(torch.Generator().manual_seed(seed), degradation.chance)
    high = original
    if degradation.depth:
        high = (original + step * (draw.uniform(original.shape) - 0.5)).clamp_(0, 1)
    low = high
    if sigma := draw.draw_strength(degradation.blur):
        low = torch.from_numpy(gaussian_filter(low.numpy(), (0, sigma, sigma), mode="nearest"))
    low = downsample(low[None], scale)[0]
    if noise := draw.draw_strength(degradation.poisson):
        photons = max(noise, _LEAST_SHOT_NOISE) ** -2
        low = torch.poisson(low.clamp(min=0) * photons, draw.generator) / photons
    if sigma := draw.draw_strength(degradation.gaussian):
        low = low + sigma * torch.randn(low.shape, generator=draw.generator)
    share = draw.draw_strength(degradation.salt_pepper)
    if share:
        where = draw.uniform(low.shape)
        low = low.masked_fill(where < share / 2, 0.0).masked_fill(where > 1 - share / 2, 1.0)
    levels = round(1 / step)
    if degradation.depth:
        fewest, most = degradation.depth
        levels = (1 << fewest + int(draw.uniform(()) * (most - fewest + 1))) - 1
    low = (low * levels).round_().div_(levels).clamp_(0, 1)
    if degradation.jpeg and (quality := draw.draw_strength(degradation.jpeg)):
        low = _jpeg(low, round(quality))
    return DegradedPatch(low, high, full_range=share / 2 > _SHARE_THAT_NORMALISATION_CUTS)


class _RandomStrength:
    """Draws whether and how strongly."""

    def __init__(self, generator: torch.Generator, chance: float) -> None:
        self.generator = generator
        self.chance = chance

    def uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator)

    def draw_strength(self, limits: Range | None) -> float:
        """Return 0 for none."""
        if limits is None:
            return 0.0
        happens, where = self.uniform((2,))
        if happens >= self.chance:
            return 0.0
        return limits[0] + float(where) * (limits[1] - limits[0])


def _jpeg(low: torch.Tensor, quality: int) -> torch.Tensor:
    coded = io.BytesIO()
    cells = (low[0] * 255).round_().to(torch.uint8).numpy()
    Image.fromarray(cells).save(coded, "JPEG", quality=quality)
    with Image.open(coded) as decoded:
        return torch.from_numpy(np.asarray(decoded).astype(np.float32) / 255)[None]
