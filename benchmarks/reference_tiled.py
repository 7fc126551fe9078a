"""A simple reference implementation of upscaling, for comparison.

It runs the network as trained, in PyTorch's default memory format, on tiles
with a halo as wide as the receptive field, as most super-resolution tools do. Image
skip and agreement are computed for the whole image at once.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.inference.agreement import enforce_agreement
from cxrsr_cli.inference.assemble import image_skip
from cxrsr_cli.inference.normalisation import Normalisation
from cxrsr_cli.inference.streaming import reflect_pad
from cxrsr_cli.networks.config import DEFAULT_NOISE_SHARE
from cxrsr_cli.networks.layers import SuperResolutionNetwork

TILE = 512


@torch.inference_mode()
def upscale(
    network: SuperResolutionNetwork,
    stored: NDArray[np.int32],
    pixel_range: PixelRange,
    noise_share: float = DEFAULT_NOISE_SHARE,
) -> NDArray[np.int32]:
    """Upscale one image, in exact agreement.

    Parameters
    ----------
    network : SuperResolutionNetwork
        In evaluation mode, float32, on the CPU; without impulse filter.
    stored : numpy.ndarray
        ``(H, W)`` int32 stored values.
    pixel_range : PixelRange
        Their legal range.
    noise_share : float
        Share of the noise that the output keeps.

    Returns
    -------
    numpy.ndarray
        ``(scale * H, scale * W)`` int32.
    """
    kind = network.architecture
    scale, halo = kind.scale, kind.halo
    low = torch.from_numpy(stored.astype(np.float32))[None, None]
    norm = Normalisation.from_image(low)
    padded = reflect_pad(norm.to_network(low), halo)
    height, width = stored.shape
    residual = torch.empty(1, 1, height * scale, width * scale)
    inner = slice(halo * scale, -halo * scale)
    for rows in _spans(height):
        for columns in _spans(width):
            tile = padded[..., rows.start : rows.stop + 2 * halo, :]
            made = network(tile[..., columns.start : columns.stop + 2 * halo], noise_share)
            place = [slice(part.start * scale, part.stop * scale) for part in (rows, columns)]
            residual[..., place[0], place[1]] = made[..., inner, inner]
    output = norm.residual_to_stored(residual)
    skip = image_skip(kind.image_skip, low, scale)
    if skip is not None:
        output += skip
    output = enforce_agreement(
        output,
        low,
        scale,
        bound=0.0,
        minimum=pixel_range.minimum,
        maximum=pixel_range.maximum,
    )
    rounded: NDArray[np.int32] = output.round().to(torch.int32)[0, 0].numpy()
    return rounded


def _spans(length: int) -> Iterator[slice]:
    parts = -(-length // TILE)
    for start, stop in pairwise(length * index // parts for index in range(parts + 1)):
        yield slice(start, stop)
