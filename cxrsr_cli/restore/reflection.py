"""What lies beyond the border of an image: its reflection."""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom


def reflect_pad(image: torch.Tensor, margin: int) -> torch.Tensor:
    """Reflect the image about its border pixels, as often as the margin needs.

    Parameters
    ----------
    image : torch.Tensor
        ``(N, C, H, W)``.
    margin : int
        Pixels added on each side; may exceed the image.

    Returns
    -------
    torch.Tensor
        ``(N, C, H + 2 * margin, W + 2 * margin)``.
    """
    while margin > 0:
        step_y, step_x = (min(margin, side - 1) for side in image.shape[-2:])
        if step_y == step_x == margin:
            return F.pad(image, (margin,) * 4, mode="reflect")
        if not step_y or not step_x:  # a single row or column has no neighbour to mirror
            return F.pad(image, (margin,) * 4, mode="replicate")
        step = min(step_y, step_x)
        image = F.pad(image, (step,) * 4, mode="reflect")
        margin -= step
    return image
