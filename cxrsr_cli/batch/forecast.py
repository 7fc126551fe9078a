"""What a dry run foretells of a file: what the run would refuse, its time and its size."""

import time
from typing import TYPE_CHECKING

import numpy as np

from cxrsr_cli.batch.result import Forecast
from cxrsr_cli.derive.derive import derive
from cxrsr_cli.dicom.pixel_format import PixelFormat, PixelRange
from cxrsr_cli.dicom.write import check_header

if TYPE_CHECKING:
    from cxrsr_cli.upscaler import DecodedSource, Upscaler

_TIMED_ROWS, _TIMED_COLUMNS = 64, 256


def foretell(upscaler: "Upscaler", decoded: "DecodedSource") -> tuple[Forecast, list[str]]:
    """Derive and encode the header without pixels, and time the network on a piece of the image.

    Returns
    -------
    Forecast, list of str
        What the run will take, and its warnings, without patient data.

    Raises
    ------
    CxrsrError
        What the run would raise after the network.
    """
    source, scale = decoded.source, upscaler.options.scale
    frames, rows, columns = decoded.frames.shape
    pixel_format = PixelFormat.from_dataset(source.dataset)
    # Zeros that nobody writes to take no memory.
    pixels = np.zeros((frames, rows * scale, columns * scale), pixel_format.dtype)
    derived, warnings = derive(
        source, decoded.frames, pixels, upscaler.parameters, upscaler.clock(), agreement=""
    )
    check_header(derived, upscaler.transfer_syntax(source))
    forecast = Forecast(
        seconds=_seconds(upscaler, decoded),
        output_bytes=pixels.size * pixel_format.cell_dtype.itemsize,
    )
    return forecast, warnings


def _seconds(upscaler: "Upscaler", decoded: "DecodedSource") -> float:
    """Return the time of the network on this machine, of all frames."""
    piece = np.ascontiguousarray(decoded.frames[0, :_TIMED_ROWS, :_TIMED_COLUMNS])
    started = time.perf_counter()
    upscaler.predictor.upscale(piece, PixelRange.from_dataset(decoded.source.dataset))
    seconds = time.perf_counter() - started
    work = piece.size * (1 + upscaler.predictor.plan(*piece.shape).overlap)
    return seconds / work * decoded.frames.size * (1 + decoded.plan.overlap)
