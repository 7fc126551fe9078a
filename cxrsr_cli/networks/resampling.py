"""The resampling of the project: antialiased bicubic, and the mean of blocks.

Image skips and the paper's protocol use bicubic interpolation. The pixel of a detector
is the mean over its area, so agreement compares an output with its input by
`block_mean`. With two kernels that differ slightly (plain and antialiased bicubic,
Pillow, OpenCV), the difference would be an error in every result. So all code that
computes a number from a resized image resizes it here. The exception are the inputs of
training and evaluation (`cxrsr_cli.training.degradation`), whose kernels differ on
purpose.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom


def block_mean(image: torch.Tensor, scale: int) -> torch.Tensor:
    """Return the mean of each block of ``scale * scale`` pixels.

    Parameters
    ----------
    image : torch.Tensor
        ``(N, C, scale * H, scale * W)``, floating point, any value range.
    scale : int
        Whole factor, 1 or larger.

    Returns
    -------
    torch.Tensor
        ``(N, C, H, W)``, same dtype.
    """
    return F.avg_pool2d(image, scale)


def repeat_pixels(image: torch.Tensor, scale: int) -> torch.Tensor:
    """Repeat each pixel of ``(N, C, H, W)`` in a block of ``scale * scale``."""
    return F.interpolate(image, scale_factor=scale, mode="nearest")


def downsample(image: torch.Tensor, scale: int) -> torch.Tensor:
    """Downsample by `scale` with the kernel of MATLAB's ``imresize(..., 1/scale)``.

    Parameters
    ----------
    image : torch.Tensor
        ``(N, C, scale * H, scale * W)``, floating point, any value range.
    scale : int
        Whole factor, 1 or larger.

    Returns
    -------
    torch.Tensor
        ``(N, C, H, W)``, same dtype. May overshoot the input's range.

    Raises
    ------
    ValueError
        If height or width is not a multiple of `scale`.

    Notes
    -----
    Keys' cubic with a = -0.5, stretched by the factor. Equal to MATLAB inside
    the image; at the border the kernel is cut and renormalised where MATLAB
    mirrors the image.
    """
    height, width = image.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"{height}x{width} is not a multiple of the scale {scale}")
    return _bicubic(image, height // scale, width // scale)


def upsample(image: torch.Tensor, scale: int) -> torch.Tensor:
    """Upsample by `scale` with Keys' cubic, a = -0.5.

    Inside the image this is ``scale**2`` times the transpose of `downsample`,
    which makes ``image + upsample(lr - downsample(image))`` a gradient step.

    Parameters
    ----------
    image : torch.Tensor
        ``(N, C, H, W)``, floating point, any value range.
    scale : int
        Whole factor, 1 or larger.

    Returns
    -------
    torch.Tensor
        ``(N, C, scale * H, scale * W)``, same dtype. May overshoot.
    """
    height, width = image.shape[-2:]
    return _bicubic(image, height * scale, width * scale)


def _bicubic(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if width == 1 and height > 1:
        # There PyTorch's pass over the rows gives every row the first one's values.
        column = _resize(image, image.shape[-2], 1)
        return _resize(column.repeat(1, 1, 1, 2), height, 2)[..., :1]
    return _resize(image, height, width)


def _resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    # antialias=True also selects a = -0.5; without it PyTorch uses a = -0.75.
    return F.interpolate(
        image, size=(height, width), mode="bicubic", antialias=True, align_corners=False
    )
