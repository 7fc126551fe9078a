"""Degrade a patch as a configuration says, with all random numbers from one seed."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxrsr_cli.networks.resampling import block_mean, downsample

Range = tuple[float, float]
_Choice = TypeVar("_Choice")

_BITS = (8, 16)
_NORMALISATION_TAIL = 0.001
"""Share of pixels outside of the percentiles that `Normalisation` uses, on each side."""
_MIN_NOISE = 1e-4
"""Smallest standard deviation of drawn noise, a share of the range: strengths are drawn
logarithmically."""


class Kernel(StrEnum):
    """How an original is reduced to the input."""

    BICUBIC = "bicubic"
    """`downsample`, as in the papers."""
    BLOCK_MEAN = "block_mean"
    """The mean of each block, as a detector with larger pixels has it."""
    BILINEAR = "bilinear"
    """Pillow's bilinear filter, which averages over a triangle."""
    LANCZOS = "lanczos"
    """Pillow's Lanczos filter."""
    BLUR = "blur"
    """A Gaussian, then `downsample`."""


class NoiseKind(StrEnum):
    """What noise depends on."""

    WHITE = "white"
    """Nothing: independent noise of equal strength."""
    QUANTUM = "quantum"
    """The value: the variance is proportional to it."""
    GRAIN = "grain"
    """Its neighbours: a Gaussian filter correlates it."""
    QUANTUM_GRAIN = "quantum_grain"
    """The value and its neighbours, as behind a scintillator."""


_PILLOW = {Kernel.BILINEAR: Image.Resampling.BILINEAR, Kernel.LANCZOS: Image.Resampling.LANCZOS}
_DEPENDS_ON_VALUE = {NoiseKind.QUANTUM, NoiseKind.QUANTUM_GRAIN}
_IS_CORRELATED = {NoiseKind.GRAIN, NoiseKind.QUANTUM_GRAIN}


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradationConfig:
    """Degradations of the input, drawn for every patch; None is off.

    Every pair is the smallest and the largest strength, which is drawn
    uniformly, for `noise` logarithmically. The degradations are applied in this
    order. `depth` also changes the target. Strengths without a unit are shares
    of the legal stored range.

    Attributes
    ----------
    depth : tuple of int or None
        Bits, within 8 to 16. Uniform noise of one stored value is first added
        to the original, so that the target has no steps. At the end the input is
        rounded to a drawn number of bits instead of that of the original.
    inverted : float
        Probability that a patch is inverted, so that noise depends on dark values.
    kernels : mapping of Kernel to float
        Weights with which the kernel is drawn.
    blur : tuple of float
        Standard deviation in low-resolution pixels of `Kernel.BLUR`.
    noise : tuple of float or None
        Standard deviation, at the bright end of the range if it depends on the value.
    noise_probability : float
        Probability of noise.
    noise_kinds : mapping of NoiseKind to float
        Weights with which the kind of noise is drawn.
    grain : tuple of float
        Standard deviation in low-resolution pixels of the filter that correlates noise.
    salt_pepper : tuple of float or None
        Share of pixels that are set to an end of the range, half of them to
        each; 0.005 to 0.02 in the paper. Applied before the rounding.
    jpeg : tuple of int or None
        Quality, 1 to 100, of a JPEG of 8 bits, after the rounding.
    jpeg_probability : float
        Probability of JPEG.

    Raises
    ------
    ValueError
        If a strength is illegal.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    depth: tuple[int, int] | None = None
    inverted: float = 0.0
    kernels: Mapping[Kernel, float] = field(default_factory=lambda: {Kernel.BICUBIC: 1.0})
    blur: Range = (0.1, 0.7)
    noise: Range | None = None
    noise_probability: float = 1.0
    noise_kinds: Mapping[NoiseKind, float] = field(default_factory=lambda: {NoiseKind.WHITE: 1.0})
    grain: Range = (0.3, 1.1)
    salt_pepper: Range | None = None
    jpeg: tuple[int, int] | None = None
    jpeg_probability: float = 1.0

    def __post_init__(self) -> None:
        limits = {
            "depth": _BITS,
            "blur": (0, 5),
            "noise": (0, 1),
            "grain": (0, 5),
            "salt_pepper": (0, 1),
            "jpeg": (1, 100),
        }
        for name, (smallest, largest) in limits.items():
            strength = getattr(self, name)
            if strength and not smallest <= strength[0] <= strength[1] <= largest:
                raise ValueError(f"{name} must be ascending and within {smallest} to {largest}")
        for name in ("inverted", "noise_probability", "jpeg_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be within 0 to 1")
        for name in ("kernels", "noise_kinds"):
            weights = getattr(self, name).values()
            if not weights or min(weights) < 0 or not sum(weights):
                raise ValueError(f"{name} needs weights, none of them negative")

    @property
    def has_impulses(self) -> bool:
        """Whether pixels lose their value, so that an output must not agree with them."""
        return self.salt_pepper is not None

    @property
    def is_active(self) -> bool:
        """Whether the input is more than `downsample` of the original, rounded."""
        return self != DegradationConfig()


@dataclass(frozen=True, slots=True)
class DegradedPatch:
    """Input and target of a patch, as shares of the legal range.

    Attributes
    ----------
    low : torch.Tensor
        ``(1, H, W)`` float32, the input, within [0, 1].
    high : torch.Tensor
        ``(1, scale * H, scale * W)`` float32, the original, within [0, 1].
    clean : torch.Tensor
        ``(1, H, W)`` float32: the reduced original, without noise and JPEG, not rounded.
    noise : torch.Tensor
        ``(1, H, W)`` float32: the noise in the input, without the errors of JPEG, rounding
        and impulses.
    sigma : torch.Tensor
        ``(1, H, W)`` float32: the standard deviation of the input's noise and JPEG error.
    full_range : bool
        Whether there is so much salt and pepper that the percentiles of such an
        image, which define network values, are the ends of its range.
    """

    low: torch.Tensor
    high: torch.Tensor
    clean: torch.Tensor
    noise: torch.Tensor
    sigma: torch.Tensor
    full_range: bool


def degrade_patch(
    original: torch.Tensor, scale: int, degradation: DegradationConfig, *, step: float, seed: int
) -> DegradedPatch:
    """Make the input and the target of a patch.

    The order is: noise of one stored value (`depth`), which completes the
    target; inversion; kernel; noise; salt and pepper; rounding and clipping; JPEG;
    inversion again.

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
    draw = _Random(seed)
    high = original
    if degradation.depth:
        high = (original + step * (draw.uniform(original.shape) - 0.5)).clamp_(0, 1)
    is_inverted = draw.happens(degradation.inverted)
    clean = _reduce(1 - high if is_inverted else high, scale, degradation, draw)
    noise, sigma = torch.zeros_like(clean), torch.zeros_like(clean)
    if degradation.noise and draw.happens(degradation.noise_probability):
        noise, sigma = _draw_noise(clean, degradation, draw)
    low = clean + noise
    share = draw.between(degradation.salt_pepper) if degradation.salt_pepper else 0.0
    if share:
        drawn = draw.uniform(low.shape)
        low = low.masked_fill(drawn < share / 2, 0.0).masked_fill(drawn > 1 - share / 2, 1.0)
    levels = round(1 / step)
    if degradation.depth:
        min_bits, max_bits = degradation.depth
        levels = (1 << min_bits + int(draw.number() * (max_bits - min_bits + 1))) - 1
    low = (low * levels).round_().div_(levels).clamp_(0, 1)
    if degradation.jpeg and draw.happens(degradation.jpeg_probability):
        compressed = _jpeg(low, round(draw.between(degradation.jpeg)))
        sigma = (sigma.square() + (compressed - low).square().mean()).sqrt()
        low = compressed
    if is_inverted:
        low, clean, noise = 1 - low, 1 - clean, -noise
    return DegradedPatch(low, high, clean, noise, sigma, full_range=share / 2 > _NORMALISATION_TAIL)


