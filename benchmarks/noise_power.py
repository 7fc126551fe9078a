"""The noise power spectrum of flat patches, and whether it has lines at the grid of an upscaling.

After IEC 62220-1: the periodogram of patches without their trend, a polynomial of second order.
The standard's patches are of a uniform exposure, those here of a patient. So a Hann window is
used in addition: what is left of the anatomy would leak into frequencies where an enlarged image
has almost no power.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal.windows import hann

Floats = NDArray[np.float64]
Corner = tuple[int, int]

_CELL = 8
"""Pixels. The means of cells of this side tell the anatomy of a patch from its noise."""

_MIN_NOISE = 0.5
"""Stored units. With less, a patch shows no detector: it is shuttered or saturated."""

_NEAR, _FAR = 3, 6
"""Distance, in samples of a spectrum, of the neighbours that a line is compared with. The line
itself is three samples wide because of the window."""


@dataclass(frozen=True, slots=True)
class NoisePower:
    """Noise power spectrum of an image that was upscaled by `scale`, or was not (1).

    Attributes
    ----------
    spectrum : numpy.ndarray
        ``(N, N)`` in squared stored units by squared cycles per source pixel, in the order
        of `numpy.fft.fft2`.
    scale : int
        Factor; `N` is a multiple of it.
    pattern : float
        RMS in stored units of what repeats in every block of `scale` by `scale` pixels.
    """

    spectrum: Floats
    scale: int
    pattern: float

    @classmethod
    def of(cls, patches: NDArray[np.integer] | Floats, scale: int) -> "NoisePower":
        """Average the spectra of patches.

        Parameters
        ----------
        patches : numpy.ndarray
            ``(K, N, N)`` stored values.
        scale : int
            Factor.
        """
        side, noise = patches.shape[-1], detrend(patches)
        window = np.outer(*[hann(side, sym=False)] * 2)
        power = np.abs(np.fft.fft2(noise * window)) ** 2 / np.sum(window**2)
        blocks = noise.reshape(-1, side // scale, scale, side // scale, scale)
        return cls(power.mean(0) / scale**2, scale, float(blocks.mean((0, 1, 3)).std()))

    @property
    def frequencies(self) -> Floats:
        """Frequency of each sample, where 1 is the source's Nyquist frequency."""
        steps = 2 * self.scale * np.fft.fftfreq(len(self.spectrum))
        return np.asarray(np.hypot(steps[:, None], steps))

    def variance(self, low: float = 0.0, high: float = np.inf) -> float:
        """Integrate from one frequency to below another; all of it is the patches' variance."""
        inside = (self.frequencies >= low) & (self.frequencies < high)
        return float(self.spectrum[inside].sum() * (self.scale / len(self.spectrum)) ** 2)

    def radial(self, step: float = 1 / 16) -> tuple[Floats, Floats]:
        """Average over rings.

        Parameters
        ----------
        step : float
            Their width, where 1 is the source's Nyquist frequency.

        Returns
        -------
        tuple of numpy.ndarray
            Middle frequencies and means of the spectrum, up to the output's Nyquist frequency.
        """
        rings = (self.frequencies / step).astype(int).ravel()
        count = round(self.scale / step)
        sums = np.bincount(rings, self.spectrum.ravel())[:count]
        middles = (np.arange(count) + 0.5) * step
        return middles.astype(np.float64), (sums / np.bincount(rings)[:count]).astype(np.float64)

    def lines(self) -> tuple[float, float, float]:
        """Compare the power at the frequencies of the grid with that of their neighbours.

        Returns
        -------
        tuple of float
            Mean ratio at the multiples of 1 / scale cycles per pixel: of patterns that repeat
            down the rows, across the columns, and both (a checkerboard). Noise without a
            pattern has about 1. Where a kernel lets almost nothing pass, as bicubic
            interpolation does around these frequencies, it compares two powers of almost
            nothing: `pattern` says how much there is.
        """
        period = len(self.spectrum) // self.scale
        steps = [period * step for step in range(self.scale)]
        rows, columns = ([(step, 0) for step in steps[1:]], [(0, step) for step in steps[1:]])
        both = [(row, column) for row in steps[1:] for column in steps[1:]]
        down, across, checkered = (
            float(np.mean([self._line(*place) for place in places]))
            for places in (rows, columns, both)
        )
        return down, across, checkered

    def _line(self, row: int, column: int) -> float:
        near = np.roll(self.spectrum, (_FAR - row, _FAR - column), (0, 1))
        near = near[: 2 * _FAR + 1, : 2 * _FAR + 1]
        away = np.abs(np.arange(-_FAR, _FAR + 1))
        around = np.maximum(away[:, None], away) >= _NEAR
        return float(near[_FAR, _FAR] / near[around].mean())


def detrend(patches: NDArray[np.integer] | Floats) -> Floats:
    """Subtract from each patch of ``(K, N, N)`` the polynomial of second order that fits best."""
    side = patches.shape[-1]
    x = np.linspace(-1, 1, side)
    terms = [
        np.outer(x**down, x**across).ravel() for down in range(3) for across in range(3 - down)
    ]
    basis = np.linalg.qr(np.stack(terms, -1))[0]
    values = patches.reshape(len(patches), -1).astype(np.float64)
    return np.asarray(values - values @ basis @ basis.T).reshape(patches.shape)


def flat_patches(image: NDArray[np.integer], side: int, count: int) -> list[Corner]:
    """Find the patches with the least anatomy for their noise.

    Parameters
    ----------
    image : numpy.ndarray
        ``(H, W)`` stored values.
    side : int
        Of a patch in pixels, a multiple of 8. Patches do not overlap.
    count : int
        How many.

    Returns
    -------
    list of tuple of int
        Top and left, the flattest first. Patches that touch the smallest or largest value of
        the image are not among them.
    """
    ends = image.min(), image.max()
    found = list[tuple[float, Corner]]()
    for top, left in _grid(image.shape, side):
        patch = image[top : top + side, left : left + side]
        if np.isin(ends, patch).any():
            continue
        cells = detrend(patch[None])[0].reshape(side // _CELL, _CELL, side // _CELL, _CELL)
        means = cells.mean((1, 3), keepdims=True)
        noise = float((cells - means).std())
        if noise >= _MIN_NOISE:
            found.append((float(means.std()) / noise, (top, left)))
    return [corner for _, corner in sorted(found)[:count]]


def _grid(shape: tuple[int, ...], side: int) -> Iterator[Corner]:
    height, width = shape
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            yield top, left
