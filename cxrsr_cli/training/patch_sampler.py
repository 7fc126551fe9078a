"""Batches of random patches, degraded, flipped and rotated, and made ahead in processes."""

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.inference.assemble import image_skip
from cxrsr_cli.inference.impulse_filter import remove_impulses
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.networks.resampling import upsample
from cxrsr_cli.training.config import StageConfig, TrainConfig
from cxrsr_cli.training.degradation import DegradationConfig, DegradedPatch, degrade_patch
from cxrsr_cli.training.distributed import ProcessGroup
from cxrsr_cli.training.training_data import TrainingPair

_MARGIN_PIXELS = 4
"""Low-resolution pixels around a patch that are degraded with it, where the image has them. The
image skip needs the neighbours of the pixels at the edge."""

_SHARES_OF_NOISE = (0.5, 0.2)
"""Of all patches, the shares that keep all noise, and none. The others keep a share between."""
_MAX_MARK_SHARE = 0.05
_MARK_DRAWS = 4
"""Places drawn at most for a patch, while more of it than `_MAX_MARK_SHARE` is a mark. Burnt-in
letters have most of the error of a radiograph, and no anatomy."""

_SHARES = PixelRange(0, 1)
"""Of the range of stored values, in which patches are degraded."""

_MAX_WORKERS = 8
"""Processes that make batches for a GPU, which uses a small batch faster than one makes it."""


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Patches of several pairs.

    The shapes are those of `TrainingPair` with a leading N. `noise_share`, `minimum` and
    `maximum` are ``(N, 1, 1, 1)``.
    """

    low: torch.Tensor
    high: torch.Tensor
    sigma: torch.Tensor
    error: torch.Tensor
    noise_share: torch.Tensor
    minimum: torch.Tensor
    maximum: torch.Tensor
    skip: torch.Tensor | None = None

    @classmethod
    def of(cls, pairs: Sequence[TrainingPair]) -> "PatchBatch":
        """Stack pairs of equal size."""
        skips = [pair.skip for pair in pairs if pair.skip is not None]

        def numbers(name: str) -> torch.Tensor:
            return torch.tensor([getattr(pair, name) for pair in pairs]).view(-1, 1, 1, 1)

        return cls(
            low=torch.stack([pair.low for pair in pairs]),
            high=torch.stack([pair.high for pair in pairs]),
            skip=torch.stack(skips) if skips else None,
            sigma=torch.stack([pair.sigma for pair in pairs]),
            error=torch.stack([pair.error for pair in pairs]),
            noise_share=numbers("noise_share"),
            minimum=numbers("minimum"),
            maximum=numbers("maximum"),
        )

    def pin_memory(self) -> "PatchBatch":
        """Return a copy in page-locked memory."""
        return self._map(torch.Tensor.pin_memory)

    def to(self, device: torch.device) -> "PatchBatch":
        """Return a copy on a device; from page-locked memory without waiting for the copy."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "PatchBatch":
        return PatchBatch(**{name: function(value) for name, value in self._tensors().items()})

    def _tensors(self) -> dict[str, torch.Tensor]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def __reduce__(self) -> tuple[Any, ...]:
        # By value: PyTorch's own way needs shared memory, of which many containers have little.
        return _from_arrays, ({name: value.numpy() for name, value in self._tensors().items()},)


def _from_arrays(arrays: dict[str, NDArray[np.float32]]) -> PatchBatch:
    return PatchBatch(**{name: torch.from_numpy(array) for name, array in arrays.items()})


@dataclass(frozen=True, slots=True)
class _PatchSpec:
    """Pair, place and orientation of a patch, its share of noise, the seed of its degradation."""

    index: int
    top: int
    left: int
    transform_index: int
    noise_share: float
    seed: int


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """The random numbers of a process's share of a batch.

    Attributes
    ----------
    specs : tuple
        One per patch.
    patch_size : int
        Height and width in low-resolution pixels.
    """

    specs: tuple[_PatchSpec, ...]
    patch_size: int


