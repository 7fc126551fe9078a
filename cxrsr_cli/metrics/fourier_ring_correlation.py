"""Scanning Fourier ring correlation (sFRC): which patches disagree with the original."""

from dataclasses import dataclass

import torch

from cxrsr_cli.metrics.metric import Metric, crop_border

PATCH = 64
"""Side of a patch in pixels; the authors' value for super-resolution of CT."""

THRESHOLD = 0.5
"""Correlation below which a ring disagrees; the authors' value for super-resolution of CT."""

_MIN_CONTRAST = 0.01
_PERCENTILES = (0.001, 0.999)
_MAX_SAMPLES = 1 << 20


@dataclass(frozen=True, slots=True)
class SfrcResult:
    """Comparison of the patches of an image.

    Attributes
    ----------
    candidates : torch.Tensor
        ``(rows, columns)`` bool: patches with enough contrast to be compared.
    crossings : torch.Tensor
        ``(rows, columns)`` float64: frequency in cycles per pixel at which the
        correlation first falls below `THRESHOLD`; infinite where it does not.
    flagged : torch.Tensor
        ``(rows, columns)`` bool: candidates whose crossing is below the limit.
    """

    candidates: torch.Tensor
    crossings: torch.Tensor
    flagged: torch.Tensor

    @property
    def flagged_fraction(self) -> float:
        """Share of the candidates that are flagged; NaN if there is no candidate."""
        count = int(self.candidates.sum())
        return int(self.flagged.sum()) / count if count else float("nan")


def compute_sfrc(
    image: torch.Tensor, reference: torch.Tensor, *, scale: int, border: int
) -> SfrcResult:
    """Compare two images patch by patch.

    Parameters
    ----------
    image, reference : torch.Tensor
        ``(1, 1, H, W)``, same units.
    scale : int
        Factor of the upscaling. Patches that cross below the Nyquist frequency
        of the input, ``0.5 / scale`` cycles per pixel, are flagged.
    border : int
        Pixels left out on each side.

    Returns
    -------
    SfrcResult
        Of the whole patches that fit, from the top left, without overlap.

    Notes
    -----
    Kc, Zeng, Soni and Badano (FDA; arXiv 2603.04673) flag a patch if its
    Fourier ring correlation falls below a threshold at a frequency that is too
    low. They set this frequency limit by hallucinations that experts marked.
    No such marks exist for radiographs. The limit here is the Nyquist frequency
    of the input, because an output need not guess anything below it. (Their
    limit for x4, 0.33 per mm at pixels of 0.48 mm, is 1.27 times that. It flags
    nine tenths of bicubic interpolation on chest radiographs, because it counts
    lost sharpness.)

    The mean of each patch is subtracted and a Hann window applied. Rings are
    one sample wide, up to the inscribed circle. The authors leave out air by
    its brightness, which depends on polarity. Here patches are left out whose
    standard deviation in the original is below a hundredth of the range between
    the 0.1 and 99.9 percentiles of the image.
    """
    image, reference = crop_border(image, border), crop_border(reference, border)
    if min(image.shape[-2:]) < PATCH:
        nothing = torch.zeros(0, 0, dtype=torch.bool)
        return SfrcResult(nothing, nothing.double(), nothing)
    first, second = _patches(image), _patches(reference)
    curves = ring_correlation(first, second)
    frequencies = torch.arange(curves.shape[-1], dtype=curves.dtype) / PATCH
    below = curves < THRESHOLD
    below[..., 0] = False  # the mean, which was subtracted
    crossings = torch.where(below, frequencies, torch.inf).amin(-1)
    candidates = second.std((-2, -1), correction=0) > _MIN_CONTRAST * _data_range(reference)
    return SfrcResult(candidates, crossings, candidates & (crossings < 0.5 / scale))


def ring_correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Fourier ring correlation of patches.

    Parameters
    ----------
    first, second : torch.Tensor
        ``(..., S, S)`` float64.

    Returns
    -------
    torch.Tensor
        ``(..., S // 2)``: for the rings at 0, 1, ... cycles per patch the
        real part of ``sum(F G*) / sqrt(sum |F|^2 sum |G|^2)``; 0 where a
        patch has no power.
    """
    side = first.shape[-1]
    f, g = (torch.fft.fft2(_windowed(patch)) for patch in (first, second))
    steps = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    rings = torch.hypot(steps[:, None], steps[None, :]).round().long()
    inside = rings < side // 2
    index = rings[inside]

    def total(values: torch.Tensor) -> torch.Tensor:
        sums = values.new_zeros(*values.shape[:-2], side // 2)
        return sums.index_add_(-1, index, values[..., inside])

    power = total(f.abs().square()) * total(g.abs().square())
    cross = total((f * g.conj()).real)
    return torch.where(power > 0, cross / power.clamp(min=torch.finfo().tiny).sqrt(), 0.0)


def _windowed(patch: torch.Tensor) -> torch.Tensor:
    window = torch.hann_window(patch.shape[-1], periodic=False, dtype=patch.dtype)
    return (patch - patch.mean((-2, -1), keepdim=True)) * window[:, None] * window


def _patches(image: torch.Tensor) -> torch.Tensor:
    return image[0, 0].double().unfold(0, PATCH, PATCH).unfold(1, PATCH, PATCH)


def _data_range(image: torch.Tensor) -> float:
    values = image.flatten()
    values = values[:: 1 + values.numel() // _MAX_SAMPLES].sort().values
    low, high = (values[round(share * (values.numel() - 1))].item() for share in _PERCENTILES)
    return high - low


SFRC_FLAGGED = Metric(
    "sfrc_flagged",
    "sFRC flagged",
    4,
    lambda compared: (
        compute_sfrc(
            compared.image, compared.reference, scale=compared.scale, border=compared.border
        ).flagged_fraction
    ),
    larger_is_better=False,
    is_plotted=False,
)
"""Share of patches, within [0, 1]."""
