"""A model on its device: stored values of an image in, those of the upscaled image out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.dicom.transfer_syntax import NATIVE_WRITE_FACTOR
from cxrsr_cli.errors import DeviceError, MemoryLimitError, ModelError
from cxrsr_cli.inference.assemble import OutputAssembler
from cxrsr_cli.inference.device import choose_device, choose_precision, dtype_of
from cxrsr_cli.inference.impulse_filter import remove_impulses
from cxrsr_cli.inference.memory_plan import MemoryPlan, MemoryPlanner
from cxrsr_cli.inference.noise_curve import NO_NOISE, NoiseCurve, noise_level_sha256
from cxrsr_cli.inference.normalisation import Normalisation
from cxrsr_cli.inference.streaming import residuals
from cxrsr_cli.networks.config import (
    DEFAULT_NOISE_REDUCTION,
    Agreement,
    NetworkConfig,
    Precision,
)
from cxrsr_cli.networks.conv_program import ConvProgram
from cxrsr_cli.networks.layers import SuperResolutionNetwork
from cxrsr_cli.networks.model_files import ModelMetadata, load_network, read_metadata


def _ignore(_: object) -> None:
    """Take a report and do nothing."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """A network on its device, with the choices for running it.

    Attributes
    ----------
    network : SuperResolutionNetwork
        As trained, in evaluation mode, on `device`.
    program : ConvProgram or None
        The compiled network, which is run instead; None for a network that must
        see the whole image.
    device : torch.device
        Where it runs.
    precision : Precision
        Resolved arithmetic.
    memory : int or None
        Bytes that the work on an image may take (`MemoryPlanner`).
    agreement : Agreement
        How close the output's block means are to the source (`enforce_agreement`).
    noise_reduction : float
        Share of the source's noise that the network removes, within [0, 1].
    self_ensemble : bool
        Average the network's residual over the eight flips and rotations.
    """

    network: SuperResolutionNetwork
    program: ConvProgram | None
    device: torch.device
    precision: Precision
    memory: int | None = None
    agreement: Agreement = Agreement.NOISE
    noise_reduction: float = 0.0
    self_ensemble: bool = False

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        metadata: ModelMetadata | None = None,
        device: str = "auto",
        precision: Precision = Precision.AUTO,
        memory: int | None = None,
        agreement: Agreement | None = None,
        noise_reduction: float | None = None,
        self_ensemble: bool = False,
    ) -> "Predictor":
        """Load a model file on a device.

        Parameters
        ----------
        path : Path
            The file.
        metadata : ModelMetadata, optional
            Its header, if it has been read already.
        device, precision
            As `choose_device` and `choose_precision` take them.
        memory, self_ensemble
            As the attributes.
        agreement : Agreement, optional
            As the attribute. By default as the model's header says.
        noise_reduction : float, optional
            As the attribute. By default `DEFAULT_NOISE_REDUCTION`, but nothing with exact
            agreement, which brings the noise back, and with a network that cannot.

        Raises
        ------
        ModelError
            As `load_network`, or if the network cannot reduce noise.
        DeviceError
            If the device or precision is not available.
        """
        chosen = choose_device(device)
        resolved = choose_precision(precision, chosen)
        metadata = metadata or read_metadata(path)
        return cls.from_network(
            load_network(path, metadata),
            chosen,
            resolved,
            memory,
            agreement=agreement or metadata.agreement,
            noise_reduction=noise_reduction,
            self_ensemble=self_ensemble,
        )

    @classmethod
    def from_network(
        cls,
        network: SuperResolutionNetwork,
        device: torch.device,
        precision: Precision = Precision.FP32,
        memory: int | None = None,
        *,
        agreement: Agreement = Agreement.NOISE,
        noise_reduction: float | None = None,
        self_ensemble: bool = False,
    ) -> "Predictor":
        """Compile a network and move it to a device; parameters as of `load`.

        Raises
        ------
        ModelError
            If the network cannot reduce noise.
        DeviceError
            If the device cannot be used.
        """
        if network.architecture.noise_share:
            if noise_reduction is None:
                is_exact = agreement is Agreement.EXACT
                noise_reduction = 0.0 if is_exact else DEFAULT_NOISE_REDUCTION
        elif noise_reduction:
            raise ModelError(
                "the model cannot reduce noise by a share; leave out the noise reduction"
            )
        reduction = noise_reduction or 0.0
        dtype = dtype_of(precision)
        program = network.to_conv_program(1 - reduction)
        try:
            program = program and program.to(device, dtype)
            network.to(device, dtype)
            network.stem.float()
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        except RuntimeError as error:
            raise DeviceError(f"cannot use the device '{device}'") from error
        return cls(network, program, device, precision, memory, agreement, reduction, self_ensemble)

    @property
    def architecture(self) -> NetworkConfig:
        """The network's configuration."""
        return self.network.architecture

    def plan(
        self,
        height: int,
        width: int,
        itemsize: int = 2,
        frames: int = 1,
        write_memory_factor: float = NATIVE_WRITE_FACTOR,
    ) -> MemoryPlan:
        """Plan the work on an image; parameters as `MemoryPlanner.plan`."""
        planner = MemoryPlanner(
            self.architecture,
            self.program,
            self.memory,
            on_gpu=self.device.type != "cpu",
            self_ensemble=self.self_ensemble,
        )
        return planner.plan(height, width, itemsize, frames, write_memory_factor)

    def upscale(self, stored: NDArray[np.int32], pixel_range: PixelRange) -> NDArray[np.int32]:
        """Upscale one image; parameters and errors as `predict_strips`.

        Returns
        -------
        numpy.ndarray
            ``(scale * H, scale * W)`` int32 within the range.
        """
        strips = self.predict_strips(stored, pixel_range)
        return np.concatenate([strip for _, strip in strips])

    def predict_strips(
        self,
        stored: NDArray[np.int32],
        pixel_range: PixelRange,
        *,
        plan: MemoryPlan | None = None,
        noise: NoiseCurve | None = None,
        normalisation: Normalisation | None = None,
        advance: Callable[[float], None] = _ignore,
        note: Callable[[str], None] = _ignore,
    ) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """Upscale one image, strip by strip from top to bottom.

        Parameters
        ----------
        stored : numpy.ndarray
            ``(H, W)`` int32 stored values.
        pixel_range : PixelRange
            Legal stored values of input and output.
        plan : MemoryPlan, optional
            `Predictor.plan` by default.
        noise : NoiseCurve, optional
            `Predictor.estimate_noise` by default.
        normalisation : Normalisation, optional
            `Normalisation.from_image` by default. With those of a whole image, `noise` and this
            make a part of it come out as in the whole, but for a border of the receptive field.
        advance : callable
            Called with each share of the image that is done. The shares add up to 1.
        note : callable
            Called with a sentence when the work deviates from the plan.

        Yields
        ------
        tuple of int and numpy.ndarray
            Number of the strip's first output row, and ``(h, scale * W)`` int32
            within the range.

        Raises
        ------
        ModelError
            If the network makes values that are not finite.
        MemoryLimitError
            As `predict`.
        """
        top = 0
        low = torch.from_numpy(stored.astype(np.float32))[None, None]
        for strip in self._predict_strips(
            low,
            pixel_range,
            plan or self.plan(*stored.shape),
            self.estimate_noise(stored, pixel_range) if noise is None else noise,
            normalisation,
            advance=advance,
            note=note,
        ):
            if not strip.isfinite().all():
                raise ModelError(
                    f"the model made values that are not numbers in {self.precision}; try fp32"
                )
            rounded = strip.round().clamp_(pixel_range.minimum, pixel_range.maximum)
            values = rounded.to(torch.int32)[0, 0].cpu().numpy()
            yield top, values
            top += len(values)

    @property
    def noise_level_sha256(self) -> str:
        """SHA-256 of the weights that estimate noise; empty if the agreement needs none."""
        return noise_level_sha256() if self.agreement is Agreement.NOISE else ""

    def estimate_noise(
        self,
        stored: NDArray[np.int32],
        pixel_range: PixelRange,
        padding: NDArray[np.bool_] | None = None,
    ) -> NoiseCurve:
        """Estimate how far each pixel may be off; zero unless the agreement asks for it."""
        if self.agreement is not Agreement.NOISE:
            return NO_NOISE
        return NoiseCurve.estimate(stored, pixel_range, padding)

    def predict(
        self,
        low: torch.Tensor,
        pixel_range: PixelRange,
        *,
        advance: Callable[[float], None] = _ignore,
    ) -> torch.Tensor:
        """Upscale one image without rounding.

        Parameters
        ----------
        low : torch.Tensor
            ``(1, 1, H, W)`` float32 stored values on the CPU.
        pixel_range : PixelRange
            Legal stored values of input and output.
        advance : callable
            As in `predict_strips`.

        Returns
        -------
        torch.Tensor
            ``(1, 1, scale * H, scale * W)`` float32 on the CPU; within the range
            unless the agreement is none.

        Raises
        ------
        MemoryLimitError
            If the image needs more than `memory`, or more than the device has.
        """
        plan = self.plan(*low.shape[-2:])
        noise = self.estimate_noise(low[0, 0].round().to(torch.int32).numpy(), pixel_range)
        strips = self._predict_strips(low, pixel_range, plan, noise, advance=advance)
        return torch.cat([strip.cpu() for strip in strips], dim=-2)

    @torch.inference_mode()
    def _predict_strips(
        self,
        low: torch.Tensor,
        pixel_range: PixelRange,
        plan: MemoryPlan,
        noise: NoiseCurve,
        normalisation: Normalisation | None = None,
        *,
        advance: Callable[[float], None] = _ignore,
        note: Callable[[str], None] = _ignore,
    ) -> Iterator[torch.Tensor]:
        """Yield the output in strips of float32 stored values, on the device."""
        network_input = low
        if self.architecture.impulse_filter:
            network_input = remove_impulses(low, pixel_range)
        if normalisation is None:
            normalisation = Normalisation.from_image(network_input, inverted=pixel_range.inverted)
        assembler = OutputAssembler(
            self.architecture,
            normalisation,
            network_input,
            low,
            None if self.agreement is Agreement.NONE else noise,
            pixel_range,
        )
        parts = residuals(
            self.network,
            self.program,
            normalisation.to_network(network_input),
            rows=plan.rows,
            device=self.device,
            noise_share=1 - self.noise_reduction,
            self_ensemble=self.self_ensemble,
            advance=advance,
            on_rows_halved=lambda rows: note(
                f"memory ran short on {self.device}; {rows} rows at a time"
            ),
        )
        try:
            yield from assembler.strips(parts)
        except torch.OutOfMemoryError as error:
            message = f"not enough memory on {self.device}; use a smaller --memory"
            raise MemoryLimitError(message) from error
        except RuntimeError as error:
            # On a CPU, PyTorch has no error class of its own for this.
            if "allocate" not in str(error):
                raise
            raise MemoryLimitError("not enough memory for this image at this scale") from error
