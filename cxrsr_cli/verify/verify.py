"""Verify the pixels and attributes of a derived object, from it and its source alone."""

from dataclasses import dataclass
from math import isinf
from pathlib import Path

from pydicom.dataset import Dataset

from cxrsr_cli.common.files import ensure_unchanged
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.decode import decode, decode_compact
from cxrsr_cli.dicom.pixel_format import Padding, PixelFormat
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import VerificationError
from cxrsr_cli.inference.data_consistency import ConsistencyDeviation
from cxrsr_cli.networks.config import SCALES
from cxrsr_cli.verify.checks import (
    Aspect,
    Finding,
    check_content,
    check_geometry,
    check_photometry,
    check_provenance,
)


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All findings about a derived object.

    Attributes
    ----------
    scale : int
        Scale factor between the two images.
    findings : list of Finding
        In the order of the checks.
    deviation : ConsistencyDeviation
        Downsampled output against the source, for the worst frame.
    lr_psnr : float
        The same in dB; the peak is the legal range of stored values.
    """

    scale: int
    findings: list[Finding]
    deviation: ConsistencyDeviation
    lr_psnr: float

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(finding.holds for finding in self.findings)


def verify(source: Path, derived: Path, *, min_lr_psnr: float) -> VerificationReport:
    """Check that a derived object has the content of its source and shows the same image.

    Parameters
    ----------
    source, derived : Path
        The two files.
    min_lr_psnr : float
        PSNR in dB that the downsampled output must reach against the source.

    Returns
    -------
    VerificationReport
        All findings.

    Raises
    ------
    InputError
        If one of the files cannot be read or decoded.
    VerificationError
        If the images' sizes or numbers of frames do not match at any scale.
    """
    with ensure_unchanged(source), ensure_unchanged(derived):
        old, new = read_source(source), read_source(derived)
    scale = _scale(old.dataset, new.dataset)
    source_pixels, derived_pixels = decode(old), decode_compact(new)
    if len(source_pixels) != len(derived_pixels):
        raise VerificationError("source and derived image have different numbers of frames")
    padding, pixel_format = Padding.from_dataset(old.dataset), PixelFormat.from_dataset(old.dataset)
    deviation = ConsistencyDeviation.worst_frame(derived_pixels, source_pixels, padding)
    lr_psnr = deviation.lr_psnr(pixel_format.maximum - pixel_format.minimum)
    with quiet_libraries():
        findings = [
            *check_provenance(old, new, scale),
            *check_content(old, new),
            *check_geometry(old, new, scale),
            *check_photometry(old, new, source_pixels, derived_pixels),
        ]
    psnr = "infinite" if isinf(lr_psnr) else f"{lr_psnr:.1f} dB"
    consistency = Finding(
        Aspect.CONSISTENCY,
        f"the downsampled output matches the source (LR-PSNR >= {min_lr_psnr:g} dB)",
        lr_psnr >= min_lr_psnr,
        f"LR-PSNR {psnr}; difference in stored units: RMS {deviation.rms:.3f}, "
        f"largest {deviation.largest:.2f}",
    )
    return VerificationReport(scale, [*findings, consistency], deviation, lr_psnr)


def _scale(source: Dataset, derived: Dataset) -> int:
    small, large = ((each.get("Rows"), each.get("Columns")) for each in (source, derived))
    for scale in SCALES:
        if all(isinstance(side, int) for side in small) and large == (
            small[0] * scale,
            small[1] * scale,
        ):
            return scale
    raise VerificationError("the derived image is not 2, 4 or 8 times as large as its source")
