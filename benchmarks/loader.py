"""Does the loader keep the device busy? Steps a second with its work and without, in one run.

    python -m benchmarks.loader [--config models/rir-s-x4.yaml] [--device auto] [--workers N]

Three ways take turns in short rounds, so that whatever else the machine does
meets all of them: steps on a batch that is at hand already (no loader's work at
all), steps on batches made ahead in processes (as training does for a GPU), and steps on
batches made when they are needed (for a CPU). Beside them the loader alone, which is what
it could feed a faster device. Images are made up: their values do not
change how long anything takes. Needs a checkout with its package installed.
"""

import argparse
import statistics
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice, repeat
from pathlib import Path

import torch

from benchmarks.machine_info import machine
from benchmarks.timing import synchronize
from cxrsr_cli.images.image_files import GrayscaleImage
from cxrsr_cli.inference.device import choose_device
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.training.config import TrainConfig, load_train_config
from cxrsr_cli.training.distributed import ProcessGroup
from cxrsr_cli.training.patch_sampler import (
    LoadedBatch,
    PatchSampler,
    load_batches,
)
from cxrsr_cli.training.trainer import Trainer
from cxrsr_cli.training.training_data import TrainingPair, make_pair

IMAGES = 4
SIDE = 1024
_BATCHES_AHEAD = 2
"""Of each process of PyTorch's loader."""
DAMAGE = [
    "degradation={depth: [8, 16], noise: [0.001, 0.03], jpeg: [50, 95], jpeg_probability: 0.5}"
]


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, default=Path("models/rir-s-x4.yaml"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--steps", type=int, default=10, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    print("| degradation | at hand | ahead | when needed | loader alone | ahead / at hand |")
    print("|---|---|---|---|---|---|")
    for name, extra in (("of the file", []), ("depth, noise, JPEG", DAMAGE)):
        config = load_train_config(arguments.config, [*extra, *arguments.overrides])
        rates = measure(config, device, arguments.workers, arguments.steps, arguments.rounds)
        columns = [f"{statistics.median(rate):.2f}" for rate in rates]
        pairs = [ahead / hand for hand, ahead in zip(*rates[:2], strict=True)]
        ratio = f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"
        print(f"| {name} | {' | '.join(columns)} | {ratio} |")
    print(f"\nMedian steps/s of {arguments.rounds} rounds of {arguments.steps}. {machine(device)}")


def measure(
    config: TrainConfig, device: torch.device, workers: int, steps: int, rounds: int
) -> list[list[float]]:
    """Return steps a second in each round: at hand, ahead, when needed, loader alone."""
    random = torch.Generator().manual_seed(0)
    kind = ImageSkip.NONE if config.degradation.is_active else config.architecture.image_skip
    images = (
        GrayscaleImage(
            "made up", torch.randint(256, (1, 1, SIDE, SIDE), generator=random).float(), 255
        )
        for _ in range(IMAGES)
    )
    pairs = [make_pair(image, config.architecture.scale, kind) for image in images]
    steps_of = Steps.prepare(config, pairs, device)
    steps_of.take(steps, None)  # warms up
    results = [
        (
            steps / steps_of.take(steps, None),
            steps / steps_of.take(steps, workers),
            steps / steps_of.take(steps, 0),
            steps / steps_of.take(steps, workers, train=False),
        )
        for _ in range(rounds)
    ]
    return [list(column) for column in zip(*results, strict=True)]


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of the first stage of a training, which are timed and then forgotten.

    Attributes
    ----------
    trainer : Trainer
        A new network on its device.
    sampler : PatchSampler
        Draws patches of the images.
    at_hand : LoadedBatch
        A batch that is used again and again.
    """

    trainer: Trainer
    sampler: PatchSampler
    at_hand: LoadedBatch

    @classmethod
    def prepare(
        cls, config: TrainConfig, pairs: Iterable[TrainingPair], device: torch.device
    ) -> "Steps":
        """Make them for a configuration and images."""
        trainer = Trainer(replace(config, init_from=None), device, ProcessGroup())
        sampler = PatchSampler.from_config(config, pairs, torch.Generator().manual_seed(0))
        (at_hand,) = load_batches(
            sampler, config.stages[:1], workers=0, pin_memory=device.type == "cuda"
        )
        return cls(trainer, sampler, at_hand)

    def take(self, count: int, workers: int | None, *, train: bool = True) -> float:
        """Return the seconds of `count` steps; `workers` is None for the batch at hand."""
        if workers is None:
            return self._run(repeat(self.at_hand, count), train=train)
        # The processes take a moment to start, and then have some batches ready at once.
        first = _BATCHES_AHEAD * workers
        device, stages = self.trainer.device, self.trainer.config.stages
        with closing(
            load_batches(
                self.sampler,
                repeat(stages[0], first + count),
                workers=workers,
                pin_memory=device.type == "cuda",
            )
        ) as batches:
            self._run(islice(batches, first), train=train)
            return self._run(batches, train=train)

    def _run(self, batches: Iterable[LoadedBatch], *, train: bool) -> float:
        started = time.perf_counter()
        for each in batches:
            if train:
                self.trainer.train_step(self.trainer.network, each.batch)
        synchronize(self.trainer.device)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
