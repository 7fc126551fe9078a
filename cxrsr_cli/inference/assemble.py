"""From the network's residual to stored values: image skip and data consistency, tile by tile."""

from dataclasses import dataclass

import torch

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.inference.data_consistency import (
    MARGIN,
    OUTPUT_STEPS,
    consistent_bicubic,
    enforce_consistency,
)
from cxrsr_cli.inference.normalisation import Normalisation
from cxrsr_cli.networks.config import ImageSkip, NetworkConfig
from cxrsr_cli.networks.resampling import upsample


def image_skip(
    kind: ImageSkip, low_resolution: torch.Tensor, scale: int, pixel_range: PixelRange
) -> torch.Tensor | None:
    """Make the image that a network's residual is added to.

    Parameters
    ----------
    kind : ImageSkip
        From the network's architecture.
    low_resolution : torch.Tensor
        ``(N, 1, H, W)``, floating point.
    scale : int
        Whole factor.
    pixel_range : PixelRange
        In the units of `low_resolution`.

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
        case ImageSkip.CONSISTENT:
            return consistent_bicubic(low_resolution, scale, pixel_range)


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
        ``(1, 1, H, W)`` float32 stored values that the network sees.
    low_resolution : torch.Tensor or None
        Stored values that the output must downsample to; None without consistency.
    pixel_range : PixelRange
        Legal stored values.
    """

    architecture: NetworkConfig
    normalisation: Normalisation
    network_input: torch.Tensor
    low_resolution: torch.Tensor | None
    pixel_range: PixelRange

    def strip(
        self, residual: torch.Tensor, first: int, top: int, bottom: int, columns: int
    ) -> torch.Tensor:
        """Make a strip of the output.

        Parameters
        ----------
        residual : torch.Tensor
            ``(1, 1, scale * h, scale * W)`` network values of the rows from
            `first` on: the strip's and, up to the border, `MARGIN` on both sides.
        first, top, bottom : int
            Rows of the input: the residual's first, the strip's first, and the
            row after its last.
        columns : int
            Columns of the input in a tile.

        Returns
        -------
        torch.Tensor
            ``(1, 1, scale * (bottom - top), scale * W)`` float32 stored values,
            not rounded; with consistency, within the range.
        """
        scale, width = self.architecture.scale, self.network_input.shape[-1]
        last = first + residual.shape[-2] // scale
        strip = residual.new_empty(1, 1, (bottom - top) * scale, width * scale)
        rows = slice((top - first) * scale, (bottom - first) * scale)
        for left in range(0, width, columns):
            right = min(left + columns, width)
            start, stop = max(left - MARGIN, 0), min(right + MARGIN, width)
            context = (..., slice(first, last), slice(start, stop))
            tile = self._tile(
                residual[..., start * scale : stop * scale],
                self.network_input[context],
                None if self.low_resolution is None else self.low_resolution[context],
            )
            inner = slice((left - start) * scale, (right - start) * scale)
            strip[..., left * scale : right * scale] = tile[..., rows, inner]
        return strip

    def _tile(
        self,
        residual: torch.Tensor,
        network_input: torch.Tensor,
        low_resolution: torch.Tensor | None,
    ) -> torch.Tensor:
        kind, scale = self.architecture.image_skip, self.architecture.scale
        output: torch.Tensor | None
        if kind is ImageSkip.CONSISTENT:
            # Equal to `image_skip`, and faster for a single image.
            output = enforce_consistency(None, network_input, scale, self.pixel_range)
        else:
            output = image_skip(kind, network_input, scale, self.pixel_range)
        if output is None:
            output = self.normalisation.to_stored(residual)
        else:
            output += self.normalisation.residual_to_stored(residual)
        if low_resolution is None:
            return output
        return enforce_consistency(
            output, low_resolution, scale, self.pixel_range, steps=OUTPUT_STEPS
        )
