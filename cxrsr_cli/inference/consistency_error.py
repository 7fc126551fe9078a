"""How far a downsampled output is from its input: data consistency, measured."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf, log10, sqrt
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from cxrsr_cli.dicom.pixel_format import Padding
from cxrsr_cli.networks.resampling import downsample

_KERNEL_REACH = 2
"""Input pixels that the downsampling kernel reaches over to each side."""

_STRIP = 1 << 22
"""Pixels of the output that are downsampled at a time, so that only these become float32."""


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
    def of(
        cls,
        restored: NDArray[np.integer],
        stored: NDArray[np.int32],
        padding: Padding | None = None,
    ) -> Self:
        """Measure one frame.

        Parameters
        ----------
        restored : numpy.ndarray
            ``(scale * H, scale * W)`` stored values.
        stored : numpy.ndarray
            ``(H, W)`` stored values of the input.
        padding : Padding, optional
            It and the pixels whose kernel touches it do not count.
        """
        counted = None
        if padding:
            counted = ~binary_dilation(
                padding.mask(stored), iterations=_KERNEL_REACH, structure=np.ones((3, 3))
            )
        squares, pixels, largest = 0.0, 0, 0.0
        for rows, error in _strips(restored, stored):
            kept = error if counted is None else error[counted[rows]]
            squares += float(np.square(kept).sum())
            pixels += kept.size
            largest = max(largest, float(np.abs(kept).max(initial=0)))
        return cls(sqrt(squares / pixels), largest) if pixels else cls()

    @classmethod
    def of_worst(
        cls,
        restored: Iterable[NDArray[np.integer]],
        stored: Iterable[NDArray[np.int32]],
        padding: Padding | None = None,
    ) -> Self:
        """Measure every frame, and return that of the largest RMS; parameters as `of`."""
        frames = zip(restored, stored, strict=True)
        return max((cls.of(*pair, padding) for pair in frames), key=lambda each: each.rms)

    def lr_psnr(self, span: int) -> float:
        """Return the PSNR of the low-resolution images in dB (NTIRE 2021's LR-PSNR).

        Parameters
        ----------
        span : int
            Largest minus smallest legal stored value: the peak.
        """
        return 20 * log10(span / self.rms) if self.rms else inf


def _strips(
    restored: NDArray[np.integer], stored: NDArray[np.int32]
) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    """Downsample a strip at a time, each with what the kernel reaches beyond it.

    At the border of the image there is nothing beyond, and the kernel is cut as
    it is for the whole image. So the strips together are the whole, bit for bit.
    """
    height, scale = len(stored), len(restored) // len(stored)
    step = max(1, _STRIP // (scale * restored.shape[1]))
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        first, last = max(0, top - _KERNEL_REACH), min(height, rows.stop + _KERNEL_REACH)
        low = _downsampled(restored[first * scale : last * scale], scale)
        yield rows, low[rows.start - first : rows.stop - first] - stored[rows]


def _downsampled(high: NDArray[np.integer], scale: int) -> NDArray[np.float32]:
    image = torch.from_numpy(high.astype(np.float32))[None, None]
    low: NDArray[np.float32] = downsample(image, scale)[0, 0].numpy()
    return low
