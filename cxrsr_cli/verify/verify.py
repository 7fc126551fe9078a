"""Verify the pixels and attributes of a derived object, from it and its source alone."""

from dataclasses import dataclass
from math import isinf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cxrsr_cli.common.files import ensure_unchanged
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.decode import decode, decode_compact
from cxrsr_cli.dicom.pixel_format import Padding, PixelRange, fill_padding
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import VerificationError
from cxrsr_cli.inference.agreement import SIGMAS, AgreementDeviation
from cxrsr_cli.inference.noise_curve import NO_NOISE, NoiseCurve
from cxrsr_cli.metrics.psnr_ssim import psnr_of_error
from cxrsr_cli.networks.config import SCALES, Agreement
from cxrsr_cli.verify.checks import (
    Aspect,
    Finding,
    check_content,
    check_geometry,
    check_photometry,
    check_provenance,
)

_CLAIMS = {
    Agreement.EXACT: "but for rounding",
    Agreement.NOISE: f"to within {SIGMAS:g} sigma of its noise, and rounding",
    Agreement.NONE: "not demanded",
}


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All findings about a derived object.

    Attributes
    ----------
    scale : int
        Scale factor between the two images.
    findings : list of Finding
        In the order of the checks.
    deviation : AgreementDeviation
        Means of the output's blocks against the source, for the worst frame.
    lr_psnr : float
        The same in dB; the peak is the legal range of stored values.
    noise : list of NoiseCurve
        Of each frame, estimated again from the source.
    """

    scale: int
    findings: list[Finding]
    deviation: AgreementDeviation
    lr_psnr: float
    noise: list[NoiseCurve]

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(finding.holds for finding in self.findings)


def verify(
    source: Path, derived: Path, *, agreement: Agreement = Agreement.NOISE
) -> VerificationReport:
    """Check that a derived object has the content of its source and shows the same image.

    Parameters
    ----------
    source, derived : Path
        The two files.
    agreement : Agreement
        What the means of the output's blocks must be: the source's pixels, the same to within
        the noise that is estimated here again from the source, or anything.

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
    padding = Padding.from_dataset(old.dataset)
    noise = [NO_NOISE] * len(source_pixels)
    pixel_range = PixelRange.from_dataset(old.dataset)
    if agreement is Agreement.NOISE:
        noise = [_estimate_noise(frame, pixel_range, padding) for frame in source_pixels]
    deviation = AgreementDeviation.worst_frame(derived_pixels, source_pixels, padding, noise)
    lr_psnr = psnr_of_error(deviation.rms**2, pixel_range.maximum - pixel_range.minimum)
    with quiet_libraries():
        findings = [
            *check_provenance(old, new, scale),
            *check_content(old, new),
            *check_geometry(old, new, scale),
            *check_photometry(old, new, source_pixels, derived_pixels),
        ]
    psnr = "infinite" if isinf(lr_psnr) else f"{lr_psnr:.1f} dB"
    agrees = Finding(
        Aspect.AGREEMENT,
        f"the mean of each block is the source's pixel ({_CLAIMS[agreement]})",
        agreement is Agreement.NONE or deviation.is_within_bound(pixel_range),
        f"difference in stored units: RMS {deviation.rms:.3f}, largest {deviation.largest:.2f}, "
        f"at most {deviation.beyond:.2f} beyond the bound; LR-PSNR {psnr}",
    )
    return VerificationReport(scale, [*findings, agrees], deviation, lr_psnr, noise)


def _estimate_noise(
    frame: NDArray[np.int32], pixel_range: PixelRange, padding: Padding | None
) -> NoiseCurve:
    if padding is None:
        return NoiseCurve.estimate(frame, pixel_range)
    mask = padding.mask(frame)
    return NoiseCurve.estimate(fill_padding(frame, mask), padding.exclude_from(pixel_range), mask)


def _scale(source: Dataset, derived: Dataset) -> int:
    small, large = ((each.get("Rows"), each.get("Columns")) for each in (source, derived))
    for scale in SCALES:
        if all(isinstance(side, int) for side in small) and large == (
            small[0] * scale,
            small[1] * scale,
        ):
            return scale
    raise VerificationError("the derived image is not 2, 4 or 8 times as large as its source")
