"""What a method is measured by on one image, and how each measure is told."""

from dataclasses import dataclass

import torch

from cxrsr_cli.images.image_files import GrayscaleImage
from cxrsr_cli.inference.consistency_error import ConsistencyDeviation
from cxrsr_cli.metrics.fourier_ring_correlation import compute_sfrc
from cxrsr_cli.metrics.haarpsi import haarpsi
from cxrsr_cli.metrics.ms_ssim import ms_ssim
from cxrsr_cli.metrics.psnr_ssim import psnr, ssim
from cxrsr_cli.networks.resampling import downsample


@dataclass(frozen=True, slots=True)
class Score:
    """Quality of one method on one image.

    Attributes
    ----------
    psnr : float
        dB.
    ssim, ms_ssim, haarpsi_med : float
        At most 1. MS-SSIM is not a number for images that are too small.
    lr_psnr : float
        dB, of the downsampled output against the input.
    sfrc_flagged : float
        Share of patches, within [0, 1]; not a number if none has contrast.
    inconsistency : float
        RMS in stored units of the downsampled output against the input.
    """

    psnr: float
    ssim: float
    ms_ssim: float
    haarpsi_med: float
    lr_psnr: float
    sfrc_flagged: float
    inconsistency: float


@dataclass(frozen=True, slots=True)
class Metric:
    """A field of `Score`.

    Attributes
    ----------
    key : str
        Its name.
    title : str
        For tables and plots, with the unit.
    decimals : int
        That mean something.
    larger_is_better : bool
        Direction.
    """

    key: str
    title: str
    decimals: int
    larger_is_better: bool = True

    def of(self, score: Score) -> float:
        """Return the value."""
        return float(getattr(score, self.key))


PSNR = Metric("psnr", "PSNR dB", 3)
SSIM = Metric("ssim", "SSIM", 4)
MS_SSIM = Metric("ms_ssim", "MS-SSIM", 4)
HAARPSI_MED = Metric("haarpsi_med", "HaarPSI_MED", 4)
LR_PSNR = Metric("lr_psnr", "LR-PSNR dB", 2)
SFRC_FLAGGED = Metric("sfrc_flagged", "sFRC flagged", 4, larger_is_better=False)
INCONSISTENCY = Metric("inconsistency", "RMS to input", 3, larger_is_better=False)

METRICS = (PSNR, SSIM, MS_SSIM, HAARPSI_MED, LR_PSNR, SFRC_FLAGGED, INCONSISTENCY)


def score(output: torch.Tensor, original: GrayscaleImage, low: torch.Tensor, scale: int) -> Score:
    """Measure an output.

    Parameters
    ----------
    output : torch.Tensor
        ``(1, 1, H, W)`` float32, whole stored values within the legal range.
    original : GreyImage
        Of the same size.
    low : torch.Tensor
        ``(1, 1, H / scale, W / scale)``: the input, with its noise.
    scale : int
        Factor; also the border that is left out, except of what compares
        with the input, where nothing is guessed.
    """
    peak = original.data_range
    rms = (downsample(output, scale) - low).square().mean().sqrt().item()
    # SSIM and HaarPSI take 0 for black.
    image, truth = (values - original.minimum for values in (output, original.values))
    return Score(
        psnr=psnr(image, truth, peak=peak, border=scale),
        ssim=ssim(image, truth, peak=peak, border=scale),
        ms_ssim=ms_ssim(image, truth, peak=peak, border=scale),
        haarpsi_med=haarpsi(image, truth, peak=peak, border=scale),
        lr_psnr=ConsistencyDeviation(rms=rms).lr_psnr(int(peak)),
        sfrc_flagged=compute_sfrc(image, truth, scale=scale, border=scale).flagged_fraction,
        inconsistency=rms,
    )
