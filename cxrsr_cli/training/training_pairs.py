"""Training pairs: an image and what is made from it, in network values."""

from dataclasses import dataclass

import torch

from cxrsr_cli.images.image_files import GrayscaleImage
from cxrsr_cli.inference.assemble import image_skip
from cxrsr_cli.inference.impulse_filter import remove_impulses
from cxrsr_cli.inference.normalisation import Normalisation
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.training.degradation import DegradationConfig, degrade_patch


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """An image and what is made from it, in network values.

    Attributes
    ----------
    low, high : torch.Tensor
        ``(1, H, W)`` and ``(1, scale * H, scale * W)`` float32.
    skip : torch.Tensor or None
        The image skip, shape of `high`.
    minimum, maximum : float
        Legal range in network values.
    step : float
        One stored value, as a share of the range.
    """

    low: torch.Tensor
    high: torch.Tensor
    skip: torch.Tensor | None
    minimum: float
    maximum: float
    step: float


def make_pair(
    image: GrayscaleImage, scale: int, kind: ImageSkip, *, impulse_filter: bool = False
) -> TrainingPair:
    """Degrade an image, make its skip and map all to network values."""
    low = image.downsample(scale)
    return _pair(image, low, image.values, scale, kind, impulse_filter=impulse_filter)


def make_degraded_pair(
    image: GrayscaleImage,
    scale: int,
    kind: ImageSkip,
    degradation: DegradationConfig,
    seed: int,
    *,
    impulse_filter: bool = False,
) -> TrainingPair:
    """Do the same to a whole image that a `PatchSampler` does to patches."""
    extent = image.maximum - image.minimum
    share = (image.values[0] - image.minimum) / extent
    if image.inverted:
        share = 1 - share
    made = degrade_patch(share, scale, degradation, step=1 / extent, seed=seed)
    low, high = ((1 - side if image.inverted else side)[None] for side in (made.low, made.high))
    low, high = (side * extent + image.minimum for side in (low, high))
    return _pair(image, low, high, scale, kind, impulse_filter=impulse_filter)


def _pair(
    image: GrayscaleImage,
    low: torch.Tensor,
    high: torch.Tensor,
    scale: int,
    kind: ImageSkip,
    *,
    impulse_filter: bool,
) -> TrainingPair:
    if impulse_filter:
        low = remove_impulses(low, image.pixel_range)
    skip = image_skip(kind, low, scale, image.pixel_range)
    norm = Normalisation.from_image(low, inverted=image.inverted)
    limits = norm.to_network(torch.tensor([image.minimum, image.maximum]))
    return TrainingPair(
        low=norm.to_network(low)[0],
        high=norm.to_network(high)[0],
        skip=None if skip is None else norm.to_network(skip)[0],
        minimum=limits.min().item(),
        maximum=limits.max().item(),
        step=1 / (image.maximum - image.minimum),
    )
