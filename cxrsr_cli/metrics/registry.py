"""The list of metrics of an evaluation; a new one is added here."""

from cxrsr_cli.metrics.fourier_ring_correlation import SFRC_FLAGGED
from cxrsr_cli.metrics.haarpsi import HAARPSI_MED
from cxrsr_cli.metrics.input_consistency import INCONSISTENCY, LR_PSNR
from cxrsr_cli.metrics.metric import Metric
from cxrsr_cli.metrics.ms_ssim import MS_SSIM
from cxrsr_cli.metrics.psnr_ssim import PSNR, SSIM

METRICS: list[Metric] = [
    PSNR,
    SSIM,
    MS_SSIM,
    HAARPSI_MED,
    LR_PSNR,
    SFRC_FLAGGED,
    INCONSISTENCY,
]
"""In the order of tables and files. Every evaluation computes all; append to add one."""
