"""Patches of training pairs, drawn, degraded and turned at random."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.inference.assemble import image_skip
from cxrsr_cli.inference.impulse_filter import remove_impulses
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.networks.resampling import upsample
from cxrsr_cli.training.degradation import DegradationConfig, DegradedPatch, degrade_patch
from cxrsr_cli.training.distributed import ProcessGroup
from cxrsr_cli.training.training_pairs import TrainingPair

_MARGIN = 4
"""Low-resolution pixels around a patch that are degraded with it where the image
has them, so that its skip knows what lies beyond its edge."""

_SHARES = PixelRange(0, 1)
"""Of the range of stored values, in which patches are degraded."""


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Patches of several pairs; shapes as in `TrainingPair` with a leading N.

    `minimum` and `maximum` are ``(N, 1, 1, 1)``.
    """

    low: torch.Tensor
    high: torch.Tensor
    skip: torch.Tensor | None
    minimum: torch.Tensor
    maximum: torch.Tensor

    def pinned(self) -> "PatchBatch":
        """Return a copy in page-locked memory."""
        return self._map(torch.Tensor.pin_memory)

    def to(self, device: torch.device) -> "PatchBatch":
        """Return it on a device; from pinned memory without waiting."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "PatchBatch":
        return PatchBatch(
            low=function(self.low),
            high=function(self.high),
            skip=None if self.skip is None else function(self.skip),
            minimum=function(self.minimum),
            maximum=function(self.maximum),
        )


@dataclass(frozen=True, slots=True)
class _PatchSpec:
    """Where a patch lies, how it is turned, and the seed of its degradation."""

    pair: TrainingPair
    top: int
    left: int
    transform_index: int
    seed: int


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """A process's share of a batch before it is made.

    Attributes
    ----------
    places : tuple
        Of its patches.
    noise : torch.Tensor or None
        ``(N, 1, patch, patch)``, to add to the input.
    patch : int
        Low-resolution pixels a side.
    """

    places: tuple[_PatchSpec, ...]
    noise: torch.Tensor | None
    patch: int


class PatchSampler:
    """Random patches, flipped and turned; the generator's state is all its state.

    Every process draws where all patches of a batch lie, and makes its share
    of them: what a batch holds does not depend on how many processes there are.

    Parameters
    ----------
    pairs : iterable of Pair
        Kept in memory; none smaller than the patches to be drawn.
    scale : int
        Whole factor of the pairs.
    generator : torch.Generator
        Source of all randomness.
    degradation : Degradation, optional
        Done to every patch anew, for which pairs need no `skip`.
    kind : ImageSkip
        Made of degraded patches; otherwise the pairs' is used.
    impulse_filter : bool
        Degraded inputs lose their impulse noise, as the pairs' have lost it.
    noise : float
        As in `TrainConfig`.
    processes : Processes
        Whose share of each batch is made.
    """

    def __init__(
        self,
        pairs: Iterable[TrainingPair],
        scale: int,
        generator: torch.Generator,
        *,
        degradation: DegradationConfig | None = None,
        kind: ImageSkip = ImageSkip.NONE,
        impulse_filter: bool = False,
        noise: float = 0.0,
        processes: ProcessGroup | None = None,
    ) -> None:
        self.pairs = list(pairs)
        self.scale = scale
        self.generator = generator
        self.degradation = degradation or DegradationConfig()
        self.kind = kind
        self.impulse_filter = impulse_filter
        self.noise = noise
        self.processes = processes or ProcessGroup()
        sides = [min(pair.low.shape[-2:]) for pair in self.pairs]
        self._smallest = min(sides, default=0)

    def sample(self, count: int, patch: int) -> PatchBatch:
        """Draw `count` patches of `patch` low-resolution pixels a side.

        Returns
        -------
        Batch
            This process's share.
        """
        return self.make(self.plan(count, patch))

    def plan(self, count: int, patch: int) -> PatchPlan:
        """Draw all that is random of a batch, which is quick."""
        mine = self.processes.shard(count)
        places = [self._draw_patch(patch) for _ in range(count)]
        noise = self._draw_noise(count, patch)[mine] if self.noise else None
        return PatchPlan(tuple(places[mine]), noise, patch)

    def make(self, plan: PatchPlan) -> PatchBatch:
        """Make this process's share of a batch; nothing random, so in any thread."""
        if self.degradation.is_active:
            drawn = self._degrade(plan.places, plan.patch)
        else:
            drawn = [self._cut(place, plan.patch) for place in plan.places]
        skips = [pair.skip for pair in drawn if pair.skip is not None]
        low = torch.stack([pair.low for pair in drawn])
        high = torch.stack([pair.high for pair in drawn])
        skip = torch.stack(skips) if skips else None
        if plan.noise is not None:
            enlarged = upsample(plan.noise, self.scale)
            low, high = low + plan.noise, high + enlarged
            skip = None if skip is None else skip + enlarged
        return PatchBatch(
            low=low,
            high=high,
            skip=skip,
            minimum=torch.tensor([pair.minimum for pair in drawn]).view(-1, 1, 1, 1),
            maximum=torch.tensor([pair.maximum for pair in drawn]).view(-1, 1, 1, 1),
        )

    def _draw_patch(self, patch: int) -> _PatchSpec:
        pair = self.pairs[self._random(len(self.pairs))]
        height, width = pair.low.shape[-2:]
        top, left = self._random(height - patch + 1), self._random(width - patch + 1)
        turn = self._random(8)
        # Not drawn where it is not needed: older trainings resume as they began.
        seed = self._random(1 << 48) if self.degradation.is_active else 0
        return _PatchSpec(pair, top, left, turn, seed)

    def _random(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self.generator))

    def _draw_noise(self, count: int, patch: int) -> torch.Tensor:
        """Draw noise of another strength for each patch, half of them with next to none."""
        strength = torch.rand(count, 1, 1, 1, generator=self.generator).square()
        return self.noise * strength * torch.randn(count, 1, patch, patch, generator=self.generator)

    def _cut(self, place: _PatchSpec, patch: int) -> TrainingPair:
        pair = place.pair

        def cut(image: torch.Tensor, factor: int) -> torch.Tensor:
            return _transform(
                _crop(image, place.top, place.left, patch, factor), place.transform_index
            )

        return TrainingPair(
            low=cut(pair.low, 1),
            high=cut(pair.high, self.scale),
            skip=None if pair.skip is None else cut(pair.skip, self.scale),
            minimum=pair.minimum,
            maximum=pair.maximum,
            step=pair.step,
        )

    def _degrade(self, places: Sequence[_PatchSpec], patch: int) -> list[TrainingPair]:
        margin = min(_MARGIN, (self._smallest - patch) // 2)
        window = patch + 2 * margin
        made, corners = list[DegradedPatch](), list[tuple[int, int]]()
        for place in places:
            pair = place.pair
            top, left = (
                max(0, min(start - margin, side - window))
                for start, side in zip((place.top, place.left), pair.low.shape[-2:], strict=True)
            )
            share = (_crop(pair.high, top, left, window, self.scale) - pair.minimum) / (
                pair.maximum - pair.minimum
            )
            made.append(
                degrade_patch(
                    share.clamp_(0, 1),
                    self.scale,
                    self.degradation,
                    step=pair.step,
                    seed=place.seed,
                )
            )
            corners.append((place.top - top, place.left - left))
        low = torch.stack([each.low for each in made])
        if self.impulse_filter:
            low = remove_impulses(low, _SHARES)
            made = [
                replace(each, low=filtered, full_range=False)
                for each, filtered in zip(made, low, strict=True)
            ]
        skip = image_skip(self.kind, low, self.scale, _SHARES)
        skips = [None] * len(made) if skip is None else list(skip)
        return [
            self._finish(place, each, skip, corner, patch)
            for place, each, skip, corner in zip(places, made, skips, corners, strict=True)
        ]

    def _finish(
        self,
        place: _PatchSpec,
        made: DegradedPatch,
        skip: torch.Tensor | None,
        corner: tuple[int, int],
        patch: int,
    ) -> TrainingPair:
        """Take the patch out of its window, turned, in network values."""
        pair = place.pair
        lowest, highest = (0.0, 1.0) if made.full_range else (pair.minimum, pair.maximum)

        def finish(share: torch.Tensor, factor: int) -> torch.Tensor:
            cut = _transform(_crop(share, *corner, patch, factor), place.transform_index)
            return cut * (highest - lowest) + lowest

        return TrainingPair(
            low=finish(made.low, 1),
            high=finish(made.high, self.scale),
            skip=None if skip is None else finish(skip, self.scale),
            minimum=lowest,
            maximum=highest,
            step=pair.step,
        )


def _crop(image: torch.Tensor, top: int, left: int, side: int, factor: int) -> torch.Tensor:
    rows = slice(top * factor, (top + side) * factor)
    columns = slice(left * factor, (left + side) * factor)
    return image[..., rows, columns]


def _transform(image: torch.Tensor, turn: int) -> torch.Tensor:
    turned = torch.rot90(image, turn % 4, (-2, -1))
    return turned.flip(-1) if turn >= 4 else turned
