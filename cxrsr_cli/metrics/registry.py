"""The list of metrics of an evaluation; a new one is added here."""

from cxrsr_cli.metrics.agreement import DEVIATION, LR_PSNR
from cxrsr_cli.metrics.fourier_ring_correlation import SFRC_FLAGGED
from cxrsr_cli.metrics.haarpsi import HAARPSI_MED
from cxrsr_cli.metrics.metric import Metric
from cxrsr_cli.metrics.ms_ssim import MS_SSIM
from cxrsr_cli.metrics.psnr_ssim import PSNR, PSNR_OUTSIDE_MARKS, SSIM

METRICS: list[Metric] = [
    PSNR_OUTSIDE_MARKS,
    PSNR,
    SSIM,
    MS_SSIM,
    HAARPSI_MED,
    LR_PSNR,
    SFRC_FLAGGED,
    DEVIATION,
]
"""In the order of tables and files. Every evaluation computes all; append to add one."""
