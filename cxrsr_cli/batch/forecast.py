"""What a dry run foretells of a file: its time and its size."""

import time
from typing import TYPE_CHECKING

import numpy as np

from cxrsr_cli.batch.result import Forecast
from cxrsr_cli.dicom.pixel_format import PixelFormat, PixelRange

if TYPE_CHECKING:
    from cxrsr_cli.upscaler import DecodedSource, Upscaler

_TIMED_ROWS, _TIMED_COLUMNS = 64, 256


def foretell(upscaler: "Upscaler", decoded: "DecodedSource") -> Forecast:
    """Time the network on a piece of the image, and count the bytes of the output.

    Raises
    ------
    CxrsrError
        If the network fails on that piece.
    """
    cell = PixelFormat.from_dataset(decoded.source.dataset).cell_dtype
    pixels = decoded.frames.size * upscaler.options.scale**2
    return Forecast(_seconds(upscaler, decoded), pixels * cell.itemsize)


def _seconds(upscaler: "Upscaler", decoded: "DecodedSource") -> float:
    """Return the time of the network on this machine, of all frames."""
    piece = np.ascontiguousarray(decoded.frames[0, :_TIMED_ROWS, :_TIMED_COLUMNS])
    started = time.perf_counter()
    upscaler.predictor.upscale(piece, PixelRange.from_dataset(decoded.source.dataset))
    seconds = time.perf_counter() - started
    work = piece.size * (1 + upscaler.predictor.plan(*piece.shape).overlap)
    return seconds / work * decoded.frames.size * (1 + decoded.plan.overlap)