class PatchSampler:
    """Draws random patches, flipped and rotated. Its only state is that of the generator.

    Every process draws the positions of all patches of a batch and makes its
    share of them, so that a batch does not depend on the number of processes.

    Parameters
    ----------
    pairs : iterable of TrainingPair
        Kept in memory; none may be smaller than the patches.
    scale : int
        Factor of the pairs.
    generator : torch.Generator
        Source of all random numbers.
    degradation : DegradationConfig, optional
        Applied to every patch. The pairs then need no `skip`.
    skip_kind : ImageSkip
        Image skip of degraded patches; without degradation that of the pairs is
        used.
    impulse_filter : bool
        Whether impulse noise is removed from degraded inputs.
    noise_share : bool
        Whether a share of noise is drawn for each patch; otherwise each keeps all of it.
    weights : sequence of float, optional
        Probabilities of the pairs; equal by default.
    process_group : ProcessGroup, optional
        Its share of each batch is made.
    """

    def __init__(
        self,
        pairs: Iterable[TrainingPair],
        scale: int,
        generator: torch.Generator,
        *,
        degradation: DegradationConfig | None = None,
        skip_kind: ImageSkip = ImageSkip.NONE,
        impulse_filter: bool = False,
        noise_share: bool = False,
        weights: Sequence[float] | None = None,
        process_group: ProcessGroup | None = None,
    ) -> None:
        self.pairs = list(pairs)
        self._cumulative = torch.tensor(list(accumulate(weights or [1.0] * len(self.pairs))))
        self.scale = scale
        self.generator = generator
        self.degradation = degradation or DegradationConfig()
        self.skip_kind = skip_kind
        self.impulse_filter = impulse_filter
        self.noise_share = noise_share
        self.process_group = process_group or ProcessGroup()
        self._min_side = min((min(pair.low.shape[-2:]) for pair in self.pairs), default=0)

    @classmethod
    def from_config(
        cls,
        config: TrainConfig,
        pairs: Iterable[TrainingPair],
        generator: torch.Generator,
        process_group: ProcessGroup | None = None,
        *,
        weights: Sequence[float] | None = None,
    ) -> "PatchSampler":
        """Make the sampler of a training."""
        return cls(
            pairs,
            config.architecture.scale,
            generator,
            degradation=config.degradation,
            skip_kind=config.architecture.image_skip,
            impulse_filter=config.architecture.impulse_filter,
            noise_share=config.architecture.noise_share,
            weights=weights,
            process_group=process_group,
        )

    def sample(self, count: int, patch_size: int) -> PatchBatch:
        """Draw this process's share of `count` patches.

        `patch_size` is their height and width in low-resolution pixels.
        """
        return self.make(self.plan(count, patch_size))

    def plan(self, count: int, patch_size: int) -> PatchPlan:
        """Draw the random numbers of a batch, which takes little time."""
        share = self.process_group.shard(count)
        specs = [self._draw_spec(patch_size) for _ in range(count)]
        return PatchPlan(tuple(specs[share]), patch_size)

    def make(self, plan: PatchPlan) -> PatchBatch:
        """Make this process's share of a batch. Draws no random numbers; safe in any process."""
        if self.degradation.is_active:
            pairs = self._degrade(plan.specs, plan.patch_size)
        else:
            pairs = [self._crop_pair(spec, plan.patch_size) for spec in plan.specs]
        return PatchBatch.of(pairs)

    def _draw_spec(self, patch_size: int) -> _PatchSpec:
        drawn = self._uniform() * self._cumulative[-1]
        index = int(torch.searchsorted(self._cumulative, drawn, right=True))
        index = min(index, len(self.pairs) - 1)
        pair = self.pairs[index]
        height, width = pair.low.shape[-2:]
        for _ in range(_MARK_DRAWS):
            top, left = self._random(height - patch_size + 1), self._random(width - patch_size + 1)
            if pair.mark_share(top, left, patch_size) <= _MAX_MARK_SHARE:
                break
        share, position = 1.0, self._uniform()
        if self.noise_share:
            keep_all, keep_none = _SHARES_OF_NOISE
            rest = (position - keep_all - keep_none) / (1 - keep_all - keep_none)
            share = 1.0 if position < keep_all else max(0.0, rest)
        return _PatchSpec(index, top, left, self._random(8), share, self._random(1 << 48))

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self.generator))

    def _random(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self.generator))

    def _crop_pair(self, spec: _PatchSpec, patch_size: int) -> TrainingPair:
        pair = self.pairs[spec.index]

        def crop(image: torch.Tensor, factor: int) -> torch.Tensor:
            cropped = _crop(image, spec.top, spec.left, patch_size, factor)
            return _transform(cropped, spec.transform_index)

        return replace(
            pair,
            low=crop(pair.low, 1),
            high=crop(pair.high, self.scale),
            skip=None if pair.skip is None else crop(pair.skip, self.scale),
            sigma=crop(pair.sigma.expand(pair.low.shape), 1),
        )

    def _degrade(self, specs: Sequence[_PatchSpec], patch_size: int) -> list[TrainingPair]:
        margin = min(_MARGIN_PIXELS, (self._min_side - patch_size) // 2)
        window = patch_size + 2 * margin
        degraded, corners = list[DegradedPatch](), list[tuple[int, int]]()
        for spec in specs:
            pair = self.pairs[spec.index]
            top, left = (
                max(0, min(start - margin, side - window))
                for start, side in zip((spec.top, spec.left), pair.low.shape[-2:], strict=True)
            )
            share = (_crop(pair.high, top, left, window, self.scale) - pair.minimum) / (
                pair.maximum - pair.minimum
            )
            degraded.append(
                degrade_patch(
                    share.clamp_(0, 1),
                    self.scale,
                    self.degradation,
                    step=pair.step,
                    seed=spec.seed,
                )
            )
            corners.append((spec.top - top, spec.left - left))
        low = torch.stack([patch.low for patch in degraded])
        if self.impulse_filter:
            low = remove_impulses(low, _SHARES)
            degraded = [
                replace(patch, low=filtered, full_range=False)
                for patch, filtered in zip(degraded, low, strict=True)
            ]
        skip = image_skip(self.skip_kind, low, self.scale)
        skips = [None] * len(degraded) if skip is None else list(skip)
        noise = upsample(torch.stack([patch.noise for patch in degraded]), self.scale)
        return [
            self._crop_degraded(
                spec,
                replace(patch, high=patch.high + spec.noise_share * kept),
                skip,
                corner,
                patch_size,
            )
            for spec, patch, kept, skip, corner in zip(
                specs, degraded, noise, skips, corners, strict=True
            )
        ]

    def _crop_degraded(
        self,
        spec: _PatchSpec,
        degraded: DegradedPatch,
        skip: torch.Tensor | None,
        corner: tuple[int, int],
        patch_size: int,
    ) -> TrainingPair:
        """Crop the patch from its window, flip and rotate it, and map it to network values."""
        pair = self.pairs[spec.index]
        minimum, maximum = (0.0, 1.0) if degraded.full_range else (pair.minimum, pair.maximum)

        def crop(share: torch.Tensor, factor: int) -> torch.Tensor:
            cropped = _crop(share, *corner, patch_size, factor)
            return _transform(cropped, spec.transform_index) * (maximum - minimum) + minimum

        return TrainingPair(
            low=crop(degraded.low, 1),
            high=crop(degraded.high, self.scale).clamp(minimum, maximum),
            skip=None if skip is None else crop(skip, self.scale),
            sigma=crop(degraded.sigma, 1) - minimum,
            error=crop(degraded.low - degraded.clean, 1) - minimum,
            noise_share=spec.noise_share,
            minimum=minimum,
            maximum=maximum,
            step=pair.step,
        )


def _crop(image: torch.Tensor, top: int, left: int, side: int, factor: int) -> torch.Tensor:
    rows = slice(top * factor, (top + side) * factor)
    columns = slice(left * factor, (left + side) * factor)
    return image[..., rows, columns]


def _transform(image: torch.Tensor, index: int) -> torch.Tensor:
    """Apply one of the eight flips and rotations."""
    rotated = torch.rot90(image, index % 4, (-2, -1))
    return rotated.flip(-1) if index >= 4 else rotated


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """A batch, and the state of the sampler after it.

    Attributes
    ----------
    batch : PatchBatch
        This process's share of the batch.
    generator : torch.Tensor
        State of the sampler's generator after this batch was drawn and before
        the next one; an exact resume starts from it.
    """

    batch: PatchBatch
    generator: torch.Tensor


class _Batches(Dataset[PatchBatch]):
    """Makes a batch from its plan, for PyTorch's loader."""

    def __init__(self, sampler: PatchSampler) -> None:
        self._sampler = sampler

    def __getitem__(self, plan: PatchPlan) -> PatchBatch:
        return self._sampler.make(plan)


def default_workers(device: torch.device) -> int:
    """Return how many processes make batches for a device; on a CPU the network needs the cores."""
    return 0 if device.type == "cpu" else min(_MAX_WORKERS, os.cpu_count() or 1)


def load_batches(
    sampler: PatchSampler,
    stages: Iterable[StageConfig],
    *,
    workers: int = 0,
    pin_memory: bool = False,
) -> Generator[LoadedBatch]:
    """Make a batch for each stage, in processes while earlier batches are used.

    The random numbers are drawn in the caller's process in the order of the
    steps, so the batches do not depend on `workers`.

    Parameters
    ----------
    sampler : PatchSampler
        Must not be used elsewhere until the generator is exhausted or closed.
    stages : iterable of StageConfig
        One for each step.
    workers : int
        Number of processes, each of which is two batches ahead; 0 makes each batch when it
        is needed.
    pin_memory : bool
        Whether batches are in page-locked memory, which a GPU copies from
        without blocking the CPU.

    Yields
    ------
    LoadedBatch
        In the order of `stages`.
    """
    states = deque[torch.Tensor]()

    def plan_batches() -> Iterator[PatchPlan]:
        for stage in stages:
            plan = sampler.plan(stage.batch_size, stage.patch_size)
            states.append(sampler.generator.get_state())
            yield plan

    # Forked processes share the images with this one; others would get copies.
    is_forked = workers > 0 and sys.platform == "linux"
    loader = DataLoader(
        _Batches(sampler),
        batch_size=None,
        sampler=plan_batches(),
        num_workers=workers,
        pin_memory=pin_memory,
        multiprocessing_context="fork" if is_forked else None,
    )
    for batch in loader:
        yield LoadedBatch(batch, states.popleft())
