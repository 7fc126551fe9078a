"""From the network's residual to stored values: image skip and consistency, in windows."""

from dataclasses import dataclass

import torch

from cxrsr_cli.inference.data_consistency import MARGIN, OUTPUT_STEPS, enforce_consistency
from cxrsr_cli.inference.image_skip import image_skip
from cxrsr_cli.inference.normalisation import Normalisation
from cxrsr_cli.networks.config import ImageSkip, NetworkConfig


@dataclass(frozen=True, slots=True)
class OutputAssembler:
    """How an image's residual becomes its output.

    Attributes
    ----------
    architecture : Architecture
        The network's.
    norm : Normalisation
        The image's.
    seen : torch.Tensor
        ``(1, 1, H, W)`` float32 stored values that the network saw.
    low : torch.Tensor or None
        Those that the output must downsample to; None for none.
    minimum, maximum : float
        Legal range.
    """

    architecture: NetworkConfig
    norm: Normalisation
    seen: torch.Tensor
    low: torch.Tensor | None
    minimum: float
    maximum: float

    def band(
        self, residual: torch.Tensor, first: int, top: int, bottom: int, columns: int
    ) -> torch.Tensor:
        """Finish some rows.

        Parameters
        ----------
        residual : torch.Tensor
            ``(1, 1, scale * h, scale * W)`` network values of the rows from
            `first` on, `MARGIN` beyond the band on both sides or to the border.
        first, top, bottom : int
            Rows of the input: the residual's first, and the band's.
        columns : int
            How many of the input are done at a time.

        Returns
        -------
        torch.Tensor
            ``(1, 1, scale * (bottom - top), scale * W)`` float32 stored values,
            not rounded; within the range if made consistent.
        """
        scale, width = self.architecture.scale, self.seen.shape[-1]
        last = first + residual.shape[-2] // scale
        band = residual.new_empty(1, 1, (bottom - top) * scale, width * scale)
        rows = slice((top - first) * scale, (bottom - first) * scale)
        for left in range(0, width, columns):
            right = min(left + columns, width)
            start, stop = max(left - MARGIN, 0), min(right + MARGIN, width)
            window = (..., slice(first, last), slice(start, stop))
            done = self._window(
                residual[..., start * scale : stop * scale],
                self.seen[window],
                None if self.low is None else self.low[window],
            )
            inner = slice((left - start) * scale, (right - start) * scale)
            band[..., left * scale : right * scale] = done[..., rows, inner]
        return band

    def _window(
        self, residual: torch.Tensor, seen: torch.Tensor, low: torch.Tensor | None
    ) -> torch.Tensor:
        output = self._skip(seen)
        if output is None:
            output = self.norm.to_stored(residual)
        else:
            output += self.norm.residual_to_stored(residual)
        if low is None:
            return output
        return enforce_consistency(
            output,
            low,
            self.architecture.scale,
            minimum=self.minimum,
            maximum=self.maximum,
            steps=OUTPUT_STEPS,
        )

    def _skip(self, seen: torch.Tensor) -> torch.Tensor | None:
        scale, minimum, maximum = self.architecture.scale, self.minimum, self.maximum
        if self.architecture.image_skip is ImageSkip.CONSISTENT:
            return enforce_consistency(None, seen, scale, minimum=minimum, maximum=maximum)
        return image_skip(
            self.architecture.image_skip, seen, scale, minimum=minimum, maximum=maximum
        )
