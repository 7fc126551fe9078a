"""How far a downsampled output is from its input: data consistency, measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, log10
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from cxrsr_cli.read.padding import Padding
from cxrsr_cli.restore.resample import downsample

_KERNEL_REACH = 2
"""Input pixels that the downsampling kernel reaches over to each side."""


@dataclass(frozen=True, slots=True)
class Deviation:
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
        restored: NDArray[np.int32],
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
        high = torch.from_numpy(restored.astype(np.float32))[None, None]
        error = downsample(high, restored.shape[0] // stored.shape[0])[0, 0].numpy() - stored
        if padding:
            near = binary_dilation(
                padding.mask(stored), iterations=_KERNEL_REACH, structure=np.ones((3, 3))
            )
            error = error[~near]
        if not error.size:
            return cls()
        return cls(float(np.sqrt(np.mean(np.square(error)))), float(np.abs(error).max()))

    @classmethod
    def of_worst(
        cls,
        restored: Iterable[NDArray[np.int32]],
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
