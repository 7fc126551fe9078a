"""Read a source and its outputs, and audit them, for one page."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrsr_cli.common.files import ensure_unchanged, sha256_file
from cxrsr_cli.dicom.decode import decode_compact
from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.dicom.source import DicomSource, read_source
from cxrsr_cli.errors import UsageError, VerificationError
from cxrsr_cli.images.picture_files import is_picture, picture_source, read_picture
from cxrsr_cli.images.picture_provenance import (
    PictureValues,
    StatedProvenance,
    stated_provenance,
)
from cxrsr_cli.verify.findings import Aspect, ClaimStatus, Finding
from cxrsr_cli.verify.rebuild import StatedDerivation
from cxrsr_cli.verify.verify import verify


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
        output, provenance = _read(path, frame), _provenance_of(path)
        _check_values(original, output, provenance)
        shown.append(
            replace(
                output,
                scale=_scale(original.pixels.shape, output.pixels.shape),
                model=provenance.model if provenance else _stated_model(output),
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


def _provenance_of(path: Path) -> StatedProvenance | None:
    """Return what the JSON beside a picture states, if it is about the file that is there now."""
    stated = stated_provenance(path) if is_picture(path) else None
    with ensure_unchanged(path):
        is_believed = stated is not None and stated.sha256 == sha256_file(path)
    return stated if is_believed else None


def _check_values(source: Shown, output: Shown, provenance: StatedProvenance | None) -> None:
    if provenance and provenance.values is PictureValues.WINDOWED:
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


def _stated_model(output: Shown) -> str:
    """Return the name of the model that an object states."""
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
