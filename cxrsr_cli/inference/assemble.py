"""From the network's residual to stored values: image skip and agreement, strip by strip."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.inference.agreement import SIGMAS, enforce_agreement
from cxrsr_cli.inference.noise_curve import NoiseCurve
from cxrsr_cli.inference.normalisation import Normalisation
from cxrsr_cli.networks.config import ImageSkip, NetworkConfig
from cxrsr_cli.networks.resampling import upsample

_BICUBIC_RADIUS = 2
MAX_ROWS = 64
"""Input rows whose output is assembled at a time."""


def image_skip(kind: ImageSkip, low_resolution: torch.Tensor, scale: int) -> torch.Tensor | None:
    """Make the image that a network's residual is added to.

    Parameters
    ----------
    kind : ImageSkip
        From the network's architecture.
    low_resolution : torch.Tensor
        ``(N, 1, H, W)``, floating point.
    scale : int
        Whole factor.

    Returns
    -------
    torch.Tensor or None
        ``(N, 1, scale * H, scale * W)``; None for `ImageSkip.NONE`.
    """
    match kind:
        case ImageSkip.NONE:
            return None
        case ImageSkip.BICUBIC:
            return upsample(low_resolution, scale)


@dataclass(frozen=True, slots=True)
class OutputAssembler:
    """Makes the output of one image from the network's residual.

    Attributes
    ----------
    architecture : NetworkConfig
        The network's.
    normalisation : Normalisation
        The image's.
    network_input : torch.Tensor
        ``(1, 1, H, W)`` float32 stored values that the network sees, on the CPU.
    source : torch.Tensor
        ``(1, 1, H, W)`` float32 stored values that the output agrees with, on the CPU.
    noise : NoiseCurve or None
        Of the source. It bounds the difference of a block's mean to its pixel
        (`enforce_agreement`). None without agreement.
    pixel_range : PixelRange
        Legal stored values.
    """

    architecture: NetworkConfig
    normalisation: Normalisation
    network_input: torch.Tensor
    source: torch.Tensor
    noise: NoiseCurve | None
    pixel_range: PixelRange

    def strips(self, residuals: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Make the output from the residual.

        Parameters
        ----------
        residuals : iterator of torch.Tensor
            ``(1, 1, scale * h, scale * W)`` network values, strips from top to bottom, on
            any device.

        Yields
        ------
        torch.Tensor
            ``(1, 1, scale * h, scale * W)`` float32 stored values, not rounded, with h of at
            most `MAX_ROWS`; with agreement, within the range.
        """
        top, scale = 0, self.architecture.scale
        for residual in residuals:
            for part in torch.split(residual, MAX_ROWS * scale, dim=-2):
                bottom = top + part.shape[-2] // scale
                yield self._strip(part, top, bottom)
                top = bottom

    def _strip(self, residual: torch.Tensor, top: int, bottom: int) -> torch.Tensor:
        scale = self.architecture.scale
        first, last = max(top - _BICUBIC_RADIUS, 0), bottom + _BICUBIC_RADIUS
        seen = self.network_input[..., first:last, :].to(residual.device)
        skip = image_skip(self.architecture.image_skip, seen, scale)
        if skip is None:
            output = self.normalisation.to_stored(residual)
        else:
            output = skip[..., (top - first) * scale : (bottom - first) * scale, :]
            output = output + self.normalisation.residual_to_stored(residual)
        if self.noise is None:
            return output
        source = self.source[..., top:bottom, :]
        bound = SIGMAS * torch.from_numpy(self.noise.at(source.numpy()))
        return enforce_agreement(
            output,
            source.to(output.device),
            scale,
            bound=bound,
            minimum=self.pixel_range.minimum,
            maximum=self.pixel_range.maximum,
        )
