"""A model at work: stored values in, more stored values out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cxrsr_cli.errors import DeviceError, ModelError, TooLargeError
from cxrsr_cli.restore.architecture import DEFAULT_TILE, Architecture
from cxrsr_cli.restore.consistency import project
from cxrsr_cli.restore.device import choose_device, choose_precision, dtype_of
from cxrsr_cli.restore.ensemble import from_all_sides
from cxrsr_cli.restore.impulses import without_impulses
from cxrsr_cli.restore.normalisation import Normalisation
from cxrsr_cli.restore.parts import SuperResolver
from cxrsr_cli.restore.precision import Precision
from cxrsr_cli.restore.skip import image_skip
from cxrsr_cli.restore.tiling import apply_tiled, count
from cxrsr_cli.restore.weights import load_network, read_description

_TOLERANCE = 0.5
"""Stored units RMS at which the projection stops: the size of rounding."""


@dataclass(frozen=True, slots=True)
class Restorer:
    """A network on its device, with how it is to be run.

    Attributes
    ----------
    network : SuperResolver
        In evaluation mode, on `device`.
    device : torch.device
        Where tiles are computed.
    precision : Precision
        Resolved arithmetic.
    tile : int
        Largest side of a tile, in low-resolution pixels.
    consistent : bool
        Project the output on the input (`project`).
    ensemble : bool
        Mean over the eight flips and rotations of the network's residual.
    """

    network: SuperResolver
    device: torch.device
    precision: Precision
    tile: int = DEFAULT_TILE
    consistent: bool = True
    ensemble: bool = False

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: str = "auto",
        precision: Precision = Precision.AUTO,
        tile: int = DEFAULT_TILE,
        consistent: bool | None = None,
        ensemble: bool = False,
    ) -> "Restorer":
        """Load a weights file on a device.

        Parameters
        ----------
        path : Path
            The file.
        device, precision
            As `choose_device` and `choose_precision` take them.
        tile, ensemble
            As the attributes.
        consistent : bool, optional
            As the attribute; what the model's header says if not given.

        Raises
        ------
        ModelError
            As `load_network`.
        DeviceError
            If the device or precision is not to be had.
        """
        chosen = choose_device(device)
        resolved = choose_precision(precision, chosen)
        network = load_network(path)
        if consistent is None:
            consistent = read_description(path).projected
        try:
            network.to(chosen, dtype_of(resolved))
            network.stem.float()
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        except RuntimeError as error:
            raise DeviceError(f"cannot use the device '{chosen}'") from error
        return cls(network, chosen, resolved, tile, consistent, ensemble)

    @property
    def architecture(self) -> Architecture:
        """The network's."""
        return self.network.architecture

    def tiles(self, height: int, width: int) -> int:
        """Return how many times `restore` calls `advance` for one image."""
        return count(height, width, self.tile)

    @torch.inference_mode()
    def restore(
        self,
        stored: NDArray[np.int32],
        *,
        minimum: int,
        maximum: int,
        inverted: bool = False,
        advance: Callable[[], None] = lambda: None,
    ) -> NDArray[np.int32]:
        """Enlarge one image.

        Parameters
        ----------
        stored : numpy.ndarray
            ``(H, W)`` int32 stored values.
        minimum, maximum : int
            Legal range of stored values, of input and output.
        inverted : bool
            True for MONOCHROME1.
        advance : callable
            Called after each tile.

        Returns
        -------
        numpy.ndarray
            ``(scale * H, scale * W)`` int32 within the range.

        Raises
        ------
        ModelError
            If the network makes values that are not finite.
        """
        low = torch.from_numpy(stored.astype(np.float32))[None, None]
        output = self.estimate(
            low,
            minimum=minimum,
            maximum=maximum,
            inverted=inverted,
            consistent=self.consistent,
            advance=advance,
        )
        if not output.isfinite().all():
            raise ModelError(
                f"the model made values that are not numbers in {self.precision}; try fp32"
            )
        rounded: NDArray[np.float32] = output.round_().clamp_(minimum, maximum)[0, 0].numpy()
        return rounded.astype(np.int32)

    @torch.inference_mode()
    def estimate(
        self,
        low: torch.Tensor,
        *,
        minimum: float,
        maximum: float,
        inverted: bool = False,
        consistent: bool = True,
        advance: Callable[[], None] = lambda: None,
    ) -> torch.Tensor:
        """Enlarge one image, without rounding.

        Parameters
        ----------
        low : torch.Tensor
            ``(1, 1, H, W)`` float32 stored values on the CPU.
        minimum, maximum, inverted, advance
            As in `restore`.
        consistent : bool
            Project the output on the input.

        Returns
        -------
        torch.Tensor
            ``(1, 1, scale * H, scale * W)`` float32; within the range if
            `consistent`.

        Raises
        ------
        TooLargeError
            If the device's memory does not suffice, or the image is larger than
            a tile and the network must see it whole (`Architecture.whole_image`).
        """
        scale = self.architecture.scale
        if self.architecture.whole_image and self.tiles(*low.shape[-2:]) > 1:
            raise TooLargeError(
                "this model must see the whole image at once; "
                f"use --tile {max(low.shape[-2:])} or larger"
            )
        seen = low
        if self.architecture.impulse_filter:
            seen = without_impulses(low, minimum=minimum, maximum=maximum)
        norm = Normalisation.of(seen, inverted=inverted)
        try:
            # PyTorch's default on recent GPUs is TF32, which is not float32.
            with torch.backends.cudnn.flags(allow_tf32=False):
                residual = apply_tiled(
                    from_all_sides(self.network) if self.ensemble else self.network,
                    norm.to_network(seen),
                    scale=scale,
                    halo=self.architecture.halo,
                    tile=self.tile,
                    device=self.device,
                    advance=advance,
                )
        except torch.OutOfMemoryError as error:
            message = f"not enough memory on {self.device}; use a smaller --tile"
            raise TooLargeError(message) from error
        skip = image_skip(
            self.architecture.image_skip, seen, scale, minimum=minimum, maximum=maximum
        )
        if skip is None:
            output = norm.to_stored(residual)
        else:
            output = skip.add_(norm.residual_to_stored(residual))
        if not consistent:
            return output
        return project(output, low, scale, minimum=minimum, maximum=maximum, tolerance=_TOLERANCE)