class _Random:
    """Random numbers from one seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator)

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def number(self) -> float:
        return float(self.uniform(()))

    def happens(self, probability: float) -> bool:
        return self.number() < probability

    def between(self, limits: Range | tuple[int, int]) -> float:
        return limits[0] + self.number() * (limits[1] - limits[0])

    def one_of(self, weights: Mapping[_Choice, float]) -> _Choice:
        """Draw a key with a probability in proportion to its weight."""
        position = self.number() * sum(weights.values())
        for key, weight in weights.items():
            position -= weight
            if position < 0:
                return key
        return list(weights)[-1]


def _reduce(
    high: torch.Tensor, scale: int, degradation: DegradationConfig, draw: _Random
) -> torch.Tensor:
    """Reduce ``(1, scale * H, scale * W)`` by a drawn kernel."""
    kernel = draw.one_of(degradation.kernels)
    match kernel:
        case Kernel.BLOCK_MEAN:
            return block_mean(high[None], scale)[0]
        case Kernel.BILINEAR | Kernel.LANCZOS:
            height, width = high.shape[-2:]
            image = Image.fromarray(high[0].numpy())
            reduced = image.resize((width // scale, height // scale), _PILLOW[kernel])
            return torch.from_numpy(np.array(reduced))[None]
        case Kernel.BLUR:
            sigma = draw.between(degradation.blur) * scale
            blurred = gaussian_filter(high.numpy(), (0, sigma, sigma), mode="nearest")
            return downsample(torch.from_numpy(blurred)[None], scale)[0]
        case Kernel.BICUBIC:
            return downsample(high[None], scale)[0]


def _draw_noise(
    clean: torch.Tensor, degradation: DegradationConfig, draw: _Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw noise, and return its standard deviation at each pixel, too."""
    limits = [math.log(max(limit, _MIN_NOISE)) for limit in degradation.noise or (0, 0)]
    strength, kind = (
        math.exp(draw.between((limits[0], limits[1]))),
        draw.one_of(degradation.noise_kinds),
    )
    noise = draw.normal(clean.shape)
    if kind in _IS_CORRELATED:
        sigma = draw.between(degradation.grain)
        filtered = gaussian_filter(noise.numpy(), (0, sigma, sigma), mode="wrap")
        # The square root of the sum of the squared weights of the filter.
        impulse = np.zeros(noise.shape[1:], np.float32)
        impulse[tuple(side // 2 for side in impulse.shape)] = 1
        gain = np.linalg.norm(gaussian_filter(impulse, sigma, mode="wrap"))
        noise = torch.from_numpy(filtered / gain)
    sigmas = torch.full_like(clean, strength)
    if kind in _DEPENDS_ON_VALUE:
        sigmas *= clean.clamp(min=0).sqrt()
    return noise * sigmas, sigmas


def _jpeg(low: torch.Tensor, quality: int) -> torch.Tensor:
    encoded = io.BytesIO()
    pixels = (low[0] * 255).round_().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=quality)
    with Image.open(encoded) as decoded:
        return torch.from_numpy(np.asarray(decoded).astype(np.float32) / 255)[None]
