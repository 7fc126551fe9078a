"""The noise of an image as a curve: its standard deviation at each stored value."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from cxrsr_cli.common.files import sha256_file
from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.inference.normalisation import Normalisation
from cxrsr_cli.networks.model_files import NOISE_LEVEL_FILE, find_bundled_file
from cxrsr_cli.networks.noise_level import (
    MIN_PIXELS,
    NoiseLevel,
    average_cells,
    contrast_of_cells,
    max_strip_rows,
    strips_of_cells,
)

_KNOTS = 8
_KEPT_SHARE = 0.97
"""Of the cells of a part, those with the lowest estimates: an edge may look like noise."""
_ROUNDING_VARIANCE = 1 / 12
"""Of rounding to whole stored values, which is not noise of the detector."""
_MIN_SIGMA = 0.05
"""Stored units, a sixth of the standard deviation of rounding. Up to this, there is no noise."""
_MAX_CONTRAST = 0.2
"""Of a cell in network values: more is a mark or the edge of a collimator."""
_STRIP_CELLS = 16
MAX_NOISE_ROWS = max_strip_rows(_STRIP_CELLS)
"""Rows of an image from which noise is estimated at a time."""
_SIGNIFICANT_DIGITS = 3


@dataclass(frozen=True, slots=True)
class NoiseCurve:
    """Standard deviation of noise and JPEG error by stored value.

    Attributes
    ----------
    values : tuple of int
        Stored values, rising.
    sigmas : tuple of float
        Standard deviations there, in stored units. Between two values the curve is straight,
        beyond the first and the last it is constant.
    """

    values: tuple[int, ...] = (0,)
    sigmas: tuple[float, ...] = (0.0,)

    def __str__(self) -> str:
        """Return pairs such as ``102: 3.1, 800: 4.52``."""
        pairs = zip(self.values, self.sigmas, strict=True)
        return ", ".join(f"{value}: {sigma:g}" for value, sigma in pairs)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what `str` returned.

        Raises
        ------
        ValueError
            If it is not that.
        """
        pairs = [pair.split(": ") for pair in text.split(", ")]
        values, sigmas = zip(*((int(value), float(sigma)) for value, sigma in pairs), strict=True)
        return cls(values, sigmas)

    def at(self, stored: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the standard deviation at each stored value, in an array of the same shape."""
        sigmas: NDArray[np.float32] = np.interp(stored, self.values, self.sigmas).astype(np.float32)
        return sigmas

    @classmethod
    def estimate(
        cls,
        stored: NDArray[np.int32],
        pixel_range: PixelRange,
        padding: NDArray[np.bool_] | None = None,
    ) -> Self:
        """Estimate the noise of one image.

        Parameters
        ----------
        stored : numpy.ndarray
            ``(H, W)`` stored values.
        pixel_range : PixelRange
            Their legal range and polarity.
        padding : numpy.ndarray, optional
            ``(H, W)``, True where a pixel is padding: it is no part of the image's noise.

        Returns
        -------
        NoiseCurve
            At the mean values of up to eight equal parts of the image, divided by value; rounded
            to three digits, so that a text can hold it. Zero for an image of less than 16 rows or
            columns.
        """
        if min(stored.shape) < MIN_PIXELS:
            return cls()
        image = torch.from_numpy(stored.astype(np.float32))[None, None]
        normalisation = Normalisation.from_image(image, inverted=pixel_range.inverted)
        values, variances = _estimate_cells(image, normalisation, padding)
        if not len(values):
            return cls()
        # From dark to bright as shown, so that an image and its negative have the same parts.
        order = np.argsort(-values if pixel_range.inverted else values, kind="stable")
        knots = dict[int, list[float]]()
        for part in np.array_split(order, min(_KNOTS, len(order))):
            kept = np.sort(variances[part])[: math.ceil(_KEPT_SHARE * len(part))]
            knots.setdefault(round(float(values[part].mean())), []).append(float(kept.mean()))
        rising = sorted(knots)
        return cls(tuple(rising), tuple(_sigma(knots[value]) for value in rising))


def _sigma(variances: list[float]) -> float:
    """Return the standard deviation without that of rounding, in few digits."""
    variance = max(sum(variances) / len(variances) - _ROUNDING_VARIANCE, 0.0)
    sigma = float(f"{variance**0.5:.{_SIGNIFICANT_DIGITS}g}")
    return sigma if sigma > _MIN_SIGMA else 0.0


NO_NOISE = NoiseCurve()
"""Exact agreement."""


@lru_cache(maxsize=1)
def _network() -> NoiseLevel:
    return NoiseLevel.load()


@lru_cache(maxsize=1)
def noise_level_sha256() -> str:
    """Return the SHA-256 of the weights of the estimator."""
    return sha256_file(find_bundled_file(NOISE_LEVEL_FILE))


@torch.inference_mode()
def _estimate_cells(
    image: torch.Tensor, normalisation: Normalisation, padding: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance of each cell in stored units; strips make no difference."""
    span = abs(normalisation.one - normalisation.zero)
    values, variances = list[NDArray[np.float64]](), list[NDArray[np.float64]]()
    for rows in strips_of_cells(image.shape[-2], _STRIP_CELLS):
        strip = normalisation.to_network(image[..., rows.read, :])
        sigma = _network()(strip).exp()[0, 0, rows.kept]
        contrast, mean = (
            of_cells[0, 0, rows.kept, : sigma.shape[1]]
            for of_cells in (contrast_of_cells(strip), average_cells(image[..., rows.read, :]))
        )
        counted = contrast <= _MAX_CONTRAST
        if padding is not None:
            padded = torch.from_numpy(padding[rows.read].astype(np.float32))[None, None]
            counted &= average_cells(padded)[0, 0, rows.kept, : sigma.shape[1]] == 0
        values.append(mean[counted].double().numpy())
        variances.append((sigma[counted] * span).double().square().numpy())
    return np.concatenate(values), np.concatenate(variances)
