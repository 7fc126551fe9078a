"""Check every pixel of an output, and regions of several sizes, against the source alone.

A network that agrees with its source leaves the mean of a block within the noise of its pixel, and
the means of whole regions much closer: what it removes is noise, whose mean is zero. What was
painted stays in the mean of a region. Inside of blocks, where means say nothing, the output varies
by the source's slope.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy.ndimage import maximum_filter, minimum_filter, uniform_filter

from cxrsr_cli.dicom.pixel_format import Padding, PixelRange, fill_padding
from cxrsr_cli.images.marks import mark_mask
from cxrsr_cli.inference.agreement import ROUNDING, SIGMAS, AgreementDeviation
from cxrsr_cli.inference.noise_curve import NO_NOISE, NoiseCurve
from cxrsr_cli.networks.config import Agreement
from cxrsr_cli.verify.findings import Aspect, ClaimStatus, Finding, Place

_STRIP_ROWS = 64

_WINDOW_SIGMAS = {3: 1.9, 5: 1.8, 9: 0.75, 17: 0.35, 33: 0.16, 65: 0.11}
"""By the side of a window in source pixels: the standard deviations of one pixel's noise by which
the mean of the window may leave the source's. `benchmarks/audit_bounds.py` shows what share of the
bounds the outputs of real chests reach: from 9 pixels on about half, more at the border."""
_WINDOW_ROUNDING = 1.2
"""Divided by a window's side: stored units that rounding may add to its mean."""

_VARIATION_WINDOWS = {5: 2.5, 17: 1.6}
"""By the side of a window: the largest ratio of the variation inside of blocks to the one that is
expected."""
_MIN_VARIATION_WINDOW, _MIN_VARIATION = 17, 0.45
"""The smallest ratio, where the slope is above the noise."""
_SLOPE_VARIATION, _NOISE_VARIATION, _ROUNDING_VARIATION = 8.0**-0.5, 0.3, 0.5
"""Deviation inside of a block for a slope of one unit, a sigma of one unit, and by rounding."""
_MIN_SLOPE_SIGMAS, _MIN_SLOPE = 2.0, 2.0
"""Above that many sigmas and stored units a slope must be seen inside of the blocks."""
_RANGE_WINDOW, _MAX_OF_RANGE = 5, 1.5
"""A pixel leaves the mean of its block by this share of the range around it at most."""

_MAX_SIGMA_RATIO, _MAX_SIGMA_DIFFERENCE = 0.02, 0.06
"""By which a stated sigma may differ from the one estimated here: another machine may round the
third digit otherwise, or find a sigma at the threshold of no noise."""

BLOCKS_CLAIM = "the mean of each block is the source's pixel"
REGIONS_CLAIM = "the mean of each region is the source's, more closely the larger it is"
VARIATION_CLAIM = "inside of blocks the output varies by the source's slope and noise"
NOISE_CLAIM = "the noise that the object states is the source's"
_CLAIMS = {
    Agreement.EXACT: "but for rounding",
    Agreement.NOISE: f"to within {SIGMAS:g} sigma of its noise, and rounding",
}

_Map = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PixelCheck:
    """What a kind of check found in all frames.

    Attributes
    ----------
    ratio : float
        Largest ratio of what was found to its bound.
    place : Place or None
        Where that is.
    """

    ratio: float = 0.0
    place: Place | None = None

    def or_worse(self, ratio: _Map, frame: int, side: int) -> "PixelCheck":
        """Return this, or the worst place of another map of ratios."""
        index = int(ratio.argmax())
        found = float(ratio.flat[index])
        if found <= self.ratio:
            return self
        row, column = divmod(index, ratio.shape[1])
        return PixelCheck(found, Place(frame + 1, row + 1, column + 1, side))


