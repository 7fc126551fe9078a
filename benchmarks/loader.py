"""Does the loader keep the device busy? Steps a second with its work and without, in one run.

    python -m benchmarks.loader [--config models/rir-s-x4.yaml] [--device auto] [--set KEY=VALUE]

Three ways take turns in short rounds, so that whatever else the machine does
meets all of them: steps on a batch that is at hand already (no loader's work at
all), steps on batches drawn ahead in threads (as training does), and steps on
batches drawn when they are needed. Beside them the loader alone, which is what
it could feed a faster device. Images are made up: their values do not
change how long anything takes. Needs a checkout with its package installed.
"""

import argparse
import statistics
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import torch

from benchmarks.machine_info import machine
from cxrsr_cli.images.image_files import GrayscaleImage
from cxrsr_cli.inference.device import choose_device
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.training.config import TrainConfig, load_train_config
from cxrsr_cli.training.distributed import ProcessGroup
from cxrsr_cli.training.patch_sampler import (
    PREFETCH_ON_CPU,
    PREFETCH_ON_GPU,
    PatchSampler,
    PrefetchedBatch,
    prefetch_batches,
)
from cxrsr_cli.training.trainer import Trainer
from cxrsr_cli.training.training_data import make_pair

IMAGES = 4
SIDE = 1024
DAMAGE = [
    "degradation={depth: [8, 16], noise: [0.001, 0.03], jpeg: [50, 95], jpeg_probability: 0.5}"
]


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", type=Path, default=Path("models/rir-s-x4.yaml"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--steps", type=int, default=10, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    print("| degradation | at hand | ahead | when needed | loader alone | ahead / at hand |")
    print("|---|---|---|---|---|---|")
    for name, extra in (("of the file", []), ("depth, SP, JPEG", DAMAGE)):
        config = load_train_config(arguments.config, [*extra, *arguments.overrides])
        rates = measure(config, device, arguments.steps, arguments.rounds)
        columns = [f"{statistics.median(rate):.2f}" for rate in rates]
        pairs = [ahead / hand for hand, ahead in zip(*rates[:2], strict=True)]
        ratio = f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"
        print(f"| {name} | {' | '.join(columns)} | {ratio} |")
    print(f"\nMedian steps/s of {arguments.rounds} rounds of {arguments.steps}. {machine(device)}")


def measure(
    config: TrainConfig, device: torch.device, steps: int, rounds: int
) -> list[list[float]]:
    """Return steps a second in each round: at hand, ahead, when needed, loader alone."""
    state = Trainer(replace(config, init_from=None), device, ProcessGroup())
    scale = config.architecture.scale
    kind = ImageSkip.NONE if config.degradation.is_active else config.architecture.image_skip
    random = torch.Generator().manual_seed(0)
    images = (
        GrayscaleImage(
            "made up", torch.randint(256, (1, 1, SIDE, SIDE), generator=random).float(), 255
        )
        for _ in range(IMAGES)
    )
    pairs = [make_pair(image, scale, kind) for image in images]
    sampler = PatchSampler(
        pairs,
        scale,
        random,
        degradation=config.degradation,
        skip_kind=config.architecture.image_skip,
        noise_share=config.architecture.noise_share,
    )
    stage, pin = config.stages[0], device.type == "cuda"
    (drawn,) = prefetch_batches(sampler, [stage], prefetch=0, pin=pin)

    def timed(prefetch: int | None, *, train: bool = True) -> float:
        """Time a round; None for the batch at hand."""
        if prefetch is None:
            return steps / run(repeat(drawn, steps), train)
        with closing(
            prefetch_batches(sampler, repeat(stage, steps), prefetch=prefetch, pin=pin)
        ) as batches:
            return steps / run(batches, train)

    def run(batches: Iterable[PrefetchedBatch], train: bool) -> float:
        started = time.perf_counter()
        for each in batches:
            if train:
                state.train_step(state.network, each.batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    timed(None)  # warms up
    default = PREFETCH_ON_GPU if pin else PREFETCH_ON_CPU
    results = [
        (timed(None), timed(default), timed(0), timed(default, train=False)) for _ in range(rounds)
    ]
    return [list(column) for column in zip(*results, strict=True)]


if __name__ == "__main__":
    main()
