"""Verify the pixels and attributes of a derived object, from it and its source alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cxrsr_cli.common.files import ensure_unchanged
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.decode import decode, decode_compact
from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.dicom.source import DicomSource, read_source
from cxrsr_cli.errors import OutputError, VerificationError
from cxrsr_cli.inference.agreement import AgreementDeviation, read_noise
from cxrsr_cli.inference.noise_curve import NoiseCurve
from cxrsr_cli.metrics.psnr_ssim import psnr_of_error
from cxrsr_cli.networks.config import SCALES, Agreement
from cxrsr_cli.verify.deviation_map import draw_map
from cxrsr_cli.verify.findings import Aspect, Finding
from cxrsr_cli.verify.invariants import (
    check_content,
    check_file,
    check_geometry,
    check_photometry,
)
from cxrsr_cli.verify.pixels import PixelAudit, audit_pixels, is_same_noise
from cxrsr_cli.verify.provenance import check_private, check_provenance
from cxrsr_cli.verify.rebuild import StatedDerivation, check_header
from cxrsr_cli.verify.recompute import CLAIM as RECOMPUTATION_CLAIM
from cxrsr_cli.verify.recompute import Recomputation


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
        """Whether no claim fails; some may not have been checked."""
        return not any(finding.fails for finding in self.findings)


def verify(
    source: Path,
    derived: Path,
    *,
    agreement: Agreement | None = None,
    recomputation: Recomputation | None = None,
    map_file: Path | None = None,
) -> VerificationReport:
    """Check that a derived object has the content of its source and shows the same image.

    Parameters
    ----------
    source, derived : Path
        The two files.
    agreement : Agreement, optional
        What the means of the output's blocks must be: the source's pixels, the same to within
        the noise that is estimated here again from the source, or anything. By default what the
        object states.
    recomputation : Recomputation, optional
        Make the output again, and compare.
    map_file : Path, optional
        PNG file to draw the deviations in, of the worst frame.

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
    OutputError
        If the map cannot be written, would replace something other than a PNG file, or has
        nothing to show, because agreement `none` bounds no deviation.
    """
    with ensure_unchanged(source), ensure_unchanged(derived):
        old, new = read_source(source), read_source(derived)
    scale = _scale(old.dataset, new.dataset)
    source_pixels, derived_pixels = decode(old), decode_compact(new)
    if len(source_pixels) != len(derived_pixels):
        raise VerificationError("source and derived image have different numbers of frames")
    with quiet_libraries():
        stated, stated_noise = StatedDerivation.read(new), _stated_noise(new)
        claimed = agreement or (stated and stated.parameters.options.agreement) or Agreement.NOISE

        def audit_as(agreement: Agreement) -> PixelAudit:
            return audit_pixels(old.dataset, source_pixels, derived_pixels, agreement, stated_noise)

        audit = audit_as(claimed)
        description = _description(stated, audit, claimed, audit_as, stated_noise)
        # Another machine may estimate another last digit.
        known = None
        if stated_noise and len(audit.noise) == 1 and is_same_noise(stated_noise, audit.noise[0]):
            known = [stated_noise]
        findings = [
            *check_file(derived, new),
            *check_provenance(old, new, scale),
            *check_content(old, new),
            *check_private(old, new),
            *check_geometry(old, new, scale),
            *check_photometry(old, new, source_pixels, derived_pixels),
            *check_header(old, new, source_pixels, derived_pixels, stated, description),
            *audit.findings,
            _recompute(recomputation, old, source_pixels, derived_pixels, stated, known),
        ]
    pixel_range = PixelRange.from_dataset(old.dataset)
    if map_file:
        if not audit.maps:
            raise OutputError(f"{map_file}: no map, because the agreement none bounds no deviation")
        worst = max(range(len(audit.maps)), key=lambda index: float(audit.maps[index].max()))
        draw_map(map_file, source_pixels[worst], audit.maps[worst], inverted=pixel_range.inverted)
    lr_psnr = psnr_of_error(audit.deviation.rms**2, pixel_range.maximum - pixel_range.minimum)
    return VerificationReport(scale, findings, audit.deviation, lr_psnr, audit.noise)


def _stated_noise(derived: DicomSource) -> NoiseCurve | None:
    try:
        return read_noise(str(derived.dataset.get("DerivationDescription") or ""))
    except ValueError:
        return None


def _description(
    stated: StatedDerivation | None,
    audit: PixelAudit,
    claimed: Agreement,
    audit_as: Callable[[Agreement], PixelAudit],
    noise: NoiseCurve | None,
) -> str:
    """Return what the object should say of its agreement, whatever was asked for here."""
    own = (stated and stated.parameters.options.agreement) or claimed
    found = (audit if own is claimed else audit_as(own)).deviation
    if noise and is_same_noise(noise, found.noise):
        found = replace(found, noise=noise)
    return found.describe(own)


def _recompute(
    recomputation: Recomputation | None,
    source: DicomSource,
    source_pixels: NDArray[np.int32],
    derived_pixels: NDArray[np.integer],
    stated: StatedDerivation | None,
    noise: Sequence[NoiseCurve] | None,
) -> Finding:
    if recomputation is None:
        return Finding.not_checked(
            Aspect.RECOMPUTATION, RECOMPUTATION_CLAIM, "use --recompute to check it"
        )
    parameters = stated.parameters if stated else None
    return recomputation.check(source, source_pixels, derived_pixels, parameters, noise)


def _scale(source: Dataset, derived: Dataset) -> int:
    small, large = ((each.get("Rows"), each.get("Columns")) for each in (source, derived))
    for scale in SCALES:
        if all(isinstance(side, int) for side in small) and large == (
            small[0] * scale,
            small[1] * scale,
        ):
            return scale
    raise VerificationError("the derived image is not 2, 4 or 8 times as large as its source")
