"""Find burnt-in marks: letters, arrows, and borders of collimators and films."""

import torch
from scipy.ndimage import maximum_filter, minimum_filter

_MIN_CONTRAST = 0.2
"""Share of the range within three pixels that anatomy does not reach."""
_MARGIN_PIXELS = 12
"""Around such a place: what resampling makes of its edge."""


def mark_mask(values: torch.Tensor, data_range: float) -> torch.Tensor:
    """Mark the pixels close to an edge that is steeper than anatomy.

    A sharp edge between black and white has most of the squared error of an upscaled
    radiograph, and nothing to diagnose. Quality is therefore judged without it, too.

    Parameters
    ----------
    values : torch.Tensor
        ``(N, 1, H, W)`` stored values of an original.
    data_range : float
        Largest minus smallest legal value.

    Returns
    -------
    torch.Tensor
        ``(N, 1, H, W)`` bool: pixels within 12 of a neighbourhood of 3x3 pixels whose range
        is more than a fifth of the data range.
    """
    # SciPy's filters are separable, and ten times as fast as PyTorch's pooling.
    image = values.numpy()
    neighbourhood = (1, 1, 3, 3)
    contrast = maximum_filter(image, neighbourhood) - minimum_filter(image, neighbourhood)
    side = 2 * _MARGIN_PIXELS + 1
    return torch.from_numpy(
        maximum_filter(contrast > _MIN_CONTRAST * data_range, (1, 1, side, side))
    )
