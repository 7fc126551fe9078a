"""Read a source and its outputs, and audit them, for one page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cxrsr_cli.common.files import ensure_unchanged
from cxrsr_cli.dicom.decode import decode_compact
from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.dicom.source import DicomSource, read_source
from cxrsr_cli.errors import UsageError, VerificationError
from cxrsr_cli.images.picture_files import is_picture, picture_source, read_picture
from cxrsr_cli.images.picture_provenance import stated_provenance
from cxrsr_cli.verify.findings import Aspect, ClaimStatus, Finding
from cxrsr_cli.verify.rebuild import StatedDerivation
from cxrsr_cli.verify.verify import verify

_SPACINGS = (
    ("PixelSpacing", "by Pixel Spacing"),
    ("ImagerPixelSpacing", "at the detector"),
)


@dataclass(frozen=True, slots=True)
class Spacing:
    """Distance of the source's pixels, as the object states it.

    Attributes
    ----------
    row, column : float
        Millimetres between rows and between columns.
    origin : str
        Where these millimetres are, or which attribute states them.
    """

    row: float
    column: float
    origin: str

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "Spacing | None":
        """Read it (PS3.3 10.7.1, C.8.11.7); None if no attribute states two positive numbers."""
        for keyword, origin in _SPACINGS:
            try:
                row, column = (float(value) for value in dataset.get(keyword) or ())
            except (TypeError, ValueError):
                continue
            if all(math.isfinite(value) and value > 0 for value in (row, column)):
                return cls(row, column, origin)
        return None


@dataclass(frozen=True, slots=True)
class Shown:
    """One image of a comparison.

    Attributes
    ----------
    path : Path
        Its file.
    source : DicomSource
        The object.
    pixels : numpy.ndarray
        ``(H, W)`` stored values of the frame that is shown.
    scale : int
        1 for the source.
    model : str
        Name of the model that the object states; empty if there is none.
    findings : list of Finding
        Of its audit; empty without one.
    """

    path: Path
    source: DicomSource
    pixels: NDArray[np.integer]
    scale: int = 1
    model: str = ""
    findings: Sequence[Finding] = ()

    @property
    def failures(self) -> list[Finding]:
        """Claims that are known to be wrong."""
        return [finding for finding in self.findings if finding.fails]


def read_comparison(
    source: Path, outputs: Sequence[Path], *, frame: int = 1, audit: bool = True
) -> list[Shown]:
    """Read a source and its outputs.

    Parameters
    ----------
    source, outputs : Path
        DICOM files, or pictures, which are not audited.
    frame : int
        Which frame, from 1.
    audit : bool
        Whether the outputs are verified.

    Returns
    -------
    list of Shown
        The source first.

    Raises
    ------
    InputError
        If a file cannot be read or decoded.
    UsageError
        If there is no such frame, or a picture has windowed values.
    VerificationError
        If an output is not a whole number of times as large as the source, or has values that
        the source cannot have.
    """
    original = _read(source, frame)
    shown = [original]
    for path in outputs:
        output = _read(path, frame)
        _check_values(original, output)
        shown.append(
            replace(
                output,
                scale=_scale(original.pixels.shape, output.pixels.shape),
                model=_model(output),
                findings=_audit(source, path) if audit and not is_picture(path) else [],
            )
        )
    return shown


def _read(path: Path, frame: int) -> Shown:
    with ensure_unchanged(path):
        source = picture_source(read_picture(path)) if is_picture(path) else read_source(path)
        frames = decode_compact(source)
    if frame > len(frames):
        raise UsageError(f"there is no frame {frame}; the image has {len(frames)}")
    return Shown(path, source, frames[frame - 1])


def _check_values(source: Shown, output: Shown) -> None:
    stated = stated_provenance(output.path) if is_picture(output.path) else None
    if stated and stated["picture"]["values"] == "windowed":
        raise UsageError(
            f"{output.path} has windowed values, which cannot be compared with those of its "
            "source; make it without --windowed"
        )
    legal, pixels = PixelRange.from_dataset(source.source.dataset), output.pixels
    if pixels.min() < legal.minimum or pixels.max() > legal.maximum:
        raise VerificationError(
            f"an output has values from {pixels.min()} to {pixels.max()}; those of its source are "
            f"from {legal.minimum:.0f} to {legal.maximum:.0f}"
        )


def _model(output: Shown) -> str:
    """Return the name of the model that an output states."""
    if is_picture(output.path):
        stated = stated_provenance(output.path)
        return str(stated["model"]["name"]) if stated else ""
    derivation = StatedDerivation.read(output.source)
    return derivation.parameters.options.model if derivation else ""


def _scale(small: tuple[int, ...], large: tuple[int, ...]) -> int:
    scale = large[0] // small[0]
    if scale < 1 or tuple(side * scale for side in small) != large:
        raise VerificationError(
            f"an output of {large[1]}x{large[0]} pixels is not a whole number of times as large "
            f"as its source of {small[1]}x{small[0]}"
        )
    return scale


def _audit(source: Path, output: Path) -> list[Finding]:
    try:
        return verify(source, output).findings
    except VerificationError as error:
        return [Finding(Aspect.FILE, str(error), ClaimStatus.FAILS)]
