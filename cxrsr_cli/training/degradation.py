"""Degrade a patch as a configuration says, with all random numbers from one seed."""

import io
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxrsr_cli.networks.resampling import downsample

Range = tuple[float, float]

_BITS = (8, 16)
_NORMALISATION_TAIL = 0.001
"""Share of pixels outside of the percentiles that `Normalisation` uses, on each side."""
_MIN_SHOT_NOISE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradationConfig:
    """Degradations of the input, drawn for every patch; None is off.

    Every pair is the smallest and the largest strength, which is drawn
    uniformly. The degradations are applied in this order. `depth` also changes
    the target. The others change only the input, so that a network learns to
    undo them. (A network learns to preserve `TrainConfig.preserved_noise`.)
    Strengths without a unit are shares of the legal stored range.

    Attributes
    ----------
    depth : tuple of int or None
        Bits, within 8 to 16. Uniform noise of one stored value is first added
        to the original, so that the target has no steps. At the end the input is
        rounded to a drawn number of bits instead of that of the original.
    blur : tuple of float or None
        Standard deviation in high-resolution pixels of a Gaussian that is
        applied before the downsampling.
    poisson : tuple of float or None
        Standard deviation of shot noise at the bright end of the range. It is
        proportional to the square root of the value.
    gaussian : tuple of float or None
        Standard deviation of additive white noise.
    salt_pepper : tuple of float or None
        Share of pixels that are set to an end of the range, half of them to
        each; 0.005 to 0.02 in the paper. Applied before the rounding.
    jpeg : tuple of int or None
        Quality, 1 to 100, of a JPEG of 8 bits, after the rounding.
    probability : float
        Probability of each degradation but `depth`, for each patch.

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
            "depth": _BITS,
            "blur": (0, 20),
            "poisson": (0, 1),
            "gaussian": (0, 1),
            "salt_pepper": (0, 1),
            "jpeg": (1, 100),
        }
        for name, (smallest, largest) in limits.items():
            strength = getattr(self, name)
            if strength and not smallest <= strength[0] <= strength[1] <= largest:
                raise ValueError(f"{name} must be ascending and within {smallest} to {largest}")
        if not 0 < self.probability <= 1:
            raise ValueError("probability must be within (0, 1]")

    @property
    def has_damage(self) -> bool:
        """Whether the input is degraded by more than downsampling and rounding.

        An output that downsamples to such an input would keep the degradation.
        """
        strengths = (self.blur, self.poisson, self.gaussian, self.salt_pepper, self.jpeg)
        return any(strength is not None for strength in strengths)

    @property
    def is_active(self) -> bool:
        """Whether any degradation is on."""
        return self.has_damage or self.depth is not None


@dataclass(frozen=True, slots=True)
class DegradedPatch:
    """Input and target of a patch, as shares of the legal range, within [0, 1].

    Attributes
    ----------
    low : torch.Tensor
        ``(1, H, W)`` float32, the input.
    high : torch.Tensor
        ``(1, scale * H, scale * W)`` float32, the target.
    full_range : bool
        Whether there is so much salt and pepper that the percentiles of such an
        image, which define network values, are the ends of its range.
    """

    low: torch.Tensor
    high: torch.Tensor
    full_range: bool


def degrade_patch(
    original: torch.Tensor, scale: int, degradation: DegradationConfig, *, step: float, seed: int
) -> DegradedPatch:
    """Make the input and the target of a patch.

    The order is: noise of one stored value (`depth`), which completes the
    target; blur; `downsample`; shot noise; Gaussian noise; salt and pepper;
    rounding and clipping; JPEG.

    Parameters
    ----------
    original : torch.Tensor
        ``(1, scale * H, scale * W)`` float32, shares of the legal range.
    scale : int
        Factor.
    degradation : DegradationConfig
        The degradations.
    step : float
        Difference of two stored values that follow each other, as a share of
        the range.
    seed : int
        Seed of all random numbers.

    Returns
    -------
    DegradedPatch
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
        photons = max(noise, _MIN_SHOT_NOISE) ** -2
        low = torch.poisson(low.clamp(min=0) * photons, draw.generator) / photons
    if sigma := draw.draw_strength(degradation.gaussian):
        low = low + sigma * torch.randn(low.shape, generator=draw.generator)
    share = draw.draw_strength(degradation.salt_pepper)
    if share:
        drawn = draw.uniform(low.shape)
        low = low.masked_fill(drawn < share / 2, 0.0).masked_fill(drawn > 1 - share / 2, 1.0)
    levels = round(1 / step)
    if degradation.depth:
        min_bits, max_bits = degradation.depth
        levels = (1 << min_bits + int(draw.uniform(()) * (max_bits - min_bits + 1))) - 1
    low = (low * levels).round_().div_(levels).clamp_(0, 1)
    if degradation.jpeg and (quality := draw.draw_strength(degradation.jpeg)):
        low = _jpeg(low, round(quality))
    return DegradedPatch(low, high, full_range=share / 2 > _NORMALISATION_TAIL)


class _RandomStrength:
    """Draws whether a degradation is applied, and its strength."""

    def __init__(self, generator: torch.Generator, probability: float) -> None:
        self.generator = generator
        self.probability = probability

    def uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator)

    def draw_strength(self, limits: Range | None) -> float:
        """Return a strength within the limits, or 0 for no degradation."""
        if limits is None:
            return 0.0
        occurrence, position = self.uniform((2,))
        if occurrence >= self.probability:
            return 0.0
        return limits[0] + float(position) * (limits[1] - limits[0])


def _jpeg(low: torch.Tensor, quality: int) -> torch.Tensor:
    encoded = io.BytesIO()
    pixels = (low[0] * 255).round_().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=quality)
    with Image.open(encoded) as decoded:
        return torch.from_numpy(np.asarray(decoded).astype(np.float32) / 255)[None]
