"""Impulse noise: lone pixels at an end of the range give way to those around them.

A trimmed, decision-based median filter (Esakkirajan et al., IEEE Signal
Processing Letters 2011, 18(5), 287-290). Theirs takes every pixel at an end of
the range for noise; a radiograph has collimated borders and burnt-in letters
there, so that here a pixel with its like around it is kept.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom

_LIKE_NEIGHBOURS = 3
"""That many of the eight at the same end make a pixel part of the picture, and so do
two that face each other: a line. Noise on 2 % of all pixels does so by chance at
five of ten thousand noisy ones. Any two would keep six times as much noise, and
without the line a collimator's edge, a pixel wide, would go."""


def remove_impulses(image: torch.Tensor, *, minimum: float, maximum: float) -> torch.Tensor:
    """Replace lone pixels at either end of the range by the median around them.

    Parameters
    ----------
    image : torch.Tensor
        ``(N, C, H, W)``, floating point.
    minimum, maximum : float
        Legal range, in the units of `image`.

    Returns
    -------
    torch.Tensor
        A copy in which a pixel at an end of the range, with fewer than three of
        its eight neighbours at the same end and no two that face each other, is the
        median of those neighbours that are not such pixels themselves. Where there
        is none, it stays.
    """
    impulse = torch.zeros_like(image, dtype=torch.bool)
    for at_end in (image <= minimum, image >= maximum):
        alike = torch.stack(list(_around(at_end.to(image.dtype)))) == 1
        in_line = (alike[:4] & alike[4:].flip(0)).any(0)
        impulse |= at_end & ~in_line & (alike.sum(0) < _LIKE_NEIGHBOURS)
    where = impulse.nonzero(as_tuple=True)
    trimmed = image.masked_fill(impulse, torch.nan)
    # NaN is sorted last.
    around = torch.stack([side[where] for side in _around(trimmed)], dim=-1).sort().values
    known = (~around.isnan()).sum(-1, keepdim=True)
    middle = [((known - 1) // 2).clamp(min=0), (known // 2).clamp(max=around.shape[-1] - 1)]
    median = sum(around.gather(-1, index)[..., 0] for index in middle) / 2
    cleaned = image.clone()
    cleaned[where] = torch.where(known[..., 0] > 0, median, image[where])
    return cleaned


def _around(image: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the image moved by one pixel to all eight sides, NaN coming in.

    The last faces the first, the last but one the second, and so on.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image, (1, 1, 1, 1), value=torch.nan)
    for down in range(3):
        for right in range(3):
            if (down, right) != (1, 1):
                yield padded[..., down : down + height, right : right + width]