@dataclass(frozen=True, slots=True)
class PixelAudit:
    """The pixels of a derived object against its source.

    Attributes
    ----------
    deviation : AgreementDeviation
        Means of the output's blocks against the source, for the worst frame.
    noise : list of NoiseCurve
        Of each frame, estimated from the source; what bounds the means of blocks.
    findings : list of Finding
        The claims.
    maps : list of numpy.ndarray
        For each frame ``(H, W)``: the largest ratio of a deviation around a pixel to its bound.
    """

    deviation: AgreementDeviation
    noise: list[NoiseCurve]
    findings: list[Finding]
    maps: list[_Map]


def audit_pixels(
    source: Dataset,
    source_pixels: NDArray[np.int32],
    derived_pixels: NDArray[np.integer],
    agreement: Agreement,
    stated_noise: NoiseCurve | None,
) -> PixelAudit:
    """Check pixels and regions.

    Parameters
    ----------
    source : pydicom.Dataset
        The original.
    source_pixels, derived_pixels : numpy.ndarray
        ``(F, H, W)`` and ``(F, scale * H, scale * W)``, their stored values.
    agreement : Agreement
        What is claimed of the means of blocks. Nothing is checked for `Agreement.NONE`.
    stated_noise : NoiseCurve or None
        The noise that the object states, of its worst frame.
    """
    padding, pixel_range = Padding.from_dataset(source), PixelRange.from_dataset(source)
    if agreement is Agreement.NONE:
        deviation = AgreementDeviation.worst_frame(derived_pixels, source_pixels, padding)
        reason = "the object states that its means are not bound to the source"
        claims = (BLOCKS_CLAIM, REGIONS_CLAIM, VARIATION_CLAIM)
        findings = [Finding.not_checked(Aspect.PIXELS, claim, reason) for claim in claims]
        return PixelAudit(deviation, [NO_NOISE] * len(source_pixels), findings, [])
    estimated = [estimate_noise(frame, pixel_range, padding) for frame in source_pixels]
    noise = estimated if agreement is Agreement.NOISE else [NO_NOISE] * len(estimated)
    deviation = AgreementDeviation.worst_frame(derived_pixels, source_pixels, padding, noise)
    blocks = regions = variation = PixelCheck()
    maps = list[_Map]()
    for index, stored in enumerate(source_pixels):
        frame = MeasuredFrame.of(
            derived_pixels[index], stored, estimated[index], pixel_range, padding
        )
        worst = frame.blocks(noise[index])
        blocks = blocks.or_worse(worst, index, 1)
        for side, ratio in frame.regions(noise[index]):
            regions = regions.or_worse(ratio, index, side)
            np.maximum(worst, ratio, out=worst)
        for side, ratio in frame.variations():
            variation = variation.or_worse(ratio, index, side)
            np.maximum(worst, ratio, out=worst)
        maps.append(worst)
    findings = [
        _finding(
            f"{BLOCKS_CLAIM} ({_CLAIMS[agreement]})",
            blocks,
            source,
            f"difference in stored units: RMS {deviation.rms:.3f}, largest "
            f"{deviation.largest:.2f}, at most {deviation.beyond:.2f} beyond the bound",
            is_within=deviation.is_within_bound(pixel_range),
        ),
        _finding(REGIONS_CLAIM, regions, source),
        _finding(VARIATION_CLAIM, variation, source),
    ]
    if agreement is Agreement.NOISE:
        findings.insert(0, _check_stated_noise(stated_noise, noise))
    return PixelAudit(deviation, noise, findings, maps)


def estimate_noise(
    frame: NDArray[np.int32], pixel_range: PixelRange, padding: Padding | None
) -> NoiseCurve:
    """Estimate the noise of one frame of a source, without its padding."""
    if padding is None:
        return NoiseCurve.estimate(frame, pixel_range)
    mask = padding.mask(frame)
    return NoiseCurve.estimate(fill_padding(frame, mask), padding.exclude_from(pixel_range), mask)


