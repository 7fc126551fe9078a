"""The paper's protocol: project an output on the images that downsample to a bicubic input."""

import math

import torch

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.networks.resampling import downsample, upsample

_STEPS = 15


def project_on_bicubic(
    estimate: torch.Tensor, low_resolution: torch.Tensor, scale: int, pixel_range: PixelRange
) -> torch.Tensor:
    """Project `estimate` on the images within the range that downsample to `low_resolution`.

    Accelerated projected gradient: ``x <- clip(v + up(lr - down(v)))`` with
    the momentum of FISTA (Beck and Teboulle 2009). The equality alone is the
    consistency enforcing module of Bahat and Michaeli (CVPR 2020).

    Parameters
    ----------
    estimate : torch.Tensor
        ``(N, C, scale * H, scale * W)``, floating point.
    low_resolution : torch.Tensor
        ``(N, C, H, W)``, same units as `estimate`.
    scale : int
        Whole factor between the two.
    pixel_range : PixelRange
        Legal range of the output, in the units of `estimate`.

    Returns
    -------
    torch.Tensor
        Shape of `estimate`, within the range.
    """
    minimum, maximum = pixel_range.minimum, pixel_range.maximum
    current = estimate.clamp(minimum, maximum)
    point = estimate
    momentum = 1.0
    for _ in range(_STEPS):
        previous = current
        residual = low_resolution - downsample(point, scale)
        current = upsample(residual, scale).add_(point).clamp_(minimum, maximum)
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        point = torch.lerp(previous, current, 1 + (momentum - 1) / following)
        momentum = following
    return current
