"""Training pairs: images in memory, degraded once, cropped and turned at random."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from cxrsr_cli.learn.images import GreyImage
from cxrsr_cli.restore.architecture import ImageSkip
from cxrsr_cli.restore.normalisation import Normalisation
from cxrsr_cli.restore.resample import downsample
from cxrsr_cli.restore.skip import image_skip


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and what is made from it, in network values.

    Attributes
    ----------
    low, high : torch.Tensor
        ``(1, H, W)`` and ``(1, scale * H, scale * W)`` float32.
    skip : torch.Tensor or None
        The image skip, shape of `high`.
    minimum, maximum : float
        Legal range in network values.
    """

    low: torch.Tensor
    high: torch.Tensor
    skip: torch.Tensor | None
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Patches of several pairs; shapes as in `Pair` with a leading N.

    `minimum` and `maximum` are ``(N, 1, 1, 1)``.
    """

    low: torch.Tensor
    high: torch.Tensor
    skip: torch.Tensor | None
    minimum: torch.Tensor
    maximum: torch.Tensor


def degrade(image: GreyImage, scale: int) -> torch.Tensor:
    """Make the low-resolution image in the bit depth of the original.

    Parameters
    ----------
    image : GreyImage
        The original.
    scale : int
        Whole factor.

    Returns
    -------
    torch.Tensor
        ``(1, 1, H / scale, W / scale)`` float32, whole numbers in the range.
    """
    return downsample(image.values, scale).round_().clamp_(0, image.maximum)


def make_pair(image: GreyImage, scale: int, kind: ImageSkip) -> Pair:
    """Degrade an image, make its skip and map all to network values."""
    low = degrade(image, scale)
    skip = image_skip(kind, low, scale, minimum=0, maximum=image.maximum)
    norm = Normalisation.of(low)
    limits = norm.to_network(torch.tensor([0.0, image.maximum]))
    return Pair(
        low=norm.to_network(low)[0],
        high=norm.to_network(image.values)[0],
        skip=None if skip is None else norm.to_network(skip)[0],
        minimum=limits[0].item(),
        maximum=limits[1].item(),
    )


class PatchSampler:
    """Random patches, flipped and turned; the generator's state is all its state.

    Parameters
    ----------
    pairs : iterable of Pair
        Kept in memory; none smaller than the patches to be drawn.
    scale : int
        Whole factor of the pairs.
    generator : torch.Generator
        Source of all randomness.
    """

    def __init__(self, pairs: Iterable[Pair], scale: int, generator: torch.Generator) -> None:
        self.pairs = list(pairs)
        self.scale = scale
        self.generator = generator

    def sample(self, count: int, patch: int) -> Batch:
        """Draw `count` patches of `patch` low-resolution pixels a side."""
        drawn = [self._draw(patch) for _ in range(count)]
        skips = [pair.skip for pair in drawn if pair.skip is not None]
        return Batch(
            low=torch.stack([pair.low for pair in drawn]),
            high=torch.stack([pair.high for pair in drawn]),
            skip=torch.stack(skips) if skips else None,
            minimum=torch.tensor([pair.minimum for pair in drawn]).view(-1, 1, 1, 1),
            maximum=torch.tensor([pair.maximum for pair in drawn]).view(-1, 1, 1, 1),
        )

    def _draw(self, patch: int) -> Pair:
        pair = self.pairs[self._random(len(self.pairs))]
        height, width = pair.low.shape[-2:]
        top, left = self._random(height - patch + 1), self._random(width - patch + 1)
        turn = self._random(8)

        def cut(image: torch.Tensor, factor: int) -> torch.Tensor:
            rows = slice(top * factor, (top + patch) * factor)
            columns = slice(left * factor, (left + patch) * factor)
            crop = torch.rot90(image[..., rows, columns], turn % 4, (-2, -1))
            return crop.flip(-1) if turn >= 4 else crop

        return Pair(
            low=cut(pair.low, 1),
            high=cut(pair.high, self.scale),
            skip=None if pair.skip is None else cut(pair.skip, self.scale),
            minimum=pair.minimum,
            maximum=pair.maximum,
        )

    def _random(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self.generator))
