"""Removal of impulse noise: lone pixels at an end of the range.

A trimmed, decision-based median filter (Esakkirajan et al., IEEE Signal
Processing Letters 2011, 18(5), 287-290). That filter treats every pixel at an end
of the range as noise. A radiograph has collimated borders and burnt-in letters
there, so this filter keeps a pixel that has similar neighbours.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom

from cxrsr_cli.dicom.pixel_format import PixelRange

_MIN_SIMILAR_NEIGHBOURS = 3
"""A pixel belongs to the picture if that many of its eight neighbours are at the same
end, or two that face each other: a line. Of noisy pixels on 2 % of an image, five in
ten thousand do so by chance. With any two neighbours, six times as much noise would
stay. Without the line, a collimator's edge of one pixel would be removed."""


def remove_impulses(image: torch.Tensor, pixel_range: PixelRange) -> torch.Tensor:
    """Replace lone pixels at either end of the range by the median of their neighbours.

    Parameters
    ----------
    image : torch.Tensor
        ``(N, C, H, W)``, floating point.
    pixel_range : PixelRange
        In the units of `image`.

    Returns
    -------
    torch.Tensor
        A copy. A pixel is replaced if it is at an end of the range, fewer than three
        of its eight neighbours are at the same end, and no two of those face each
        other. It becomes the median of its neighbours that are not replaced. If
        there is none, it stays.
    """
    impulse = torch.zeros_like(image, dtype=torch.bool)
    for at_end in (image <= pixel_range.minimum, image >= pixel_range.maximum):
        similar = torch.stack(list(_neighbours(at_end.to(image.dtype)))) == 1
        in_line = (similar[:4] & similar[4:].flip(0)).any(0)
        impulse |= at_end & ~in_line & (similar.sum(0) < _MIN_SIMILAR_NEIGHBOURS)
    where = impulse.nonzero(as_tuple=True)
    trimmed = image.masked_fill(impulse, torch.nan)
    # NaN is sorted last.
    neighbours = torch.stack([side[where] for side in _neighbours(trimmed)], dim=-1).sort().values
    known = (~neighbours.isnan()).sum(-1, keepdim=True)
    middle = [((known - 1) // 2).clamp(min=0), (known // 2).clamp(max=neighbours.shape[-1] - 1)]
    median = sum(neighbours.gather(-1, index)[..., 0] for index in middle) / 2
    cleaned = image.clone()
    cleaned[where] = torch.where(known[..., 0] > 0, median, image[where])
    return cleaned


def _neighbours(image: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the image shifted by one pixel in all eight directions, with NaN at the border.

    The last is opposite to the first, the last but one to the second, and so on.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image, (1, 1, 1, 1), value=torch.nan)
    for down in range(3):
        for right in range(3):
            if (down, right) != (1, 1):
                yield padded[..., down : down + height, right : right + width]