def _check_stated_noise(stated: NoiseCurve | None, noise: list[NoiseCurve]) -> Finding:
    if stated is None:
        return Finding.of(Aspect.PIXELS, NOISE_CLAIM, False, "the object states none")
    holds = any(is_same_noise(stated, curve) for curve in noise)
    detail = "" if holds else f"states {stated}; estimated from the source {noise[0]}"
    return Finding.of(Aspect.PIXELS, NOISE_CLAIM, holds, detail)


def is_same_noise(stated: NoiseCurve, estimated: NoiseCurve) -> bool:
    """Return whether two curves are those of one image, estimated on two machines."""
    values = np.array([*stated.values, *estimated.values])
    sigmas, others = stated.at(values), estimated.at(values)
    allowed = _MAX_SIGMA_RATIO * np.maximum(sigmas, others) + _MAX_SIGMA_DIFFERENCE
    return bool((np.abs(sigmas - others) <= allowed).all())


def _finding(
    claim: str,
    check: PixelCheck,
    source: Dataset,
    numbers: str = "",
    *,
    is_within: bool | None = None,
) -> Finding:
    holds = check.ratio <= 1 if is_within is None else is_within
    detail = numbers or f"at most {check.ratio:.2f} of the bound"
    if holds or check.place is None:
        return Finding.of(Aspect.PIXELS, claim, holds, detail)
    place = _in_millimetres(check.place, source)
    detail = f"{detail}; most at {place}"
    return Finding(Aspect.PIXELS, claim, ClaimStatus.FAILS, detail, place)


def _in_millimetres(place: Place, source: Dataset) -> Place:
    spacing = source.get("PixelSpacing") or source.get("ImagerPixelSpacing")
    try:
        down, right = (float(number) for number in spacing)
    except (TypeError, ValueError):
        return place
    if not (down > 0 and right > 0):
        return place
    at = (place.row - 0.5) * down, (place.column - 0.5) * right
    return replace(place, millimetres=at)


