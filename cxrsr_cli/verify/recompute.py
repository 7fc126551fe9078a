"""Make an output again by what it states of its making, and compare every pixel."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.errors import CxrsrError, DeviceError
from cxrsr_cli.inference.noise_curve import NoiseCurve, noise_level_sha256
from cxrsr_cli.networks.config import Precision
from cxrsr_cli.networks.model_files import find_model_by_sha256
from cxrsr_cli.upscaler import Upscaler
from cxrsr_cli.verify.findings import Aspect, ClaimStatus, Finding, Place

CLAIM = "the stated model and choices make the same pixels again"
_MAX_DIFFERENCE = 1
"""Stored units between two machines, whose processors and libraries round otherwise."""
_CELL_PIXELS, _MAX_SHARE = 8, 1 / 8
"""Of the pixels of a cell of the output, the share that may differ. Rounding differs here and
there; what was changed differs in one place."""


@dataclass(frozen=True, slots=True)
class Recomputation:
    """Makes outputs again.

    Attributes
    ----------
    models : sequence of Path
        Weights files besides the bundled ones.
    device : str
        Device for the work; by default of the kind that the object states.
    """

    models: Sequence[Path] = field(default=())
    device: str | None = None

    def check(
        self,
        source: DicomSource,
        frames: NDArray[np.int32],
        derived_pixels: NDArray[np.integer],
        parameters: DerivationParameters | None,
        noise: Sequence[NoiseCurve] | None,
    ) -> Finding:
        """Upscale the source again.

        Parameters
        ----------
        source : DicomSource
            The original.
        frames : numpy.ndarray
            ``(F, H, W)`` int32, its stored values.
        derived_pixels : numpy.ndarray
            ``(F, scale * H, scale * W)`` stored values to compare.
        parameters : DerivationParameters or None
            What the object states of its making.
        noise : sequence of NoiseCurve or None
            Of each frame, if it is known better than by estimating it here.
        """
        if parameters is None:
            return _not_checked("the object does not state how it was made")
        if parameters.noise_level_sha256 not in ("", noise_level_sha256()):
            return _not_checked("another estimator of noise was used")
        try:
            upscaler = _load(parameters, tuple(self.models), self.device)
            again = upscaler.upscale_again(source, frames, noise).frames
        except CxrsrError as error:
            return _not_checked(str(error))
        return _compare(again, derived_pixels, upscaler, parameters)


def _not_checked(reason: str) -> Finding:
    return Finding.not_checked(Aspect.RECOMPUTATION, CLAIM, reason)


@lru_cache(maxsize=4)
def _load(
    parameters: DerivationParameters, models: tuple[Path, ...], device: str | None
) -> Upscaler:
    model = find_model_by_sha256(parameters.model_sha256, models)
    options = replace(parameters.options, model=str(model.path), device=device or "auto")
    if device is not None:
        return Upscaler.load(model, options)
    try:
        return Upscaler.load(model, replace(options, device=parameters.options.device))
    except DeviceError:
        return Upscaler.load(model, replace(options, device="cpu"))


def _compare(
    again: NDArray[np.integer],
    found: NDArray[np.integer],
    upscaler: Upscaler,
    parameters: DerivationParameters,
) -> Finding:
    different, largest, place = 0, 0, None
    is_scattered = True
    for index, (new, old) in enumerate(zip(again, found, strict=True)):
        difference = np.abs(new.astype(np.int32) - old)
        count = int(np.count_nonzero(difference))
        if not count:
            continue
        different += count
        share = _cell_means(difference > 0)
        is_scattered = is_scattered and bool(share.max() <= _MAX_SHARE)
        if difference.max() > largest:
            largest = int(difference.max())
            row, column = divmod(int(difference.argmax()), difference.shape[1])
            scale = parameters.options.scale
            place = Place(index + 1, row // scale + 1, column // scale + 1, 1)
    if not different:
        return Finding.of(Aspect.RECOMPUTATION, CLAIM, True, "bit for bit")
    detail = f"{different} pixels differ, by {largest} stored units at most"
    if largest <= _MAX_DIFFERENCE and is_scattered:
        return Finding.of(Aspect.RECOMPUTATION, CLAIM, True, detail)
    here = upscaler.parameters
    if here.software != parameters.software:
        return _not_checked(
            f"made by cxrsr {parameters.software}, and {here.software} makes other pixels: {detail}"
        )
    if parameters.options.precision is not Precision.FP32 and _kind(here) != _kind(parameters):
        return _not_checked(
            f"{parameters.options.precision} on {_kind(parameters)} rounds otherwise than on "
            f"{_kind(here)}: {detail}"
        )
    detail = f"{detail}; most at {place}"
    return Finding(Aspect.RECOMPUTATION, CLAIM, ClaimStatus.FAILS, detail, place)


def _kind(parameters: DerivationParameters) -> str:
    return parameters.options.device.partition(":")[0]


def _cell_means(different: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share of pixels that differ, for each square cell."""
    rows, columns = (-(-side // _CELL_PIXELS) * _CELL_PIXELS for side in different.shape)
    padded = np.zeros((rows, columns), bool)
    padded[: different.shape[0], : different.shape[1]] = different
    cells = padded.reshape(rows // _CELL_PIXELS, _CELL_PIXELS, columns // _CELL_PIXELS, -1)
    means: NDArray[np.float64] = cells.mean((1, 3))
    return means
