"""What a metric is, and what it sees of an upscaled image."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from cxrsr_cli.networks.resampling import block_mean


class FullReferenceFunction(Protocol):
    """A function such as `cxrsr_cli.metrics.psnr_ssim.psnr`."""

    def __call__(
        self, image: torch.Tensor, reference: torch.Tensor, /, *, peak: float, border: int
    ) -> float:
        """Compare an image with its reference."""
        ...


@dataclass(frozen=True)
class ImageComparison:
    """An upscaled image, its original and its input.

    Attributes
    ----------
    output, original : torch.Tensor
        ``(1, 1, H, W)`` float32, whole stored values within the legal range.
    low : torch.Tensor
        ``(1, 1, H / scale, W / scale)`` float32, the stored values of the input
        with its noise.
    marks : torch.Tensor
        ``(1, 1, H, W)`` bool: `cxrsr_cli.images.marks.mark_mask` of the original.
    minimum, maximum : float
        Legal range of the stored values.
    scale : int
        Factor of the upscaling.
    """

    output: torch.Tensor
    original: torch.Tensor
    low: torch.Tensor
    marks: torch.Tensor
    minimum: float
    maximum: float
    scale: int

    @property
    def peak(self) -> float:
        """Data range: largest minus smallest legal stored value."""
        return self.maximum - self.minimum

    @property
    def border(self) -> int:
        """Pixels on each side that metrics leave out, because every upsampler guesses there."""
        return self.scale

    @cached_property
    def image(self) -> torch.Tensor:
        """The output with 0 as the smallest legal value, as SSIM and HaarPSI need it."""
        return self.output - self.minimum

    @cached_property
    def reference(self) -> torch.Tensor:
        """The original with 0 as the smallest legal value."""
        return self.original - self.minimum

    def apply(self, function: FullReferenceFunction) -> float:
        """Call a function of image, reference, data range and border."""
        return function(self.image, self.reference, peak=self.peak, border=self.border)

    @cached_property
    def rms_to_input(self) -> float:
        """RMS in stored units of the output's block means minus the input, without a border."""
        means = block_mean(self.output.double(), self.scale)
        return (means - self.low).square().mean().sqrt().item()


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure of the quality of an upscaled image.

    Attributes
    ----------
    key : str
        Name in JSON and CSV.
    title : str
        Name in tables and plots, with the unit.
    decimals : int
        Significant decimals, which tables show.
    compute : callable
        Returns the value for an `ImageComparison`; NaN where the metric is not
        defined.
    larger_is_better : bool
        Direction.
    is_plotted : bool
        Whether the HTML page draws the paired differences of the metric.
    tolerance : float
        An output counts as worse than the reference's if it is worse by more than this.
    """

    key: str
    title: str
    decimals: int
    compute: Callable[[ImageComparison], float]
    larger_is_better: bool = True
    is_plotted: bool = True
    tolerance: float = 0.0


def crop_border(image: torch.Tensor, border: int) -> torch.Tensor:
    """Cut off the border.

    Parameters
    ----------
    image : torch.Tensor
        ``(N, C, H, W)``, any dtype.
    border : int
        Pixels to cut off on each side.

    Returns
    -------
    torch.Tensor
        ``(N, C, H - 2 * border, W - 2 * border)``, a view.
    """
    return image[..., border : -border or None, border : -border or None]
