"""The part of an image that is scored."""

import torch


def crop_border(image: torch.Tensor, border: int) -> torch.Tensor:
    """Cut the border off, where every upsampler guesses.

    Parameters
    ----------
    image : torch.Tensor
        ``(N, C, H, W)``, any dtype.
    border : int
        Pixels left out on each side.

    Returns
    -------
    torch.Tensor
        ``(N, C, H - 2 * border, W - 2 * border)``, a view.
    """
    return image[..., border : -border or None, border : -border or None]
