"""Degrade a patch as `DegradationConfig` says, all randomness from one seed."""

import io
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxrsr_cli.networks.resampling import downsample

Range = tuple[float, float]

_DEPTHS = (8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradationConfig:
    """Damage to the input of a patch, drawn anew for each; None is off.

    Every pair is the smallest and the largest strength, drawn uniformly. They
    act in the order in which they stand here. `depth` changes the target; all
    the others change the input alone, so that a network learns to undo them
    (`TrainConfig.preserved_noise` is the one that a network learns to leave alone).
    Strengths are shares of the legal stored range where no unit is named.

    Attributes
    ----------
    depth : tuple of int or None
        Bits, within 8 to 16. First, uniform noise within a step of the stored
        values is added to the original, so that a target shows no steps; at
        the end the input is rounded to a drawn number of bits instead of the
        original's.
    blur : tuple of float or None
        Standard deviation of a Gaussian, in high-resolution pixels, before
        the shrinking.
    poisson : tuple of float or None
        Shot noise, by its standard deviation at the bright end of the range;
        it falls with the root of the value.
    gaussian : tuple of float or None
        Standard deviation of additive white noise.
    salt_pepper : tuple of float or None
        Share of pixels set to either end of the range, half each; 0.005 to
        0.02 in the paper. Comes before the rounding.
    jpeg : tuple of int or None
        Quality, 1 to 100, of a JPEG of 8 bits, after the rounding.
    probability : float
        Of each one but `depth`, for each patch.

    Raises
    ------
    ValueError
        If a strength is illegal.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    depth: tuple[int, int] | None = None
    blur: Range | None = None
    poisson: Range | None = None
    gaussian: Range | None = None
    salt_pepper: Range | None = None
    jpeg: tuple[int, int] | None = None
    probability: float = 1.0

    def __post_init__(self) -> None:
        limits = {
            "depth": _DEPTHS,
            "blur": (0, 20),
            "poisson": (0, 1),
            "gaussian": (0, 1),
            "salt_pepper": (0, 1),
            "jpeg": (1, 100),
        }
        for name, (smallest, largest) in limits.items():
            strength = getattr(self, name)
            if strength and not smallest <= strength[0] <= strength[1] <= largest:
                raise ValueError(f"{name} must rise, within {smallest} to {largest}")
        if not 0 < self.probability <= 1:
            raise ValueError("probability must be within (0, 1]")

    @property
    def has_damage(self) -> bool:
        """Whether the input is more than the shrunk and rounded target.

        Then an output that downsamples to the input would keep the damage.
        """
        each = (self.blur, self.poisson, self.gaussian, self.salt_pepper, self.jpeg)
        return any(strength is not None for strength in each)

    @property
    def is_active(self) -> bool:
        """Whether anything is done at all."""
        return self.has_damage or self.depth is not None


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
    draw = _RandomStrength(torch.Generator().manual_seed(seed), degradation.probability)
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
