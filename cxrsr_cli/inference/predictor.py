"""A model at work: stored values in, more stored values out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cxrsr_cli.dicom.transfer_syntax import NATIVE_WRITE_FACTOR
from cxrsr_cli.errors import DeviceError, MemoryLimitError, ModelError
from cxrsr_cli.inference.assemble import OutputAssembler
from cxrsr_cli.inference.data_consistency import MARGIN
from cxrsr_cli.inference.device import choose_device, choose_precision, dtype_of
from cxrsr_cli.inference.impulse_filter import remove_impulses
from cxrsr_cli.inference.memory_plan import MemoryPlan, MemoryPlanner
from cxrsr_cli.inference.normalisation import Normalisation
from cxrsr_cli.inference.streaming import RowBuffer, residuals
from cxrsr_cli.networks.config import NetworkConfig, Precision
from cxrsr_cli.networks.conv_program import ConvProgram
from cxrsr_cli.networks.layers import SuperResolutionNetwork
from cxrsr_cli.networks.model_files import load_network, read_metadata


def _nobody(_: object) -> None:
    """Listen to nothing."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """A network on its device, with how it is to be run.

    Attributes
    ----------
    network : SuperResolver
        As trained, in evaluation mode, on `device`.
    program : Program or None
        The same compiled, which does the work; None for a network that must
        see the whole image.
    device : torch.device
        Where it is done.
    precision : Precision
        Resolved arithmetic.
    memory : int or None
        Bytes that the work on an image may take (`MemoryPlanner`).
    consistent : bool
        Project the output on the input (`enforce_consistency`).
    ensemble : bool
        Mean over the eight flips and rotations of the network's residual.
    """

    network: SuperResolutionNetwork
    program: ConvProgram | None
    device: torch.device
    precision: Precision
    memory: int | None = None
    consistency: bool = True
    self_ensemble: bool = False

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: str = "auto",
        precision: Precision = Precision.AUTO,
        memory: int | None = None,
        consistent: bool | None = None,
        ensemble: bool = False,
    ) -> "Predictor":
        """Load a weights file on a device.

        Parameters
        ----------
        path : Path
            The file.
        device, precision
            As `choose_device` and `choose_precision` take them.
        memory, ensemble
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
            consistent = read_metadata(path).consistency
        return cls.from_network(
            network, chosen, resolved, memory, consistent=consistent, ensemble=ensemble
        )

    @classmethod
    def from_network(
        cls,
        network: SuperResolutionNetwork,
        device: torch.device,
        precision: Precision = Precision.FP32,
        memory: int | None = None,
        *,
        consistent: bool = True,
        ensemble: bool = False,
    ) -> "Predictor":
        """Compile a network and put it on a device; parameters are the attributes.

        Raises
        ------
        DeviceError
            If the device cannot be used.
        """
        dtype = dtype_of(precision)
        program = network.to_conv_program()
        try:
            program = program and program.to(device, dtype)
            network.to(device, dtype)
            network.stem.float()
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        except RuntimeError as error:
            raise DeviceError(f"cannot use the device '{device}'") from error
        return cls(network, program, device, precision, memory, consistent, ensemble)

    @property
    def architecture(self) -> NetworkConfig:
        """The network's."""
        return self.network.architecture

    def plan(
        self,
        height: int,
        width: int,
        itemsize: int = 2,
        frames: int = 1,
        written: float = NATIVE_WRITE_FACTOR,
    ) -> MemoryPlan:
        """Plan the work on an image, as `MemoryPlanner.plan_batch`."""
        planner = MemoryPlanner(
            self.architecture,
            self.program,
            self.memory,
            on_gpu=self.device.type != "cpu",
            ensemble=self.self_ensemble,
        )
        return planner.plan(height, width, itemsize, frames, written)

    def predict_strips(
        self,
        stored: NDArray[np.int32],
        *,
        plan: MemoryPlan | None = None,
        minimum: int,
        maximum: int,
        inverted: bool = False,
        advance: Callable[[float], None] = _nobody,
        note: Callable[[str], None] = _nobody,
    ) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """Enlarge one image, band by band from top to bottom.

        Parameters
        ----------
        stored : numpy.ndarray
            ``(H, W)`` int32 stored values.
        plan : Plan, optional
            How; `Predictor.plan_batch` if not given.
        minimum, maximum : int
            Legal range of stored values, of input and output.
        inverted : bool
            True for MONOCHROME1.
        advance : callable
            Told of progress; the shares of the image add up to 1.
        note : callable
            Told what went otherwise than planned, in words.

        Yields
        ------
        tuple of int and numpy.ndarray
            Number of the band's first row, and ``(h, scale * W)`` int32 within
            the range.

        Raises
        ------
        ModelError
            If the network makes values that are not finite.
        TooLargeError
            As `estimate`.
        """
        top = 0
        low = torch.from_numpy(stored.astype(np.float32))[None, None]
        for band in self._predict_strips(
            low,
            plan or self.plan(*stored.shape),
            minimum=minimum,
            maximum=maximum,
            inverted=inverted,
            consistent=self.consistency,
            advance=advance,
            note=note,
        ):
            if not band.isfinite().all():
                raise ModelError(
                    f"the model made values that are not numbers in {self.precision}; try fp32"
                )
            whole = band.round().clamp_(minimum, maximum).to(torch.int32)[0, 0].cpu().numpy()
            yield top, whole
            top += len(whole)

    def restore(
        self, stored: NDArray[np.int32], *, minimum: int, maximum: int, inverted: bool = False
    ) -> NDArray[np.int32]:
        """Enlarge one image: all that `bands` yields, one below the other."""
        bands = self.predict_strips(stored, minimum=minimum, maximum=maximum, inverted=inverted)
        return np.concatenate([band for _, band in bands])

    def predict(
        self,
        low: torch.Tensor,
        *,
        minimum: float,
        maximum: float,
        inverted: bool = False,
        consistent: bool = True,
        advance: Callable[[float], None] = _nobody,
    ) -> torch.Tensor:
        """Enlarge one image, without rounding.

        Parameters
        ----------
        low : torch.Tensor
            ``(1, 1, H, W)`` float32 stored values on the CPU.
        minimum, maximum, inverted
            As in `bands`.
        consistent : bool
            Project the output on the input.
        advance : callable
            As in `predict_strips`.

        Returns
        -------
        torch.Tensor
            ``(1, 1, scale * H, scale * W)`` float32 on the CPU; within the range
            if `consistent`.

        Raises
        ------
        TooLargeError
            If the image cannot be done in `memory`, or not in the device's.
        """
        bands = self._predict_strips(
            low,
            self.plan(*low.shape[-2:]),
            minimum=minimum,
            maximum=maximum,
            inverted=inverted,
            consistent=consistent,
            advance=advance,
        )
        return torch.cat([band.cpu() for band in bands], dim=-2)

    @torch.inference_mode()
    def _predict_strips(
        self,
        low: torch.Tensor,
        plan: MemoryPlan,
        *,
        minimum: float,
        maximum: float,
        inverted: bool,
        consistent: bool,
        advance: Callable[[float], None] = _nobody,
        note: Callable[[str], None] = _nobody,
    ) -> Iterator[torch.Tensor]:
        """Yield what `estimate` returns in bands, on the device."""
        seen = low
        if self.architecture.impulse_filter:
            seen = remove_impulses(low, minimum=minimum, maximum=maximum)
        height = low.shape[-2]
        norm = Normalisation.of(seen, inverted=inverted)
        finish = OutputAssembler(
            self.architecture,
            norm,
            seen.to(self.device),
            low.to(self.device) if consistent else None,
            minimum,
            maximum,
        )
        parts = residuals(
            self.network,
            self.program,
            norm.to_network(seen),
            rows=plan.rows,
            device=self.device,
            ensemble=self.self_ensemble,
            advance=advance,
            narrowed=lambda rows: note(f"memory ran short on {self.device}; {rows} rows at a time"),
        )
        residual = RowBuffer(parts, self.architecture.scale)
        try:
            for top in range(0, height, plan.window[0]):
                bottom = min(top + plan.window[0], height)
                first, last = max(top - MARGIN, 0), min(bottom + MARGIN, height)
                yield finish.band(residual.rows(first, last), first, top, bottom, plan.window[1])
        except torch.OutOfMemoryError as error:
            message = f"not enough memory on {self.device}; use a smaller --memory"
            raise MemoryLimitError(message) from error
        except RuntimeError as error:
            if "allocate" not in str(error):
                raise
            raise MemoryLimitError("not enough memory for this image at this scale") from error