@dataclass(frozen=True, slots=True)
class MeasuredFrame:
    """One frame, reduced to the size of its source; ``(H, W)`` each."""

    source: _Map
    """Stored values; padding has those of its nearest image pixel."""
    deviation: _Map
    """Mean of the block less the source's pixel; zero in padding."""
    variance: _Map
    """Of the pixels of a block."""
    largest: _Map
    """Largest distance of a pixel from its block's mean."""
    sigma: _Map
    """Of the noise."""
    image: _Map
    """1 for a pixel of the image, 0 for padding."""
    near_mark: _Map
    """1 for a pixel near a burnt-in mark, where the network rings; 0 elsewhere."""

    @classmethod
    def of(
        cls,
        output: NDArray[np.integer],
        stored: NDArray[np.int32],
        noise: NoiseCurve,
        pixel_range: PixelRange,
        padding: Padding | None,
    ) -> "MeasuredFrame":
        """Measure a frame; parameters as of `audit_pixels`, and the noise of its source."""
        scale, (rows, columns) = len(output) // len(stored), stored.shape
        deviation, variance, largest = (np.empty(stored.shape) for _ in range(3))
        for top in range(0, rows, _STRIP_ROWS):
            strip = slice(top, min(top + _STRIP_ROWS, rows))
            blocks = output[strip.start * scale : strip.stop * scale].reshape(
                -1, scale, columns, scale
            )
            mean = blocks.mean((1, 3), dtype=np.float64)
            distance = blocks - mean[:, None, :, None]
            deviation[strip] = mean - stored[strip]
            variance[strip] = np.square(distance).mean((1, 3))
            largest[strip] = np.abs(distance).max((1, 3))
        mask = padding.mask(stored) if padding else np.zeros(stored.shape, bool)
        deviation[mask] = 0
        source = fill_padding(stored, mask).astype(np.float64)
        sigma = noise.at(source).astype(np.float64)
        span = pixel_range.maximum - pixel_range.minimum
        values = torch.from_numpy(source.astype(np.float32))[None, None]
        near_mark = mark_mask(values, span)[0, 0].numpy().astype(np.float64)
        image = (~mask).astype(np.float64)
        return cls(source, deviation, variance, largest, sigma, image, near_mark)

    def blocks(self, noise: NoiseCurve) -> _Map:
        """Return the ratio of deviations to their bounds."""
        bound = SIGMAS * noise.at(self.source).astype(np.float64) + ROUNDING
        return np.abs(self.deviation) / bound

    def regions(self, noise: NoiseCurve) -> Iterator[tuple[int, _Map]]:
        """Yield side, and ratio of the mean deviation to its bound, of windows around pixels."""
        sigma = noise.at(self.source).astype(np.float64)
        for side, sigmas in _WINDOW_SIGMAS.items():
            pixels = np.maximum(_sum(self.image, side), 1)
            mean = np.abs(_sum(self.deviation, side)) / pixels
            deviation = np.sqrt(_sum(np.square(sigma) * self.image, side) / pixels)
            # Windows at the border, and around padding, have fewer pixels.
            share = np.sqrt(pixels) / side
            bound = (sigmas * deviation + _WINDOW_ROUNDING / side) / share
            # The network rings around marks, and smooths them.
            bound += SIGMAS * deviation * _sum(self.near_mark * self.image, side) / pixels
            yield side, mean / np.minimum(bound, SIGMAS * deviation + ROUNDING)

    def variations(self) -> Iterator[tuple[int, _Map]]:
        """Yield side, and ratio of what varies inside of blocks to its bound, for windows."""
        counted = self.image * (1 - self.near_mark)
        down, right = np.gradient(self.source)
        square = counted * (np.square(down) + np.square(right))
        steady = counted * (_steady_slope(self.source, 0) ** 2 + _steady_slope(self.source, 1) ** 2)
        for side, most in _VARIATION_WINDOWS.items():
            pixels = np.maximum(_sum(counted, side), 1)
            found = np.sqrt(_sum(self.variance * counted, side) / pixels)
            by_slope = _SLOPE_VARIATION * np.sqrt(_sum(square, side) / pixels)
            expected = by_slope + _NOISE_VARIATION * self.sigma + _ROUNDING_VARIATION
            # Few pixels vary more than the average of a window.
            is_judged = pixels >= side**2 / 2
            ratio = is_judged * found / (most * expected)
            if side == _MIN_VARIATION_WINDOW:
                least = _SLOPE_VARIATION * np.sqrt(_sum(steady, side) / pixels)
                must_vary = is_judged & (least > _MIN_SLOPE_SIGMAS * self.sigma + _MIN_SLOPE)
                lacking = _MIN_VARIATION * least / (found + _NOISE_VARIATION)
                ratio = np.where(must_vary, np.maximum(ratio, lacking), ratio)
            yield side, ratio
        largest = _MAX_OF_RANGE * (_range(self.source, _RANGE_WINDOW) + self.sigma + 1)
        yield 1, counted * self.largest / largest


def _steady_slope(values: _Map, axis: int) -> _Map:
    """Return the smaller of the differences to both neighbours; 0 at a step, a peak, the border.

    A step can lie between two blocks, which then need not vary.
    """
    first, last = np.take(values, [0], axis), np.take(values, [-1], axis)
    before, after = (
        np.diff(values, axis=axis, prepend=first),
        np.diff(values, axis=axis, append=last),
    )
    return np.where(before * after > 0, np.minimum(np.abs(before), np.abs(after)), 0.0)


def _range(values: _Map, side: int) -> _Map:
    """Return the difference between the largest and the smallest value of windows."""
    difference: _Map = maximum_filter(values, side) - minimum_filter(values, side)
    return difference


def _sum(values: _Map, side: int) -> _Map:
    """Return sums over windows; what lies outside of the image is zero."""
    mean: _Map = uniform_filter(values, side, mode="constant")
    # The filter subtracts what leaves its window, which may leave less than nothing.
    mean = mean if values.min() < 0 else np.maximum(mean, 0)
    return mean * side**2
