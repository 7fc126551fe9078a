"""The linear map between stored values and network values."""

from dataclasses import dataclass
from typing import Self

import torch

# Markers, pacemakers and dead pixels are brighter than any anatomy. Mapping the
# extremes to 0 and 1 would leave the chest a small part of the network's range.
_PERCENTILES = (0.1, 99.9)
_MAX_SAMPLES = 1 << 20


@dataclass(frozen=True, slots=True)
class Normalisation:
    """``network = (stored - zero) / (one - zero)``.

    Attributes
    ----------
    zero, one : float
        Stored values that the network sees as 0 and 1. For MONOCHROME1
        ``zero > one``, so that the network always sees bone bright. Only this map
        depends on the polarity.
    """

    zero: float
    one: float

    @classmethod
    def from_image(cls, stored: torch.Tensor, *, inverted: bool = False) -> Self:
        """Fit the map to an image.

        Parameters
        ----------
        stored : torch.Tensor
            Stored values of one image, any shape.
        inverted : bool
            True for MONOCHROME1.

        Returns
        -------
        Normalisation
            Maps the 0.1 and 99.9 percentiles to 0 and 1. An image without
            contrast is only shifted.
        """
        values = stored.flatten().float()
        values = values[:: 1 + values.numel() // _MAX_SAMPLES].sort().values
        low, high = (
            values[round(percentile / 100 * (values.numel() - 1))].item()
            for percentile in _PERCENTILES
        )
        if high <= low:
            high = low + 1.0
        return cls(zero=high, one=low) if inverted else cls(zero=low, one=high)

    def to_network(self, stored: torch.Tensor) -> torch.Tensor:
        """Map stored values to network values."""
        return (stored - self.zero) / (self.one - self.zero)

    def to_stored(self, network: torch.Tensor) -> torch.Tensor:
        """Map network values to stored values, not rounded."""
        return network * (self.one - self.zero) + self.zero

    def residual_to_stored(self, residual: torch.Tensor) -> torch.Tensor:
        """Map a difference of network values to a difference of stored values."""
        return residual * (self.one - self.zero)
