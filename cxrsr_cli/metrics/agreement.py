"""How far the means of an output's blocks are from the input's pixels."""

from cxrsr_cli.metrics.metric import ImageComparison, Metric
from cxrsr_cli.metrics.psnr_ssim import psnr_of_error


def _lr_psnr(compared: ImageComparison) -> float:
    """Return the PSNR of the block means in dB (NTIRE 2021's LR-PSNR, with another kernel)."""
    return psnr_of_error(compared.rms_to_input**2, compared.peak)


LR_PSNR = Metric("lr_psnr", "LR-PSNR dB", 2, _lr_psnr, is_plotted=False)
DEVIATION = Metric(
    "deviation",
    "RMS to input",
    3,
    lambda compared: compared.rms_to_input,
    larger_is_better=False,
    is_plotted=False,
)
"""In stored units."""
