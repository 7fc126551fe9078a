"""The whole audit of a derived object."""

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
    """All findings on a derived object.

    Attributes
    ----------
    scale : int
        Factor between the two images.
    findings : list of Finding
        In the order of the aspects.
    deviation : Deviation
        Downsampled output against input, of the worst frame.
    lr_psnr : float
        Of the same in dB; the peak is the legal range of stored values.
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
    """Check that a derived object says and shows what its source does, magnified.

    Parameters
    ----------
    source, derived : Path
        The two files.
    least_lr_psnr : float
        dB that the downsampled output must reach against the input.

    Returns
    -------
    Verification
        What was found.

    Raises
    ------
    InputError
        If one of the files cannot be read or decoded.
    NotVerifiedError
        If their sizes are not those of an image and its magnification.
    """
    with ensure_unchanged(source), ensure_unchanged(derived):
        old, new = read_source(source), read_source(derived)
    scale = _scale(old.dataset, new.dataset)
    low, high = decode(old), decode_compact(new)
    if len(low) != len(high):
        raise VerificationError("source and derived image have different numbers of frames")
    padding, form = Padding.from_dataset(old.dataset), PixelFormat.from_dataset(old.dataset)
    deviation = ConsistencyDeviation.worst_frame(high, low, padding)
    lr_psnr = deviation.lr_psnr(form.maximum - form.minimum)
    with quiet_libraries():
        findings = [
            *check_provenance(old, new, scale),
            *check_content(old, new),
            *check_geometry(old, new, scale),
            *check_photometry(old, new, low, high),
        ]
    consistency = Finding(
        Aspect.CONSISTENCY,
        f"downsampled, it is its source to {min_lr_psnr:g} dB",
        lr_psnr >= min_lr_psnr,
        f"RMS {deviation.rms:.3f} and at most {deviation.largest:.2f} stored units off, LR-PSNR "
        + ("infinite" if isinf(lr_psnr) else f"{lr_psnr:.1f} dB"),
    )
    return VerificationReport(scale, [*findings, consistency], deviation, lr_psnr)


def _scale(old: Dataset, new: Dataset) -> int:
    small, large = ((each.get("Rows"), each.get("Columns")) for each in (old, new))
    for scale in SCALES:
        if all(isinstance(side, int) for side in small) and large == (
            small[0] * scale,
            small[1] * scale,
        ):
            return scale
    raise VerificationError("the derived image is not 2, 4 or 8 times as large as its source")
